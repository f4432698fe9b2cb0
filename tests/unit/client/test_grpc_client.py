import asyncio
from functools import partial

import grpc
import numpy as np
import pytest
import torch

from hyperfleet.client import AsyncGrpcClient, GeneratorClient, GrpcClient, RetryPolicy
from hyperfleet.errors import ConfigError, HeadLayoutError, ServiceError
from hyperfleet.head_codecs import CODECS
from hyperfleet.messages import HeadRequest
from serve_apps.access import BearerTokens, RateLimit
from tests.worlds.grpc_cloud import GrpcCloud, good_reply, hang, of_served, status
from tests.worlds.grpc_service import TOKEN, serving
from tests.worlds.http_cloud import BASE, LAYOUT, feature, generate

Code = grpc.StatusCode


def ask(cloud, num_requests=1, **settings):
    """Send requests one after the other; return the heads and the pauses between tries."""
    pauses_s = []

    async def no_sleep(seconds: float) -> None:
        pauses_s.append(seconds)

    async def run(url):
        async with AsyncGrpcClient(**{"url": url, "layout": LAYOUT, "sleep": no_sleep, **settings}) as client:
            return [await client.request(feature(i)) for i in range(num_requests)]

    with cloud.running() as url:
        return asyncio.run(run(url)), pauses_s


def test_heads_of_the_real_service_are_those_generated_in_every_codec(table):
    served = table.named("qa")
    anchors = HeadRequest(features=np.random.default_rng(0).normal(size=(3, 192)).astype(np.float32))

    async def run():
        async with serving(table) as port:
            for codec in served.generator.codecs:
                async with of_served(table, port, codec=codec) as client:
                    received = await client.request(anchors)
                generated = served.generator.generate(anchors.features)
                error = torch.linalg.vector_norm(received.reply.heads.dense() - generated.full(), dim=1)
                assert (error <= CODECS[codec].error_bound(generated) + 1e-6).all(), codec
                assert (received.reply.label.model, received.reply.codec) == ("qa", codec)
                assert received.num_tries == 1
                assert 0 < received.generate_s < received.round_trip_s
                assert 0 < received.encode_s < received.round_trip_s
                assert received.downlink_bytes > 3 * CODECS[codec].num_bytes(served.generator.layout)

    asyncio.run(run())


# Its own pauses are microseconds; those of the server are at least milliseconds.
AT_ONCE = RetryPolicy(backoff_s=1e-6)


def test_tokens_models_and_rates_of_the_service_are_enforced(table, monkeypatch):
    monkeypatch.setenv("TOKENS", f"phone {TOKEN}")

    async def run():
        guards = {"tokens": BearerTokens.from_env("TOKENS"), "rate": RateLimit(1)}
        async with serving(table, **guards) as port:
            async with of_served(table, port) as client:
                with pytest.raises(ServiceError, match=r"UNAUTHENTICATED.*Bearer <token>"):
                    await client.request(feature())
            async with of_served(table, port, token=TOKEN, model="chess") as client:
                with pytest.raises(ServiceError, match=r"NOT_FOUND.*no model 'chess'"):
                    await client.request(feature())
            pauses_s = []

            async def sleep(seconds: float) -> None:
                pauses_s.append(seconds)
                await asyncio.sleep(seconds)

            async with of_served(table, port, token=TOKEN, sleep=sleep, retry=AT_ONCE) as client:
                # On a slow machine the first requests may be a second apart.
                for i in range(20):
                    if (await client.request(feature(i))).num_tries == 2:
                        break
                # It waited as long as the server asked, longer than the policy's own pause, and got a head.
                assert [seconds for seconds in pauses_s if 0.002 <= seconds <= 2.1] == pauses_s
                assert len(pauses_s) == 1

    asyncio.run(run())


def test_a_request_carries_all_settings_and_a_reply_is_measured():
    cloud = GrpcCloud()
    retry = RetryPolicy(try_timeout_s=7.0)
    (head,), _ = ask(cloud, model="m", task="t", codec="delta-fp16", base=BASE, token=TOKEN, retry=retry)
    (seen,) = cloud.seen
    assert (seen.request.model, seen.request.task, seen.request.codec) == ("m", "t", "delta-fp16")
    assert seen.request.features == feature().to_bytes()
    assert seen.metadata["authorization"] == f"Bearer {TOKEN}"
    assert 5 < seen.left_s <= 7.1  # gRPC counts a deadline in coarse steps
    assert (head.uplink_bytes, head.generate_s, head.encode_s) == (seen.num_bytes, 0.0025, 0.0005)
    assert head.reply.label.version == "7"
    expected = generate(feature().features).full()
    torch.testing.assert_close(head.reply.heads.dense(), expected, rtol=0, atol=1e-2)
    assert isinstance(AsyncGrpcClient(url="http://a:1", layout=LAYOUT), GeneratorClient)


@pytest.mark.parametrize(
    ("step", "least_pause_s"),
    [
        (status(Code.UNAVAILABLE), 0),
        (status(Code.DEADLINE_EXCEEDED), 0),
        (status(Code.RESOURCE_EXHAUSTED, retry_after_s="2.5"), 2.5),
        (status(Code.UNAVAILABLE, retry_after_s="soon"), 0),
        (partial(good_reply, checksum="0" * 16), 0),
        (lambda request, context: b"\x0a\xff", 0),
        (lambda request, context: b"", 0),
    ],
)
def test_transient_failures_are_retried(step, least_pause_s):
    cloud = GrpcCloud(script=[step])
    (head, other), pauses_s = ask(cloud, 2, retry=RetryPolicy(backoff_s=0.001))
    assert (head.num_tries, other.num_tries) == (2, 1)
    assert least_pause_s <= pauses_s[0] < least_pause_s + 0.1
    assert len({seen.peer for seen in cloud.seen}) == 1


@pytest.mark.parametrize(
    "step",
    [
        status(Code.INVALID_ARGUMENT),
        status(Code.NOT_FOUND),
        status(Code.FAILED_PRECONDITION),
        status(Code.UNAUTHENTICATED),
        status(Code.PERMISSION_DENIED),
        status(Code.INTERNAL),
        status(Code.UNIMPLEMENTED),
        status(Code.RESOURCE_EXHAUSTED),
        status(Code.RESOURCE_EXHAUSTED, retry_after_s="nan"),
        status(Code.INTERNAL, retry_after_s="1"),
    ],
)
def test_permanent_failures_are_not_retried(step):
    cloud = GrpcCloud(always=step)
    with pytest.raises(ServiceError, match=r"answered gRPC [A-Z_]+: the reason"):
        ask(cloud)
    assert len(cloud.seen) == 1


def test_the_deadline_ends_all_tries():
    cloud = GrpcCloud(always=hang)
    retry = RetryPolicy(max_tries=100, try_timeout_s=0.1, deadline_s=0.35, backoff_s=0.001)
    with pytest.raises(ServiceError, match=r"no head after \d tries: .*DEADLINE_EXCEEDED"):
        ask(cloud, retry=retry)
    assert 1 <= len(cloud.seen) <= 6
    # gRPC rounds up the time that it sends.
    assert all(seen.left_s <= 0.12 for seen in cloud.seen)
    hangs = GrpcCloud(script=[hang], always=good_reply)
    (head,), _ = ask(hangs, retry=RetryPolicy(try_timeout_s=0.2, backoff_s=0.001))
    assert head.num_tries >= 2


def test_the_circuit_opens_for_a_cloud_that_hangs():
    cloud = GrpcCloud(always=hang)
    retry = RetryPolicy(max_tries=1, try_timeout_s=0.05, deadline_s=60.0, max_hangs=2)

    async def run(url):
        async with AsyncGrpcClient(url=url, layout=LAYOUT, retry=retry) as client:
            errors = [
                (await asyncio.gather(client.request(feature()), return_exceptions=True))[0] for _ in range(4)
            ]
        return [str(error) for error in errors]

    with cloud.running() as url:
        errors = asyncio.run(run(url))
    assert ["not asked" in error for error in errors] == [False, False, True, True]
    assert len(cloud.seen) == 2


def test_heads_for_another_device_or_in_another_codec_are_refused():
    def fp16(request, context):
        request.codec = "fp16"
        return good_reply(request, context)

    with pytest.raises(HeadLayoutError, match="codec 'fp32', got 'fp16'"):
        ask(GrpcCloud(always=fp16))


def test_a_token_that_a_proxy_echoes_is_not_repeated(caplog):
    cloud = GrpcCloud(always=status(Code.INTERNAL, f"you sent {TOKEN}" + 1000 * "!"))
    with pytest.raises(ServiceError) as error:
        ask(cloud, token=TOKEN)
    assert "you sent ***!" in str(error.value)
    assert len(str(error.value)) < 500
    assert error.value.__context__ is None
    assert TOKEN not in caplog.text + repr(AsyncGrpcClient(url="http://a:1", layout=LAYOUT, token=TOKEN))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "127.0.0.1:50051"}, "like http://127.0.0.1:8000"),
        ({"url": "http://127.0.0.1:50051/v1"}, "has no path"),
        ({"root_certificates": b"pem"}, "are for https://"),
        ({"codec": "delta-fp16"}, "static head"),
        ({"token": "a\nb"}, "visible ASCII"),
        ({"max_connections": 0}, "max_connections"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(fields, said):
    for kind in (AsyncGrpcClient, GrpcClient):
        with pytest.raises(ConfigError, match=said):
            kind(**{"url": "http://127.0.0.1:50051", "layout": LAYOUT, **fields})
