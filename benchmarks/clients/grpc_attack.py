"""Hostile gRPC calls: wrong messages, methods, metadata, deadlines and streams, over a real channel."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import grpc
import numpy as np
from clients.tally import Tally

from hyperfleet.wire import generator_pb2 as wire

SERVICE = "/hyperfleet.v1.ParameterGenerator/"
# Services of the gRPC standard, which answer a malformed message as gRPC itself does.
OTHERS = ("/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
# Error of the client library when the server has ended a call that the client still writes to.
_OF_THE_CLIENT = "Internal error from Core"
_BROKEN = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS}
_CHANNELS = 8
# A call without a message may wait until the caller gives up, so send few of them, with short deadlines.
_RARE, _PATIENCE_S = {"no message": 0.02}, 5.0
_METADATA_TEXT = "".join(map(chr, range(0x20, 0x7F)))


class Caller:
    """Draws and makes calls; the service accepts `token`."""

    def __init__(self, rng: random.Random, port: int, token: str, bound_s: float) -> None:
        self.rng = rng
        self.bound_s = bound_s
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._features = np.random.default_rng(1).standard_normal((40, 192), np.float32)
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self._channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(_CHANNELS)
        ]
        self.kinds: dict[str, Callable[[], Awaitable[object]]] = {
            "message": self._message,
            "fields": self._fields,
            "wrong method": self._wrong_method,
            "metadata": self._metadata_call,
            "deadline": self._deadline,
            "stream": self._stream,
            "no message": self._no_message,
            "standard services": self._standard,
            "valid": self._valid,
        }

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels:
            await channel.close()

    def _unary(self, method: str, message: bytes, **options: object) -> Awaitable[object]:
        settings = {"timeout": self.bound_s, "metadata": self._metadata, **options}
        call: Awaitable[object] = self.rng.choice(self._channels).unary_unary(method)(message, **settings)
        return call

    def _right(self) -> bytes:
        features = self._features[: self.rng.randint(1, 4)].tobytes()
        codec = self.rng.choice(("", "fp16", "int8", "rank4"))
        request = wire.GenerateHeadsRequest(task="open-ended-qa", features=features, codec=codec)
        message: bytes = request.SerializeToString()
        return message

    def _valid(self) -> Awaitable[object]:
        return self._unary(SERVICE + "GenerateHeads", self._right())

    def _message(self) -> Awaitable[object]:
        """Call with bytes that are no message or a torn one."""
        rng, data = self.rng, bytearray(self._right())
        for _ in range(rng.randint(1, 20)):
            data[rng.randrange(min(len(data), 60)) :][:1] = rng.randbytes(1)
            at = rng.randrange(min(len(data), 60))
            data[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 4))
        nested = b"\x0b" * rng.randint(1, 3000)
        length = b"\x1a\xff\xff\xff\xff\x0f" + rng.randbytes(9)
        wanted = (bytes(data), rng.randbytes(rng.randint(1, 2000)), nested, length, bytes(data[:50]), b"\x0a")
        method = rng.choice(("GenerateHeads", "GenerateHeads", "ListModels", "GetBase"))
        return self._unary(SERVICE + method, rng.choice(wanted))

    def _fields(self) -> Awaitable[object]:
        rng = self.rng
        bad = self._features[:1].copy()
        bad[0, rng.randrange(192)] = rng.choice((np.nan, np.inf, -np.inf))
        some = self._features
        sizes = (b"", some[:1].tobytes()[:-1], some[:5].tobytes(), some.tobytes(), bytes(20_000))
        text = "".join(rng.choices("ab\0\n\u00e9\U0001f600/", k=rng.choice((0, 3, 3000))))
        request = wire.GenerateHeadsRequest(
            task=rng.choice(("open-ended-qa", "open-ended-qa", text)),
            model=rng.choice(("", "whole", "rank4", text)),
            features=rng.choice((bad.tobytes(), *sizes)),
            codec=rng.choice(("", "fp16", "rank0", text)),
        )
        return self._unary(SERVICE + "GenerateHeads", request.SerializeToString())

    def _wrong_method(self) -> Awaitable[object]:
        rng = self.rng
        letters = "abZ./_-9%"
        name = "".join(rng.choices(letters, k=rng.randint(1, 60)))
        wanted = (SERVICE + name, "/" + name + "/GenerateHeads", "/" + name, SERVICE, "/" + "x" * 5000)
        return self._unary(rng.choice((*wanted, SERVICE + "generateHeads")), self._right())

    def _metadata_call(self) -> Awaitable[object]:
        rng = self.rng
        text = "".join(rng.choices(_METADATA_TEXT, k=rng.choice((0, 1, 50, 1000))))
        right = self._metadata
        wanted: tuple[tuple[tuple[str, str | bytes], ...], ...] = (
            (),
            (("authorization", text),),
            (("authorization", "Bearer " + text),),
            (*right, *right),
            (*right, ("x-request-id", text)),
            (*right, ("x-request-id-bin", rng.randbytes(99)), ("authorization-bin", rng.randbytes(9))),
            (*right, *((f"x-{i}", "y") for i in range(100))),
            (*right, ("x-long", "z" * rng.choice((6_000, 60_000)))),
        )
        return self._unary(SERVICE + "GenerateHeads", self._right(), metadata=rng.choice(wanted))

    def _deadline(self) -> Awaitable[object]:
        timeout = self.rng.choice((-1.0, 0.0, 1e-6, 1e-3, 0.005, 0.02))
        return self._unary(SERVICE + "GenerateHeads", self._right(), timeout=timeout)

    async def _stream(self) -> object:
        """Send several messages, in one stream, to a method that takes one."""
        return await self._streamed(self.rng.choice((2, 5)), self.bound_s)

    async def _no_message(self) -> object:
        return await self._streamed(0, _PATIENCE_S)

    async def _streamed(self, num: int, timeout_s: float) -> object:
        channel = self.rng.choice(self._channels)
        call = channel.stream_stream(SERVICE + "GenerateHeads")(timeout=timeout_s, metadata=self._metadata)
        for _ in range(num):
            await call.write(self._right())
        if num and self.rng.random() < 0.2:
            call.cancel()
        else:
            await call.done_writing()
        async for _ in call:
            pass
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), await call.details())
        return code

    def _standard(self) -> Awaitable[object]:
        return self._unary(self.rng.choice(OTHERS), self.rng.randbytes(self.rng.randint(0, 90)))


async def call_all(
    caller: Caller, num: int, tally: Tally, *, in_flight: int, kinds: tuple[str, ...] = ()
) -> None:
    """Make `num` calls of `kinds`, `in_flight` at a time."""
    names = kinds or tuple(caller.kinds)
    drawn = iter(caller.rng.choices(names, [_RARE.get(name, 1.0) for name in names], k=num))

    async def drive() -> None:
        for kind in drawn:
            began = time.perf_counter()
            fault, details = None, ""
            try:
                async with asyncio.timeout(2 * caller.bound_s):
                    await caller.kinds[kind]()
                end = "OK"
            except grpc.aio.AioRpcError as error:
                end, details = error.code().name, error.details() or ""
                seconds = time.perf_counter() - began
                if details == _OF_THE_CLIENT and kind == "stream" and end == "INTERNAL":
                    end = "ended early"
                elif error.code() in _BROKEN and kind != "standard services":
                    fault = f"{end}: {details[:80]}"
                elif end == "DEADLINE_EXCEEDED" and kind != "deadline":
                    fault = f"no answer within {seconds:.0f} s"
            except asyncio.CancelledError:
                end = "CANCELLED"
            except TimeoutError:
                end, fault = "hang", "neither answered nor ended"
            tally.add(f"gRPC {kind}", end, time.perf_counter() - began, fault=fault, sent=details)

    await asyncio.gather(*(drive() for _ in range(in_flight)))
