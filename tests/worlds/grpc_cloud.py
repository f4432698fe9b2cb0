"""A scripted generator service for gRPC client tests: a real server with threads."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import xxhash

from hyperfleet.client import AsyncGrpcClient
from hyperfleet.messages import HeadRequest, encode_heads
from hyperfleet.wire.generator_pb2 import GenerateHeadsRequest, GenerateHeadsResponse
from tests.worlds.http_cloud import LABEL, generate

Step = Callable[[GenerateHeadsRequest, Any], bytes]


def good_reply(request: GenerateHeadsRequest, context: Any, **other: str) -> bytes:
    heads = generate(HeadRequest.from_bytes(request.features).features)
    content = encode_heads(heads, codec=request.codec, label=LABEL)
    fields = {"heads": content, "checksum": xxhash.xxh3_64_hexdigest(content), **other}
    return GenerateHeadsResponse(generate_s=0.0025, encode_s=0.0005, **fields).SerializeToString()


def status(code: grpc.StatusCode, text: str = "the reason", **trailers: str) -> Step:
    def step(request: GenerateHeadsRequest, context: Any) -> bytes:
        names = tuple((name.replace("_", "-"), value) for name, value in trailers.items())
        context.set_trailing_metadata(names)
        context.abort(code, text)
        raise AssertionError

    return step


def hang(request: GenerateHeadsRequest, context: Any) -> bytes:
    while context.is_active():
        time.sleep(0.005)
    return b""


@dataclass(frozen=True, kw_only=True)
class Seen:
    request: GenerateHeadsRequest
    num_bytes: int
    metadata: dict[str, str]
    left_s: float
    peer: str


@dataclass
class GrpcCloud:
    """Answers as scripted, then as `always`, and keeps the requests."""

    script: list[Step] = field(default_factory=list)
    always: Step = good_reply
    seen: list[Seen] = field(default_factory=list)

    def handle(self, message: bytes, context: Any) -> bytes:
        request = GenerateHeadsRequest.FromString(message)
        self.seen.append(
            Seen(
                request=request,
                num_bytes=len(message),
                metadata=dict(context.invocation_metadata()),
                left_s=context.time_remaining(),
                peer=context.peer(),
            )
        )
        return (self.script.pop(0) if self.script else self.always)(request, context)

    @contextmanager
    def running(self, port: int = 0) -> Iterator[str]:
        """Serve from threads; yields the URL."""
        server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        method = grpc.unary_unary_rpc_method_handler(self.handle)
        service = "hyperfleet.v1.ParameterGenerator"
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"GenerateHeads": method}),)
        )
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def of_served(table, port, **settings) -> AsyncGrpcClient:
    """Return a client of the real service that serves `table`."""
    generator = table.named("qa").generator
    fields = {"url": f"http://127.0.0.1:{port}", "layout": generator.layout, **settings}
    return AsyncGrpcClient(base=generator.base, **fields)
