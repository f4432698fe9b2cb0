import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from hyperfleet.errors import ConfigError, HeadLayoutError, ServiceError
from hyperfleet.link.generator_client import HttpGeneratorClient, InProcessClient, RetryPolicy
from hyperfleet.messages import FEATURE_BYTES, HeadLayout, HeadReply, HeadRequest

LAYOUT = HeadLayout(num_classes=5)
TIMING = {"X-Model-Version": "7", "Server-Timing": "queue;dur=1.5, generate;dur=2.5"}


def feature(seed: int = 0) -> HeadRequest:
    return HeadRequest(features=np.random.default_rng(seed).normal(size=(1, 192)).astype(np.float32))


def generate(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    rng = np.random.default_rng(features.view(np.uint32).ravel())
    n = len(features)
    return rng.normal(size=(n, 5, 96)).astype("f4"), rng.normal(size=(n, 5)).astype("f4"), "7"


def head_reply(body: bytes) -> web.Response:
    weight, bias, version = generate(HeadRequest.from_bytes(body).features)
    return web.Response(
        body=HeadReply(weight=weight, bias=bias, model_version=version).to_bytes(), headers=TIMING
    )


@dataclass
class Cloud:
    """A real HTTP server that answers as scripted, then well, and keeps what it was sent."""

    script: list[Callable[[web.Request], web.StreamResponse]] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.method, request.raw_path, dict(request.headers), body))
        return self.script.pop(0)(request) if self.script else head_reply(body)


def ask(cloud: Cloud, num_requests: int = 1, **client_fields):
    """Send requests to `cloud` one after the other; return the heads and the pauses between tries."""
    pauses_s: list[float] = []

    async def no_sleep(seconds: float) -> None:
        pauses_s.append(seconds)

    async def run():
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", cloud.handle)
        async with TestServer(app) as server:
            url = str(server.make_url("")).rstrip("/")
            async with HttpGeneratorClient(url=url, layout=LAYOUT, sleep=no_sleep, **client_fields) as client:
                return [await client.request(feature(i)) for i in range(num_requests)]

    return asyncio.run(run()), pauses_s


def status(code: int, **headers: str) -> Callable[[web.Request], web.Response]:
    return lambda _: web.Response(status=code, text="the reason", headers=headers)


def hang_up(request: web.Request) -> web.Response:
    request.transport.close()
    return web.Response()


def test_what_leaves_the_device_is_768_bytes_of_feature_and_nothing_else():
    cloud = Cloud()
    heads, _ = ask(cloud, num_requests=3)
    for i, (head, (method, path, headers, body)) in enumerate(zip(heads, cloud.seen, strict=True)):
        assert (method, path) == ("POST", "/v1/generate/vqa")
        assert body == feature(i).to_bytes()
        assert len(body) == FEATURE_BYTES == head.uplink_bytes
        assert set(headers) == {
            "Host",
            "Content-Type",
            "Content-Length",
            "Accept",
            "Accept-Encoding",
            "User-Agent",
        }
        weight, bias, version = generate(feature(i).features)
        assert np.array_equal(head.reply.weight, weight)
        assert np.array_equal(head.reply.bias, bias)
        assert (head.reply.model_version, head.generate_s, head.num_tries) == (version, 0.0025, 1)
        assert head.downlink_bytes > LAYOUT.num_bytes
        assert 0 <= head.queue_s < head.round_trip_s


def test_it_asks_again_where_that_can_help_and_waits_as_long_as_the_server_wants():
    cloud = Cloud(script=[status(429, **{"Retry-After": "7"}), hang_up, status(503)])
    (head,), pauses_s = ask(cloud, retry=RetryPolicy(backoff_s=0.01))
    assert head.num_tries == 4
    assert [body for *_, body in cloud.seen] == [feature().to_bytes()] * 4
    assert pauses_s[0] == 7
    assert all(0 <= pause_s < 1 for pause_s in pauses_s[1:])


@pytest.mark.parametrize("code", [400, 404, 413, 415, 422])
def test_a_refused_request_is_not_sent_twice(code):
    cloud = Cloud(script=[status(code)])
    with pytest.raises(ServiceError, match=f"HTTP {code}: the reason"):
        ask(cloud)
    assert len(cloud.seen) == 1


def test_it_gives_up_after_the_last_try_or_when_the_next_would_be_too_late():
    cloud = Cloud(script=[status(503)] * 9)
    with pytest.raises(ServiceError, match="no head after 3 tries: the generator answered HTTP 503"):
        ask(cloud, retry=RetryPolicy(max_tries=3))
    assert len(cloud.seen) == 3
    cloud = Cloud(script=[status(429, **{"Retry-After": "3600"})] * 9)
    with pytest.raises(ServiceError, match="no head after 1 tries"):
        ask(cloud, retry=RetryPolicy(deadline_s=5.0))


def test_a_cloud_that_hangs_costs_a_few_timeouts_and_not_one_a_request():
    tried: list[int] = []

    async def hang(request: web.Request) -> web.Response:
        tried.append(1)
        await asyncio.sleep(60)
        return web.Response()

    async def run() -> list[str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", hang)
        retry = RetryPolicy(max_tries=1, try_timeout_s=0.05, deadline_s=30.0, max_hangs=3)
        async with TestServer(app) as server:
            url = str(server.make_url("")).rstrip("/")
            async with HttpGeneratorClient(url=url, layout=LAYOUT, retry=retry) as client:
                told = []
                for _ in range(50):
                    with pytest.raises(ServiceError) as error:
                        await client.request(feature())
                    told.append(str(error.value))
                return told

    told = asyncio.run(run())
    assert len(tried) == 3
    assert "TimeoutError" in told[2]
    assert all("not asked: the last 3 requests waited" in text for text in told[3:])


def test_quick_refusals_do_not_stop_a_client_from_asking():
    cloud = Cloud(script=[status(503)] * 5)

    async def run() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", cloud.handle)
        async with TestServer(app) as server:
            url = str(server.make_url("")).rstrip("/")
            retry = RetryPolicy(max_tries=1, max_hangs=1)
            async with HttpGeneratorClient(url=url, layout=LAYOUT, retry=retry) as client:
                for _ in range(5):
                    with pytest.raises(ServiceError, match="503"):
                        await client.request(feature())
                await client.request(feature())

    asyncio.run(run())
    assert len(cloud.seen) == 6


def test_nobody_listening_is_a_service_error():
    async def run():
        async with HttpGeneratorClient(
            url="http://127.0.0.1:9", layout=LAYOUT, retry=RetryPolicy(max_tries=1)
        ) as client:
            await client.request(feature())

    with pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        asyncio.run(run())


def test_a_reply_that_is_no_head_of_this_device_is_refused():
    other = HeadReply(
        weight=np.zeros((1, 6, 96), "f4"), bias=np.zeros((1, 6), "f4"), model_version="7"
    ).to_bytes()
    for body in (other, b"<html>"):
        with pytest.raises(HeadLayoutError):
            ask(Cloud(script=[lambda _, body=body: web.Response(body=body, headers=TIMING)]))
    with pytest.raises(ServiceError, match="lacks X-Model-Version or Server-Timing"):
        ask(Cloud(script=[lambda _: web.Response(body=other)]))


def test_the_in_process_client_sends_the_same_messages():
    async def run():
        return await InProcessClient(generate).request(feature())

    head = asyncio.run(run())
    (over_http,), _ = ask(Cloud())
    assert np.array_equal(head.reply.weight, over_http.reply.weight)
    assert (head.uplink_bytes, head.downlink_bytes) == (over_http.uplink_bytes, over_http.downlink_bytes)
    assert 0 <= head.queue_s <= head.round_trip_s


def test_a_retry_policy_that_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="max_tries must be >= 1, got 0"):
        RetryPolicy(max_tries=0)
    with pytest.raises(ConfigError, match="deadline_s must be > 0"):
        RetryPolicy(deadline_s=0.0)
