"""The real generator service behind a real gRPC server on the running event loop."""

import contextlib
import subprocess

import grpc
import numpy as np
import pytest

from hyperfleet.wire import generator_pb2 as wire
from serve_apps.batching import Chunk, GeneratedChunk, generate_batch
from serve_apps.grpc_api import GrpcOptions, start_grpc
from serve_apps.head_service import HeadService
from tests.worlds.small_bundles import MAX_FEATURES

TASK = "open-ended-qa"
TOKEN = "0123456789abcdef-secret"


async def alone(chunk: Chunk) -> GeneratedChunk:
    return generate_batch([chunk])[0]


@contextlib.asynccontextmanager
async def serving(table, *, options=None, batched=alone, max_waiting_heads=64, **guards):
    """Yield the port of a server on this event loop."""
    service = HeadService(
        table, batched, max_features=MAX_FEATURES, max_waiting_heads=max_waiting_heads, **guards
    )
    running = await start_grpc(service, options or GrpcOptions())
    try:
        yield running.port
    finally:
        await running.stop(0.0)


def self_signed(folder):
    """Make a certificate of this machine and return its path and that of its key."""
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem"
    )
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names], cwd=folder, check=True, capture_output=True, timeout=60)
    return folder / "cert.pem", folder / "key.pem"


def features(num=1, seed=0):
    return np.random.default_rng(seed).standard_normal((num, 192), dtype=np.float32)


def wanted(num=1, **fields):
    return wire.GenerateHeadsRequest(**{"task": TASK, "features": features(num).tobytes(), **fields})


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value
