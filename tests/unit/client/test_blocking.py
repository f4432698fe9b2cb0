import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import torch
from aiohttp import web

from hyperfleet.client import HttpClient, RetryPolicy
from hyperfleet.errors import ConfigError, ServiceError
from tests.worlds.http_cloud import BASE, LAYOUT, Cloud, feature, generate, good_reply, status

THREADS = 4


@dataclass
class Gate:
    """Holds back the first replies until there are as many requests as threads."""

    num_waiting: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request, body: bytes) -> web.Response:
        self.num_waiting += 1
        if self.num_waiting == THREADS:
            self.opened.set()
        await asyncio.wait_for(self.opened.wait(), 60)
        return good_reply(request, body)


def test_several_threads_ask_at_once_and_each_gets_its_own_head():
    with (
        Cloud(always=Gate().answer).running() as url,
        HttpClient(url=url, layout=LAYOUT, codec="fp32", base=BASE, max_connections=THREADS) as client,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        heads = list(threads.map(lambda seed: client.request(feature(seed)), range(40)))
    for seed, head in enumerate(heads):
        assert torch.equal(head.reply.heads.dense(), generate(feature(seed).features).full())
        assert head.num_tries == 1


def test_errors_and_retries_are_those_of_the_asynchronous_client():
    cloud = Cloud(script=[status(503), status(404)])
    with cloud.running() as url:
        retry = RetryPolicy(backoff_s=0.001)
        with HttpClient(url=url, layout=LAYOUT, retry=retry, token="s3cret", codec="fp16") as client:
            with pytest.raises(ServiceError, match="HTTP 404: the reason"):
                client.request(feature())
            assert client.request(feature()).reply.codec == "fp16"
        assert "s3cret" not in repr(client)
    assert cloud.sent("Authorization") == ["Bearer s3cret"] * 3
    with pytest.raises(ConfigError, match=r"like http://127\.0\.0\.1:8000"):
        HttpClient(url="cloud", layout=LAYOUT)


def test_it_leaves_no_thread_and_can_be_opened_again():
    before = threading.active_count()
    cloud = Cloud()
    with cloud.running() as url:
        client = HttpClient(url=url, layout=LAYOUT)
        for _ in range(2):
            with client:
                client.request(feature())
            with pytest.raises(ServiceError, match="inside `with HttpClient"):
                client.request(feature())
        with pytest.raises(KeyboardInterrupt), client:
            raise KeyboardInterrupt
    assert len(cloud.seen) == 2
    assert threading.active_count() == before
