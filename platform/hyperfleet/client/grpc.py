"""Asynchronous client over gRPC."""

import asyncio
import math
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError

from hyperfleet.client.reply import Answer, ReceivedHead, read_refusal, read_reply, receive
from hyperfleet.client.retry import Circuit
from hyperfleet.client.settings import ClientSettings, authorization
from hyperfleet.errors import ConfigError, ServiceError
from hyperfleet.messages import HeadRequest
from hyperfleet.wire.framing import read_heads
from hyperfleet.wire.generator_pb2 import DESCRIPTOR, GenerateHeadsRequest

_METHOD = f"/{DESCRIPTOR.services_by_name['ParameterGenerator'].full_name}/GenerateHeads"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_RETRY_AFTER_S = "retry-after-s"
# UNAVAILABLE: the replica or the connection is gone, and a retry reaches another replica. DEADLINE_EXCEEDED:
# the time of that try was over, but the deadline may leave some for another.
_RETRIED_STATUS = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

_OPTIONS = (
    # One connection per channel; by default all channels share one, and so one replica.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    # `RetryPolicy` counts the tries and sets the pauses.
    ("grpc.enable_retries", 0),
    # After a refused connection gRPC fails all calls for so long, by default up to 2 min.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Without pings a silently dead connection would swallow every try until the kernel drops it.
    ("grpc.keepalive_time_ms", 10_000),
    # The HTTP client uses none either.
    ("grpc.enable_http_proxy", 0),
)


@dataclass(kw_only=True)
class GrpcSettings(ClientSettings):
    """Settings of a gRPC client; `url` is "http://host:port", or "https://host:port" for TLS.

    Beyond `max_connections`, requests share connections.

    Attributes:
        root_certificates: PEM certificates to check the service's certificate with; None for those of gRPC.

    Raises:
        ConfigError: a value that cannot work; an unknown codec is an UnknownNameError.
    """

    root_certificates: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = urlsplit(self.url)
        if parts.path:
            raise ConfigError(f"the url of a gRPC service has no path, got {self.url!r}")
        if self.root_certificates is not None and parts.scheme != "https":
            raise ConfigError(f"root_certificates are for https://, got {self.url!r}")

    def open_channel(self) -> Any:
        """Return a new channel, which connects at its first use."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        target = f"{f'[{host}]' if ':' in host else host}:{parts.port or _DEFAULT_PORTS[parts.scheme]}"
        if parts.scheme == "http":
            return grpc.aio.insecure_channel(target, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(self.root_certificates)
        return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)


@dataclass(kw_only=True, slots=True)
class _Connection:
    channel: Any
    generate_heads: Any
    num_waiting: int = 0


@dataclass(kw_only=True)
class AsyncGrpcClient(GrpcSettings):
    """Client of the generator service over gRPC; use it in `async with`."""

    _connections: list[_Connection] | None = field(default=None, init=False, repr=False)
    _circuit: Circuit = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._circuit = Circuit(retry=self.retry)
        self._metadata = tuple((key.lower(), value) for key, value in authorization(self.token).items())

    async def __aenter__(self) -> "AsyncGrpcClient":
        self._connections = []
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connections, self._connections = self._connections, None
        for connection in connections or ():
            await connection.channel.close()

    async def request(self, request: HeadRequest) -> ReceivedHead:
        """Request the head of each feature; see `GeneratorClient`."""
        message: bytes = GenerateHeadsRequest(
            task=self.task, model=self.model or "", features=request.to_bytes(), codec=self.codec
        ).SerializeToString()

        async def send(left_s: float) -> Answer:
            return await self._send(message, len(request.features), left_s)

        return await receive(send, self._circuit, self.sleep, uplink_bytes=len(message))

    async def _send(self, message: bytes, num_heads: int, left_s: float) -> Answer:
        content = await self._call(message, left_s)
        try:
            heads, fields = read_heads(content)
        except DecodeError as error:
            raise ServiceError(
                f"the reply of {self.url} was damaged on its way: {len(content)} bytes that are no "
                f"GenerateHeadsResponse ({error})",
                transient=True,
            ) from error
        return Answer(
            reply=read_reply(heads, fields.checksum, num_heads, self),
            num_bytes=len(content),
            generate_s=fields.generate_s,
            encode_s=fields.encode_s,
        )

    async def _call(self, message: bytes, left_s: float) -> bytes:
        connection = self._least_busy()
        connection.num_waiting += 1
        try:
            content: bytes = await connection.generate_heads(message, timeout=left_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            refused = self._refusal(error)
        except asyncio.CancelledError:
            # A closing channel cancels its calls; so does cancelling this task, which is passed on.
            task = asyncio.current_task()
            if self._connections is not None or (task is not None and task.cancelling()):
                raise
            refused = ServiceError(f"the client was closed while it waited for {self.url}")
        else:
            return content
        finally:
            connection.num_waiting -= 1
        # Not chained to the gRPC error, whose text holds all that the server sent, perhaps the token.
        raise refused

    def _least_busy(self) -> _Connection:
        if self._connections is None:
            raise ServiceError("the client is closed; use it inside `async with AsyncGrpcClient(...)`")
        best = min(self._connections, key=lambda each: each.num_waiting, default=None)
        if best is None or (best.num_waiting and len(self._connections) < self.max_connections):
            channel = self.open_channel()
            # Bytes, since gRPC logs the error of a deserializer and returns None.
            best = _Connection(channel=channel, generate_heads=channel.unary_unary(_METHOD))
            self._connections.append(best)
        return best

    def _refusal(self, error: Any) -> ServiceError:
        reason = read_refusal((error.details() or "").encode(), "", self.token)
        trailers = dict(error.trailing_metadata() or ())
        after_s = _read_retry_after(trailers.get(_RETRY_AFTER_S))
        # RESOURCE_EXHAUSTED without a time to return at means that the message is too large.
        overloaded = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and after_s is not None
        transient = error.code() in _RETRIED_STATUS or overloaded
        return ServiceError(
            f"{self.url} answered gRPC {error.code().name}: {reason}",
            retry_after_s=(after_s or 0.0) if transient else 0.0,
            transient=transient,
        )


def _read_retry_after(value: str | None) -> float | None:
    """Return seconds; None if the value is absent or nonsense."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None
