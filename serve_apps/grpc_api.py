"""gRPC interface of the generator (generator.proto), with health and reflection.

Nothing here knows Ray: `start_grpc` makes the same server for a Serve replica and for a test.
"""

import logging
import math
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import xxhash
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hyperfleet.errors import (
    ComeAgainError,
    ConfigError,
    DeadlineError,
    FeatureError,
    HyperFleetError,
    NotAcceptableError,
    ServiceError,
    TooManyFeaturesError,
    UnauthenticatedError,
    UnknownNameError,
)
from hyperfleet.head_codecs import DEFAULT_CODEC
from hyperfleet.messages import FEATURE_BYTES
from hyperfleet.wire import generator_pb2 as wire
from hyperfleet.wire.framing import write_heads
from serve_apps.head_service import EncodedHeads, HeadService
from serve_apps.http_edge import REQUEST_ID_HEADER
from serve_apps.http_edge import request_id as read_request_id

SERVICE: str = wire.DESCRIPTOR.services_by_name["ParameterGenerator"].full_name
REQUEST_ID = REQUEST_ID_HEADER.lower()
RETRY_AFTER_S = "retry-after-s"
MAX_CONCURRENT_CALLS = 1024
MAX_STREAMS_PER_CONNECTION = 128
# Room for a request's names and protobuf's overhead beside its features.
_SLACK_BYTES = 4096
# Details are sent in the trailers, of which clients accept 8 KiB, with up to three bytes per character.
_DETAILS_CHARACTERS = 1000

_STATUS: dict[type[HyperFleetError], grpc.StatusCode] = {
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    UnknownNameError: grpc.StatusCode.NOT_FOUND,
    NotAcceptableError: grpc.StatusCode.FAILED_PRECONDITION,
    TooManyFeaturesError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    FeatureError: grpc.StatusCode.INVALID_ARGUMENT,
    ComeAgainError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class GrpcOptions:
    """Address and certificate of the gRPC server.

    Attributes:
        host: address to listen on.
        port: TCP port, which several servers of one machine may share; 0 for a free port of its own.
        tls_certificate: PEM file with the certificate chain; None for no TLS.
        tls_key: PEM file with the private key, without a password.

    Raises:
        ConfigError: an invalid port, or a certificate or key that is alone, unreadable or mismatched.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"the gRPC port must be 0 to 65535, got {self.port}")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError(
                f"TLS needs both a certificate and its key, got certificate {self.tls_certificate} and key "
                f"{self.tls_key}; give both or none"
            )
        self._check_certificate()

    @property
    def address(self) -> str:
        """Host and port in the notation of gRPC."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def credentials(self) -> Any:
        """Read the certificate and return the server's credentials; None without TLS."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return grpc.ssl_server_credentials([(self.tls_key.read_bytes(), self.tls_certificate.read_bytes())])

    def _check_certificate(self) -> None:
        # gRPC would only log the fault and refuse every handshake.
        if self.tls_certificate is None or self.tls_key is None:
            return
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.tls_certificate, self.tls_key, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"certificate {self.tls_certificate} with key {self.tls_key} cannot be used: {error}; "
                "give a PEM certificate chain and its PEM key without a password"
            ) from error


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RunningGrpc:
    """Running gRPC server, which listens on `port`."""

    port: int
    _server: Any
    _health: Any

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests and give running ones `grace_s` seconds."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


async def start_grpc(service: HeadService, options: GrpcOptions) -> RunningGrpc:
    """Serve `service` on the running event loop.

    Raises:
        ServiceError: the port cannot be listened on.
    """
    server = grpc.aio.server(
        options=_channel_options(service, options), maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS
    )
    calls = _Calls(service)
    methods = {
        "GenerateHeads": calls.method(wire.GenerateHeadsRequest, calls.generate_heads),
        "ListModels": calls.method(wire.ListModelsRequest, calls.list_models),
        "GetBase": calls.method(wire.GetBaseRequest, calls.get_base),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    healthy = health.aio.HealthServicer()
    await healthy.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    credentials = options.credentials()
    try:
        if credentials is None:
            port = server.add_insecure_port(options.address)
        else:
            port = server.add_secure_port(options.address, credentials)
    except RuntimeError as error:
        raise ServiceError(
            f"the generator cannot listen for gRPC on {options.address}: {error}; stop what listens there or "
            "choose another port"
        ) from error
    await server.start()
    return RunningGrpc(port=port, _server=server, _health=healthy)


def _channel_options(service: HeadService, options: GrpcOptions) -> list[tuple[str, int]]:
    # Larger frames, windows and write buffers, and a threaded server before the event loop, did not change
    # the CPU time of a reply of 569 KiB by more than the noise.
    return [
        ("grpc.so_reuseport", int(options.port != 0)),
        ("grpc.max_receive_message_length", service.max_features * FEATURE_BYTES + _SLACK_BYTES),
        ("grpc.max_send_message_length", -1),
        # Replicas that share a port get connections, not requests. Connections must end now and then, or a
        # replica that starts later serves no device that is already connected.
        ("grpc.max_connection_age_ms", 600_000),
        ("grpc.max_connection_age_grace_ms", 30_000),
        # Bounds the replies that the server holds for a client that does not read.
        ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
        # Ends connections of devices that are out of reach.
        ("grpc.keepalive_time_ms", 60_000),
        # Waiting clients ping the connection every 10 s; by default gRPC treats more than one ping in 5 min
        # without data as an attack.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]


# From a request, the client's name and gRPC's context to a message.
_Answer = Callable[[Any, str, Any], Awaitable[bytes]]


class _Calls:
    """The calls, and the handling that they share."""

    def __init__(self, service: HeadService) -> None:
        self._service = service

    def method(self, request_type: Any, answer: _Answer) -> Any:
        async def behaviour(messages: AsyncIterator[bytes], context: Any) -> bytes:
            # Same bytes as a unary call, but a call without a message gets a status at once: gRPC's unary
            # handler would leave it without one until the caller's deadline.
            async for message in messages:
                return await self._handle(message, context, request_type, answer)
            said = "the call ended without a message; send one"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, said)
            raise AssertionError  # not reached: `abort` raises

        # No deserializer: if one fails, gRPC answers UNKNOWN and logs a trace.
        return grpc.stream_unary_rpc_method_handler(behaviour)

    async def _handle(self, message: bytes, context: Any, request_type: Any, answer: _Answer) -> bytes:
        metadata = dict(context.invocation_metadata())
        request_id = read_request_id(metadata.get(REQUEST_ID))
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        try:
            client = self._service.authenticate(metadata.get("authorization"))
            return await answer(_read(message, request_type), client, context)
        except Exception as error:
            self._service.meter.refused(type(error).__name__)
            status, details = _outcome(error)
            if status is grpc.StatusCode.INTERNAL:
                _log.exception("request %s over gRPC failed", request_id)
            trailers = ((REQUEST_ID, request_id), *_retry_after(error))
            await context.abort(status, details[:_DETAILS_CHARACTERS], trailers)
            raise  # not reached: `abort` raises

    async def generate_heads(self, request: wire.GenerateHeadsRequest, client: str, context: Any) -> bytes:
        served = self._service.table.of_task(request.task, request.model or None)
        codec = request.codec or DEFAULT_CODEC
        if codec not in served.generator.codecs:
            raise NotAcceptableError(
                f"heads of {served.info.name!r} come in {', '.join(served.generator.codecs)}, not in codec "
                f"{codec[:100]!r}; ask for one of these"
            )
        left_s = context.time_remaining()
        heads = await self._service.generate(
            served,
            request.features,
            codec=codec,
            client=client,
            deadline_s=time.monotonic() + left_s if left_s is not None else None,
        )
        return _write(heads)

    async def list_models(self, request: wire.ListModelsRequest, client: str, context: Any) -> bytes:
        infos = [wire.ModelInfo(**info.model_dump()) for info in self._service.table.infos()]
        reply: bytes = wire.ListModelsResponse(models=infos).SerializeToString()
        return reply

    async def get_base(self, request: wire.GetBaseRequest, client: str, context: Any) -> bytes:
        served = self._service.table.named(request.model)
        base = served.base_file()
        reply: bytes = wire.GetBaseResponse(
            base=base,
            base_id=served.info.base_id,
            model_version=served.info.version,
            checksum=xxhash.xxh3_64_hexdigest(base),
        ).SerializeToString()
        return reply


def _read(message: bytes, request_type: Any) -> Any:
    try:
        return request_type.FromString(message)
    except DecodeError as error:
        raise FeatureError(
            f"{len(message)} bytes are not a {request_type.DESCRIPTOR.full_name}: {error}; generate the "
            "client from the generator.proto of this version"
        ) from error


def _write(heads: EncodedHeads) -> bytes:
    info = heads.served.info
    fields = wire.GenerateHeadsResponse(
        model=info.name,
        model_version=info.version,
        task=info.task,
        codec=heads.codec,
        base_id=info.base_id,
        checksum=heads.checksum,
        queue_s=heads.queue_s,
        generate_s=heads.generate_s,
        encode_s=heads.encode_s,
    )
    return write_heads(heads.body, fields)


def _outcome(error: Exception) -> tuple[grpc.StatusCode, str]:
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), None)
    if status is None:
        # Clients learn no internals.
        return grpc.StatusCode.INTERNAL, "the generator failed; see the log of its replica"
    return status, str(error)


def _retry_after(error: Exception) -> Sequence[tuple[str, str]]:
    if not isinstance(error, ComeAgainError):
        return ()
    # Milliseconds, at least one: the request was refused "now".
    return ((RETRY_AFTER_S, f"{max(1, math.ceil(1e3 * error.retry_after_s)) / 1e3:.3f}"),)
