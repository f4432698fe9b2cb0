"""A few devices with clips in memory, untrained tiny models and a generator behind real HTTP."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from aiohttp import web

from hyperfleet.datasets import QuestionStream
from hyperfleet.emulation.live_data import LiveData
from hyperfleet.errors import EmptyStreamError
from hyperfleet.head_codecs import GeneratedHeads
from hyperfleet.messages import HeadLayout, HeadReply, HeadRequest, ModelLabel, encode_heads
from hyperfleet.nn import DeviceModel, EncoderConfig
from tests.worlds.http_cloud import reply_headers, serving

NUM_CLASSES = 7
LAYOUT = HeadLayout(num_classes=NUM_CLASSES)
LABEL = ModelLabel(model="test", version="3", task="vqa")
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
    """Clips of noise; records the rows read."""

    clips: np.ndarray
    rows_read: list[int] = field(default_factory=list)

    @property
    def num_stored_frames(self) -> int:
        return self.clips.shape[1]

    def frames(self, rows: np.ndarray, frame_index: np.ndarray) -> np.ndarray:
        self.rows_read += rows.tolist()
        return self.clips[rows[:, None], frame_index]


@dataclass
class World(LiveData):
    """Live data of a few devices. Device i owns `clips_of[i]` clips with two questions each.

    Clips and questions are numbered across devices.
    """

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

    def stream(self, device_id: int) -> QuestionStream:
        if device_id >= len(self.clips_of) or not self.clips_of[device_id]:
            raise EmptyStreamError(f"device {device_id} has no question")
        clip_row = np.repeat(np.array(self.own_rows(device_id), dtype=np.int32), QUESTIONS_PER_CLIP)
        question = np.arange(len(clip_row)) % QUESTIONS_PER_CLIP
        example_id = 1000 + clip_row.astype(np.int64) * QUESTIONS_PER_CLIP + question
        lengths = 3 + example_id % 3
        token_mask = np.arange(ENCODER.text_length) < lengths[:, None]
        token_ids = np.where(token_mask, (example_id[:, None] * np.arange(7, 13)) % ENCODER.vocab_size, 0)
        return QuestionStream(
            device_id=device_id,
            example_id=example_id,
            clip_row=clip_row,
            token_ids=token_ids.astype(np.int32),
            token_mask=token_mask,
        )


def opener(clips_of: tuple[int, ...]) -> Callable[[], World]:
    return partial(World, clips_of)


_PROJECTION = np.random.default_rng(3).normal(size=(192, LAYOUT.num_params)).astype(np.float32)


def generate(features: np.ndarray) -> GeneratedHeads:
    """Make a head of each feature, row by row, so that heads do not depend on the rest of the batch."""
    return whole_heads(np.stack([row @ _PROJECTION for row in features]))


def whole_heads(flat: np.ndarray) -> GeneratedHeads:
    """Return flat heads (n, params) as a generator without a static head returns them."""
    numbers = torch.from_numpy(flat)
    return GeneratedHeads(layout=LAYOUT, form="full", numbers=numbers, base=None, full=lambda: numbers)


def reply_of(generated: GeneratedHeads) -> HeadReply:
    """Return the heads as they arrive on a device."""
    body = encode_heads(generated, codec="fp32", label=LABEL)
    return HeadReply.from_bytes(body, expected=LAYOUT, num_heads=len(generated))


@dataclass
class Traffic:
    """Requests that reached the generator, and its scripted behavior."""

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
            heads = generate(HeadRequest.from_bytes(body).features)
            content = encode_heads(heads, codec="fp32", label=LABEL)
            return web.Response(body=content, headers=reply_headers(content))
        finally:
            self._concurrent -= 1


async def describe(_: web.Request) -> web.Response:
    model = {
        "name": LABEL.model,
        "version": LABEL.version,
        "task": LABEL.task,
        "num_classes": NUM_CLASSES,
        "hidden": LAYOUT.hidden,
        "base_id": "",
        "codecs": [{"name": "fp32"}],
    }
    return web.json_response({"models": [model]})


@contextmanager
def generator_server(traffic: Traffic) -> Iterator[str]:
    """Serve `traffic` over real HTTP from a thread; yields the URL."""
    app = web.Application()
    app.router.add_post(f"/v1/generate/{LABEL.task}", traffic.handle)
    app.router.add_get("/v1/models", describe)
    with serving(app) as url:
        yield url
