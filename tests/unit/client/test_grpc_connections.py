import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import torch

from hyperfleet.client import AsyncGrpcClient, GrpcClient, RetryPolicy
from hyperfleet.errors import ServiceError
from serve_apps.grpc_api import GrpcOptions
from tests.worlds.grpc_cloud import GrpcCloud, good_reply, hang, of_served, status
from tests.worlds.grpc_service import TOKEN, self_signed, serving
from tests.worlds.http_cloud import LAYOUT, feature, generate

Code = grpc.StatusCode


def test_it_finds_a_service_that_was_restarted():
    cloud = GrpcCloud()
    retry = RetryPolicy(max_tries=50, backoff_s=0.05)

    async def run(url, stack):
        async with AsyncGrpcClient(url=url, layout=LAYOUT, retry=retry) as client:
            await client.request(feature())
            stack.__exit__(None, None, None)
            async with AsyncGrpcClient(url=url, layout=LAYOUT, retry=RetryPolicy(max_tries=1)) as impatient:
                with pytest.raises(ServiceError, match="UNAVAILABLE"):
                    await impatient.request(feature())
            waiting = asyncio.ensure_future(client.request(feature()))
            await asyncio.sleep(0.3)
            with cloud.running(port=int(url.rpartition(":")[2])):
                assert (await waiting).num_tries > 1

    stack = cloud.running()
    asyncio.run(asyncio.wait_for(run(stack.__enter__(), stack), 60))


def test_concurrent_requests_use_own_connections_up_to_a_limit():
    gate = threading.Barrier(4, timeout=30)

    def together(request, context):
        gate.wait()
        return good_reply(request, context)

    async def run(url, cloud, max_connections):
        async with AsyncGrpcClient(url=url, layout=LAYOUT, max_connections=max_connections) as client:
            heads = await asyncio.gather(*[client.request(feature(i)) for i in range(4)])
            for i, head in enumerate(heads):
                assert torch.equal(head.reply.heads.dense(), generate(feature(i).features).full())

    for max_connections in (1, 3, 16):
        cloud = GrpcCloud(always=together)
        with cloud.running() as url:
            asyncio.run(run(url, cloud, max_connections))
        assert len({seen.peer for seen in cloud.seen}) == min(max_connections, 4)


def test_closing_ends_waiting_requests_and_cancelling_is_passed_on():
    async def run(url):
        client = AsyncGrpcClient(url=url, layout=LAYOUT)
        with pytest.raises(ServiceError, match="inside `async with"):
            await client.request(feature())
        async with client:
            gone = asyncio.ensure_future(client.request(feature()))
            waiting = asyncio.ensure_future(client.request(feature()))
            await asyncio.sleep(0.2)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
        with pytest.raises(ServiceError, match="was closed while it waited"):
            await waiting
        async with client:
            await client.request(feature())

    with GrpcCloud(script=[hang, hang]).running() as url:
        asyncio.run(asyncio.wait_for(run(url), 60))


def test_tls_is_checked_with_the_certificates_given(table, tmp_path):
    certificate, key = self_signed(tmp_path)
    options = GrpcOptions(host="127.0.0.1", tls_certificate=certificate, tls_key=key)

    async def run():
        async with serving(table, options=options) as port:
            url = f"https://127.0.0.1:{port}"
            async with of_served(table, port, url=url, root_certificates=certificate.read_bytes()) as client:
                assert (await client.request(feature())).reply.label.model == "qa"
            async with of_served(table, port, url=url, retry=RetryPolicy(max_tries=1)) as client:
                with pytest.raises(ServiceError, match="UNAVAILABLE"):
                    await client.request(feature())

    asyncio.run(asyncio.wait_for(run(), 60))


def test_several_threads_use_the_client_without_an_event_loop():
    cloud = GrpcCloud(script=[status(Code.UNAVAILABLE)])
    before = threading.active_count()
    with (
        cloud.running() as url,
        GrpcClient(url=url, layout=LAYOUT, token=TOKEN, retry=RetryPolicy(backoff_s=0.001)) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        heads = list(threads.map(lambda seed: client.request(feature(seed)), range(20)))
        assert threading.active_count() > before
    for seed, head in enumerate(heads):
        assert torch.equal(head.reply.heads.dense(), generate(feature(seed).features).full())
    assert sum(head.num_tries for head in heads) == 21
    assert {seen.metadata["authorization"] for seen in cloud.seen} == {f"Bearer {TOKEN}"}
    assert TOKEN not in repr(client)
    with pytest.raises(ServiceError, match="inside `with GrpcClient"):
        client.request(feature())


def test_sharing_one_service_a_client_without_an_event_loop_gets_the_same_heads(table):
    served = table.named("qa")

    async def run():
        async with serving(table) as port:
            client = GrpcClient(
                url=f"http://localhost:{port}", layout=served.generator.layout, retry=RetryPolicy(max_tries=1)
            )

            def ask_from_a_thread():
                with client:
                    return client.request(feature())

            return await asyncio.to_thread(ask_from_a_thread)

    received = asyncio.run(run())
    expected = served.generator.generate(feature().features).full()
    torch.testing.assert_close(received.reply.heads.dense(), expected, rtol=0, atol=1e-5)
    assert math.isfinite(received.queue_s)
