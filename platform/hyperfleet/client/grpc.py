"""How a program asks the cloud for heads over gRPC, with an event loop or without one."""

import asyncio
import math
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError

from hyperfleet.client.address import authorization
from hyperfleet.client.answer import Answer, read_reply, receive
from hyperfleet.client.in_thread import InThread
from hyperfleet.client.received import ReceivedHead
from hyperfleet.client.refusal import read_refusal
from hyperfleet.client.retry import Circuit, ask_again
from hyperfleet.client.settings import ClientSettings
from hyperfleet.errors import ConfigError, ServiceError
from hyperfleet.messages import HeadRequest
from hyperfleet.wire.framing import read_heads
from hyperfleet.wire.generator_pb2 import DESCRIPTOR, GenerateHeadsRequest

_METHOD = f"/{DESCRIPTOR.services_by_name['ParameterGenerator'].full_name}/GenerateHeads"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_RETRY_AFTER_S = "retry-after-s"
# The replica or the way to it is gone, and another try finds another one; or the time of the try was over,
# and there may be some left for another.
_RETRIED_STATUS = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

_OPTIONS = (
    # Each channel its own connection; gRPC would give all of them one, and so one replica of the service.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    # Tries are counted, and the pauses between them are those of the policy.
    ("grpc.enable_retries", 0),
    # After a refused connection gRPC fails all calls at once for as long as this, by default up to 2 min.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection that died in silence would otherwise swallow every try until the kernel gives it up.
    ("grpc.keepalive_time_ms", 10_000),
    # As the HTTP client.
    ("grpc.enable_http_proxy", 0),
)


@dataclass(kw_only=True)
class GrpcSettings(ClientSettings):
    """As for HTTP; `url` is "http://host:port", or "https://host:port" for TLS, with the port of gRPC.

    Beyond `max_connections` requests share connections.

    Attributes:
        root_certificates: PEM certificates that the service's own is checked with; None for those that gRPC
            comes with.

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
        """Return a new channel, which connects when it is first used."""
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
    """Asks the generator service over gRPC; use it in `async with`."""

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
        """Ask for the head of each feature; see `GeneratorClient`."""
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
            raise ask_again(
                f"the reply of {self.url} was damaged on its way: {len(content)} bytes that are no "
                f"GenerateHeadsResponse ({error})"
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
            # What a closing channel does to its calls, beside what cancelling this task does.
            task = asyncio.current_task()
            if self._connections is not None or (task is not None and task.cancelling()):
                raise
            refused = ServiceError(f"the client was closed while it waited for {self.url}")
        else:
            return content
        finally:
            connection.num_waiting -= 1
        # Not from the error itself, whose text holds all that the server sent, and so perhaps the token.
        raise refused

    def _least_busy(self) -> _Connection:
        if self._connections is None:
            raise ServiceError("the client is closed; use it inside `async with AsyncGrpcClient(...)`")
        best = min(self._connections, key=lambda each: each.num_waiting, default=None)
        if best is None or (best.num_waiting and len(self._connections) < self.max_connections):
            channel = self.open_channel()
            # Messages go as bytes: gRPC logs what a deserializer raises and returns None.
            best = _Connection(channel=channel, generate_heads=channel.unary_unary(_METHOD))
            self._connections.append(best)
        return best

    def _refusal(self, error: Any) -> ServiceError:
        reason = read_refusal((error.details() or "").encode(), "", self.token)
        message = f"{self.url} answered gRPC {error.code().name}: {reason}"
        trailers = dict(error.trailing_metadata() or ())
        after_s = _read_retry_after(trailers.get(_RETRY_AFTER_S))
        # Without a time to come back at, what is exhausted is the room for one message.
        welcome_again = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and after_s is not None
        if error.code() in _RETRIED_STATUS or welcome_again:
            return ask_again(message, after_s or 0.0)
        return ServiceError(message)


@dataclass(kw_only=True)
class GrpcClient(InThread, GrpcSettings):
    """Asks the generator service over gRPC; use it in `with`, from as many threads as wanted."""

    asynchronous = AsyncGrpcClient


def _read_retry_after(value: str | None) -> float | None:
    """Return seconds; nonsense counts as absent."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None
