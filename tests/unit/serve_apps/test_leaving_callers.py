"""HTTP callers that disconnect before they are answered."""

import asyncio
import socket
from collections import deque

import numpy as np
import pytest
import uvicorn
import uvloop

from serve_apps.batching import Batcher, generate_batch
from serve_apps.head_service import HeadService
from serve_apps.http_api import build_api

PATH = "/v1/generate/open-ended-qa"
BODY = np.random.default_rng(0).standard_normal((1, 192), dtype=np.float32).tobytes()


class Caller:
    """One request of a caller that stays until `leave` is called."""

    def __init__(self, api):
        self._leaves = asyncio.Event()
        self._body = deque([{"type": "http.request", "body": BODY}])
        self.sent = []
        self.asking = asyncio.create_task(self._ask(api))

    def leave(self):
        self._leaves.set()

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None

    async def _ask(self, api):
        scope = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "query_string": b"",
            "headers": [(b"content-type", b"application/octet-stream")],
        }

        async def send(message):
            self.sent.append(message)

        await api(scope, self._receive, send)

    async def _receive(self):
        if self._body:
            return self._body.popleft()
        await self._leaves.wait()
        return {"type": "http.disconnect"}


def after_a_crowd(table, then):
    """Let three callers wait and run `then` on them; return how many heads each batch had."""
    batches = []

    def generate(chunks):
        batches.append(len(chunks))
        return generate_batch(chunks)

    async def run():
        # No batch begins while callers keep coming within the pause.
        batcher = Batcher(generate, max_heads=8, pause_s=0.2)
        service = HeadService(table, batcher, max_features=2, max_waiting_heads=64, batch_heads=2)
        api = build_api(service, body_timeout_s=5.0)
        callers = []
        for _ in range(3):
            callers.append(Caller(api))
            await asyncio.sleep(0.01)
        await then(callers)
        assert service.num_waiting == 0

    asyncio.run(asyncio.wait_for(run(), 30))
    return batches


def test_nothing_is_generated_for_a_caller_that_leaves_a_crowd(table):
    async def last_one_leaves(callers):
        callers[-1].leave()
        await asyncio.gather(*(each.asking for each in callers))
        assert [each.status for each in callers] == [200, 200, 400]

    assert after_a_crowd(table, last_one_leaves) == [2]


def test_callers_that_stay_in_a_crowd_are_answered(table):
    async def all_stay(callers):
        await asyncio.gather(*(each.asking for each in callers))
        assert [each.status for each in callers] == [200, 200, 200]

    assert after_a_crowd(table, all_stay) == [3]


def test_nothing_is_generated_for_a_request_that_the_server_cancels(table):
    async def last_one_is_given_up(callers):
        callers[-1].asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await callers[-1].asking
        await asyncio.gather(*(each.asking for each in callers[:2]))
        assert [each.status for each in callers] == [200, 200, None]

    assert after_a_crowd(table, last_one_is_given_up) == [2]


def test_connections_that_end_during_a_batch_are_noticed_before_the_next_one(table):
    """Even when the next batch is full and there is no pause; with Serve's HTTP server and event loop."""
    request = (
        f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n"
        f"content-length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    listener = socket.create_server(("127.0.0.1", 0))
    callers = [socket.create_connection(listener.getsockname()) for _ in range(12)]
    for caller in callers:
        caller.sendall(request)
    batches_with, batches_without = [], []

    def generate(chunks):
        (batches_without if batches_with[-1:] >= [4] else batches_with).append(service.num_waiting)
        # All callers leave, a few of which wait for the next batch.
        if batches_with[-1] >= 4:
            for caller in callers:
                caller.close()
        return generate_batch(chunks)

    batcher = Batcher(generate, max_heads=1, pause_s=0.0)
    service = HeadService(table, batcher, max_features=1, max_waiting_heads=64, batch_heads=1)
    api = build_api(service, body_timeout_s=5.0)
    server = uvicorn.Server(uvicorn.Config(api, http="httptools", lifespan="off", log_level="critical"))

    async def run():
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not batches_with or service.num_waiting:
            await asyncio.sleep(0)
        server.should_exit = True
        await serving

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(run(), 30))
    assert batches_with[-1] >= 4
    # One request may be between its connection and its batch when the connection ends.
    assert len(batches_without) <= 1
