"""Attacks on any port: bytes that are no request, torn HTTP/2 frames, slow and half-open connections."""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator

from clients.tally import Tally

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _END_HEADERS = 1, 4
_TRICKLE_S = 0.3
TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """Return an HTTP/2 frame; `length`, if given, replaces the true one."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _field(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def _call_headers(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x")]
    fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers"), *more]
    return b"".join(_field(*each) for each in fields)


CALL = _call_headers(b"/hyperfleet.v1.ParameterGenerator/GenerateHeads")
OPENED = PREFACE + frame(_SETTINGS, 0, 0, b"") + frame(_HEADERS, _END_HEADERS, 1, CALL)


def torn_frames(rng: random.Random) -> bytes:
    """Return an HTTP/2 connection with something wrong in it."""
    opened = PREFACE + frame(_SETTINGS, 0, 0, b"")
    message = rng.choice(
        (
            b"\x00\xff\xff\xff\xff" + rng.randbytes(40),  # says 4 GiB
            b"\x01\x00\x00\x00\x08" + rng.randbytes(8),  # compressed, but by no named codec
            b"\x07\x00\x00\x00\x02ab" + rng.randbytes(3),
            b"\x00\x00\x00\x00\x08abc",
            rng.randbytes(rng.randint(0, 3000)),
        )
    )
    timeout = _call_headers(b"/x", (b"grpc-timeout", rng.choice((b"99999999999S", b"-1S", b"1x", b""))))
    encoded = _call_headers(b"/x", (b"grpc-encoding", rng.choice((b"gzip", b"zstd", b"\xff\xfe"))))
    wanted: tuple[bytes, ...] = (
        OPENED + frame(_DATA, rng.choice((0, _END_STREAM)), 1, message),
        opened + frame(_HEADERS, _END_HEADERS, 1, timeout) + frame(_DATA, _END_STREAM, 1, message),
        opened + frame(_HEADERS, _END_HEADERS, 1, encoded) + frame(_DATA, _END_STREAM, 1, message),
        opened + frame(_HEADERS, _END_HEADERS | _END_STREAM, 1, rng.randbytes(rng.randint(0, 200))),
        opened + frame(_HEADERS, 0, 1, CALL[:30]) + frame(_CONTINUATION, 0, 1, b"\x00") * 200,
        opened + frame(_CONTINUATION, 0, 1, rng.randbytes(20)),
        opened + frame(_SETTINGS, 0, 0, rng.randbytes(rng.choice((5, 6, 600)))),
        opened
        + frame(_WINDOW, 0, rng.choice((0, 1)), rng.choice((b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0"))) * 3,
        opened + frame(_PING, 0, 0, b"12345678") * 300 + frame(_PING, 0, 0, b"1"),
        opened + b"".join(_opened_and_reset(2 * i + 1) for i in range(100)),
        opened + frame(_GOAWAY, 0, 0, rng.randbytes(8)) + frame(_HEADERS, _END_HEADERS, 1, CALL),
        opened + frame(rng.randrange(256), rng.randrange(256), rng.getrandbits(32), rng.randbytes(50)),
        opened + frame(rng.randrange(10), rng.randrange(256), 1, rng.randbytes(50), length=0xFFFFFF),
        PREFACE[: rng.randint(1, len(PREFACE))] + rng.randbytes(rng.randint(0, 50)),
    )
    return rng.choice(wanted)


def _opened_and_reset(stream: int) -> bytes:
    return frame(_HEADERS, _END_HEADERS, stream, CALL) + frame(_RST, 0, stream, b"\0\0\0\x08")


def noise(rng: random.Random) -> bytes:
    """Return bytes that belong to no protocol."""
    begin = rng.choice(
        (b"", b"", b"GET ", b"POST /v1/generate/open-ended-qa HTTP/1.1\r\n", TLS_HELLO, b"\r\n" * 40)
    )
    return begin + rng.randbytes(rng.choice((0, 1, 9, 100, 4096, 60_000)))


async def throw(
    port: int, name: str, drawn: Iterator[bytes], tally: Tally, *, in_flight: int, bound_s: float
) -> None:
    """Send each item over its own connection, close the sending side, and wait for the other end to close."""

    async def drive() -> None:
        for data in drawn:
            began = time.perf_counter()
            fault = None
            try:
                async with asyncio.timeout(bound_s):
                    end = await _exchange(port, data)
            except TimeoutError:
                end, fault = "hang", f"still open after {bound_s:g} s"
            except ConnectionRefusedError:
                end, fault = "refused", "the port takes no connections"
            except OSError:
                end = "reset"
            tally.add(name, end, time.perf_counter() - began, fault=fault, sent=data)

    await asyncio.gather(*(drive() for _ in range(in_flight)))


async def _exchange(port: int, data: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        with contextlib.suppress(OSError):
            writer.write_eof()
        return "answered" if await _drain(reader) else "closed"
    finally:
        writer.transport.abort()


async def _drain(reader: asyncio.StreamReader) -> bool:
    answered = False
    while chunk := await reader.read(1 << 16):
        answered = answered or bool(chunk)
    return answered


def slow_kinds(request: bytes) -> dict[str, dict[str, tuple[bytes, bytes]]]:
    """Return the slow clients of both ports: the bytes sent at once, and those sent one by one."""
    head = request[: request.index(b"\r\n\r\n") + 4]
    return {
        "HTTP": {
            "sends nothing": (b"", b""),
            "half a head": (head[:60], b""),
            "a head by the byte": (head[:20], head[20:]),
            "half a body": (head + b"\0" * 99, b""),
            "a body by the byte": (head, b"\0" * 768),
            "a TLS greeting": (TLS_HELLO, b""),
        },
        "gRPC": {
            "sends nothing": (b"", b""),
            "half a preface": (PREFACE[:9], b""),
            "a preface by the byte": (b"", PREFACE * 20),
            "answers no ping": (PREFACE + frame(_SETTINGS, 0, 0, b""), b""),
            "half a call": (OPENED, b""),
            "half a message": (OPENED + frame(_DATA, 0, 1, b"\x00\x00\x00\x03\x00abc"), b""),
        },
    }


async def hold_slow(
    port: int, name: str, sent: tuple[bytes, bytes], tally: Tally, *, answer_ends: bool, bound_s: float
) -> None:
    """Hold a slow connection until the service closes it or answers; longer than `bound_s` is a hang.

    Over HTTP/2 a service greets every connection, so an answer means nothing there.
    """
    began = time.perf_counter()
    fault = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        trickle = asyncio.create_task(_trickle(writer, *sent))
        try:
            async with asyncio.timeout(bound_s):
                answered = bool(await reader.read(1 << 16))
                if answered and not answer_ends:
                    await _drain(reader)
                end = "answered" if answered else "closed"
        except TimeoutError:
            end, fault = "hang", f"still open after {bound_s:g} s"
        finally:
            trickle.cancel()
            writer.transport.abort()
    except OSError:
        end = "reset"
    tally.add(name, end, time.perf_counter() - began, fault=fault)


async def _trickle(writer: asyncio.StreamWriter, at_once: bytes, by_the_byte: bytes) -> None:
    writer.write(at_once)
    for value in by_the_byte:
        await asyncio.sleep(_TRICKLE_S)
        writer.write(bytes((value,)))
        with contextlib.suppress(OSError):
            await writer.drain()
