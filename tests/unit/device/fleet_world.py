"""A world of a few devices for tests: in-memory clips, untrained tiny models, and a real HTTP generator."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from aiohttp import web

from hyperfleet.messages import HeadLayout, HeadReply, HeadRequest
from hyperfleet.nn import DeviceModel, EncoderConfig

NUM_CLASSES = 7
LAYOUT = HeadLayout(num_classes=NUM_CLASSES)
NETWORKS = ("4g-5", "5g-100")
ENCODER = EncoderConfig(name="test", image_size=32, depth=1, text_length=6, vocab_size=40, num_frames=3)
QUESTIONS_PER_CLIP = 2


def tiny_models() -> tuple[DeviceModel, DeviceModel]:
    """Return an untrained personalized and an untrained static model."""
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(DeviceModel(ENCODER, NUM_CLASSES).eval().requires_grad_(False))
    return models[0], models[1]


@dataclass
class MemoryStore:
    """Clips of noise; remembers which rows were read."""

    clips: np.ndarray
    rows_read: list[int] = field(default_factory=list)

    @property
    def num_stored_frames(self) -> int:
        return self.clips.shape[1]

    def frames(self, rows: np.ndarray, frame_index: np.ndarray) -> np.ndarray:
        self.rows_read += rows.tolist()
        return self.clips[rows[:, None], frame_index]


@dataclass
class MemoryStream:
    example_id: np.ndarray
    clip_row: np.ndarray
    token_ids: np.ndarray
    token_mask: np.ndarray


@dataclass
class World:
    """Device i owns `clips_of[i]` clips with two questions each; clips and questions are numbered through."""

    clips_of: tuple[int, ...]
    store: MemoryStore = field(init=False)

    def __post_init__(self) -> None:
        shape = (sum(self.clips_of), 6, 40, 48, 3)
        self.store = MemoryStore(np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8))

    @property
    def device_ids(self) -> tuple[int, ...]:
        return tuple(range(len(self.clips_of)))

    def own_rows(self, device_id: int) -> range:
        first = sum(self.clips_of[:device_id])
        return range(first, first + self.clips_of[device_id])

    def stream(self, device_id: int) -> MemoryStream:
        clip_row = np.repeat(np.array(self.own_rows(device_id), dtype=np.int32), QUESTIONS_PER_CLIP)
        question = np.arange(len(clip_row)) % QUESTIONS_PER_CLIP
        example_id = 1000 + clip_row.astype(np.int64) * QUESTIONS_PER_CLIP + question
        lengths = 3 + example_id % 3
        token_mask = np.arange(ENCODER.text_length) < lengths[:, None]
        token_ids = np.where(token_mask, (example_id[:, None] * np.arange(7, 13)) % ENCODER.vocab_size, 0)
        return MemoryStream(example_id, clip_row, token_ids.astype(np.int32), token_mask)


def opener(clips_of: tuple[int, ...]) -> Callable[[], World]:
    return partial(World, clips_of)


_PROJECTION = np.random.default_rng(3).normal(size=(192, LAYOUT.num_params)).astype(np.float32)


def generate(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Make a head of each feature, row by row, so that it does not depend on what else is asked for."""
    flat = np.stack([row @ _PROJECTION for row in features])
    return *LAYOUT.split(flat), "3"


@dataclass
class Traffic:
    """What reached the generator, and what it should do about it."""

    bodies: list[bytes] = field(default_factory=list)
    refuse: Callable[[bytes], int | None] = lambda body: None
    hold_until_concurrent: int = 1
    max_concurrent: int = 0
    _concurrent: int = 0
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        self._concurrent += 1
        self.max_concurrent = max(self.max_concurrent, self._concurrent)
        try:
            if self._concurrent >= self.hold_until_concurrent:
                self._released.set()
            await asyncio.wait_for(self._released.wait(), 60)
            body = await request.read()
            self.bodies.append(body)
            status = self.refuse(body)
            if status is not None:
                return web.Response(status=status, text="refused")
            weight, bias, version = generate(HeadRequest.from_bytes(body).features)
            reply = HeadReply(weight=weight, bias=bias, model_version=version)
            headers = {"X-Model-Version": version, "Server-Timing": "queue;dur=0.1, generate;dur=0.2"}
            return web.Response(body=reply.to_bytes(), headers=headers)
        finally:
            self._concurrent -= 1


async def describe(_: web.Request) -> web.Response:
    model = {
        "name": "test",
        "version": "3",
        "task": "vqa",
        "num_classes": NUM_CLASSES,
        "hidden": LAYOUT.hidden,
    }
    return web.json_response(model)


@contextmanager
def generator_server(traffic: Traffic):
    """Serve `traffic` over real HTTP from a thread; yields the URL."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/v1/generate/vqa", traffic.handle)
    app.router.add_get("/v1/model", describe)
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
