"""Requests of the asynchronous client for tests that have no event loop."""

import asyncio

from hyperfleet.client import AsyncHttpClient, ReceivedHead
from tests.unit.client.cloud_world import LAYOUT, Cloud, feature


def ask(cloud: Cloud, num_requests: int = 1, **settings) -> tuple[list[ReceivedHead], list[float]]:
    """Send requests to `cloud` one after the other; return the heads and the pauses between tries."""
    pauses_s: list[float] = []

    async def no_sleep(seconds: float) -> None:
        pauses_s.append(seconds)

    async def run(url: str) -> list[ReceivedHead]:
        fields = {"url": url, "layout": LAYOUT, "sleep": no_sleep, **settings}
        async with AsyncHttpClient(**fields) as client:
            return [await client.request(feature(i)) for i in range(num_requests)]

    with cloud.running() as url:
        return asyncio.run(run(url)), pauses_s
