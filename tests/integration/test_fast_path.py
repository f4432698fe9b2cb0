"""Callers that disconnect, through HAProxy and uvicorn, which Serve's fast path puts before the generator.

The service runs in processes of its own: Ray reads the flags of serve_apps/tuned.env when it is imported.
"""

import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from hyperfleet.messages import FEATURE_BYTES
from hyperfleet.nn import HeadGeneratorConfig
from hyperfleet.tasks import OPEN_ENDED_QA

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PATH = f"/v1/generate/{OPEN_ENDED_QA}"
ACCEPT = "application/x-safetensors; codec=fp32"
# Heads of 1,501 answers: those of a crowd, one batch per caller, take some tenths of a second.
HEADS_EACH, CROWD = 32, 7
REPEATS = 3


@pytest.fixture(scope="module")
def folder():
    # It holds a socket of HAProxy, whose path must be shorter than tmp_path.
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture(scope="module")
def server(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        from clients.untrained_service import write_bundle
        from peers.running_server import RunningServer, fast_path, free_port, own_environment

        write_bundle(folder / "bundle", HeadGeneratorConfig())
        told = {
            **fast_path(folder),
            "PEER_BUNDLE": str(folder / "bundle"),
            "PEER_MAX_BATCH": str(HEADS_EACH),
            "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}",
        }
        command = [sys.executable, str(ROOT / "benchmarks" / "peers" / "hyperfleet_app.py")]
        running = RunningServer(command, own_environment(told), free_port(), folder / "log")
    try:
        running.ask(PATH, bytes(FEATURE_BYTES), ACCEPT)
        running.wait_until_idle()
        yield running
    finally:
        running.stop()


def crowd(port: int) -> list[socket.socket]:
    """Request many heads over many connections and read nothing."""
    body = np.random.default_rng(0).standard_normal((HEADS_EACH, 192), dtype=np.float32).tobytes()
    request = (
        f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n"
        f"accept: {ACCEPT}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body
    sockets = []
    for _ in range(CROWD):
        sockets.append(socket.create_connection(("127.0.0.1", port)))
        sockets[-1].sendall(request)
    return sockets


def time_behind(server, *, crowd_leaves: bool) -> float:
    """Return the seconds that a caller behind the crowd waits."""
    before = crowd(server.port)
    if crowd_leaves:
        for each in before:
            each.close()
    started = time.perf_counter()
    server.ask(PATH, bytes(FEATURE_BYTES), ACCEPT)
    taken_s = time.perf_counter() - started
    for each in before:
        each.close()
    server.wait_until_idle()
    return taken_s


def test_no_heads_are_generated_for_a_crowd_that_left(server) -> None:
    stayed, left = [], []
    for _ in range(REPEATS):
        stayed.append(time_behind(server, crowd_leaves=False))
        left.append(time_behind(server, crowd_leaves=True))
    assert statistics.median(left) < 0.6 * statistics.median(stayed), (stayed, left)
