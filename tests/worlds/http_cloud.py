"""A scripted generator service for client tests: a real HTTP server in a thread."""

import asyncio
import inspect
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xxhash
from aiohttp import web

from hyperfleet.client import AsyncHttpClient, ReceivedHead
from hyperfleet.head_codecs import BaseHead, GeneratedHeads, HeadLayout
from hyperfleet.head_codecs.heads import ModulatedHeads
from hyperfleet.messages import HeadRequest, ModelLabel, encode_heads

# 16 rows, so that every offered rank fits.
LAYOUT = HeadLayout(num_classes=16)
LABEL = ModelLabel(model="test", version="7", task="open-ended-qa")
BASE = BaseHead(
    layout=LAYOUT, flat=torch.randn(LAYOUT.num_params, generator=torch.Generator().manual_seed(1))
)
TIMING = "queue;dur=1.5, generate;dur=2.5, encode;dur=0.5"

Step = Callable[[web.Request, bytes], Any]


def feature(seed: int = 0) -> HeadRequest:
    return HeadRequest(features=np.random.default_rng(seed).normal(size=(1, 192)).astype(np.float32))


def generate(features: np.ndarray) -> GeneratedHeads:
    """Make a head of each feature that depends on this feature alone."""
    flat = torch.stack([_noise(row, LAYOUT.num_params) for row in features])
    return GeneratedHeads(layout=LAYOUT, form="full", numbers=flat, base=BASE, full=lambda: flat)


def modulate(features: np.ndarray) -> GeneratedHeads:
    """Make a scale and a shift of each feature."""
    numbers = torch.stack([_noise(row, 2 * LAYOUT.hidden) for row in features])
    scale, shift = numbers.chunk(2, dim=1)
    heads = ModulatedHeads(layout=LAYOUT, scale=scale, shift=shift, base=BASE)
    return GeneratedHeads(layout=LAYOUT, form="film", numbers=numbers, base=BASE, full=heads.dense)


def _noise(row: np.ndarray, size: int) -> torch.Tensor:
    rng = np.random.default_rng(row.view(np.uint32))
    return torch.from_numpy(rng.normal(size=size).astype(np.float32))


def reply_headers(body: bytes) -> dict[str, str]:
    return {"Server-Timing": TIMING, "X-Checksum": f"xxh3-64={xxhash.xxh3_64_hexdigest(body)}"}


def good_reply(request: web.Request, body: bytes, made_by=generate) -> web.Response:
    codec = re.search(r"codec=([\w-]+)", request.headers["Accept"])[1]
    heads = made_by(HeadRequest.from_bytes(body).features)
    content = encode_heads(heads, codec=codec, label=LABEL)
    return web.Response(body=content, headers=reply_headers(content))


def status(code: int, text: str = "the reason", **headers: str) -> Step:
    return lambda request, body: web.Response(status=code, text=text, headers=headers)


def hang_up(request: web.Request, body: bytes) -> web.Response:
    request.transport.close()
    return web.Response()


async def hang(request: web.Request, body: bytes) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


@dataclass
class Cloud:
    """Answers as scripted, then as `always`, and keeps the requests: method, path, headers, body."""

    script: list[Step] = field(default_factory=list)
    always: Step = good_reply
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.method, request.raw_path, dict(request.headers), body))
        step = self.script.pop(0) if self.script else self.always
        answer = step(request, body)
        return await answer if inspect.isawaitable(answer) else answer

    def sent(self, header: str) -> list[str | None]:
        return [headers.get(header) for _, _, headers, _ in self.seen]

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve from a thread; yields the URL."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        with serving(app) as url:
            yield url


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


@contextmanager
def serving(app: web.Application) -> Iterator[str]:
    """Serve `app` over real HTTP from a thread; yields the URL."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
