"""Clips, questions and labels of two devices, recognizable in any traffic, and a search for them."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from hyperfleet.datasets import QuestionStream
from hyperfleet.emulation.live_data import LiveData
from hyperfleet.nn import EncoderConfig
from tests.worlds.devices_in_memory import MemoryStore

CLIPS_PER_DEVICE, QUESTIONS_PER_CLIP, STORED_FRAMES = 2, 2, 4
NUM_DEVICES = 2
NUM_QUESTIONS = NUM_DEVICES * CLIPS_PER_DEVICE * QUESTIONS_PER_CLIP
# More than one 64-bit number; content of fewer than 8 bytes would be found by chance.
WINDOW_BYTES, LEAST_BYTES = 12, 8
NUMBER_TYPES = ("<u1", "<u2", "<i4", "<i8", "<f2", "<f4", "<f8")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledStream(QuestionStream):
    """A stream with the labels of its questions, which no device may read."""

    label: np.ndarray


@dataclass
class PrivateData(LiveData):
    """Live data of noise for devices with this encoder."""

    encoder: EncoderConfig
    store: MemoryStore = field(init=False)
    token_ids: np.ndarray = field(init=False)
    label: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(11)
        size = self.encoder.image_size
        clips = (NUM_DEVICES * CLIPS_PER_DEVICE, STORED_FRAMES, size, size, 3)
        self.store = MemoryStore(rng.integers(0, 256, clips, dtype=np.uint8))
        shape = (NUM_QUESTIONS, self.encoder.text_length)
        self.token_ids = rng.integers(1, self.encoder.vocab_size, shape, dtype=np.int32)
        self.label = rng.integers(10**17, 10**18, NUM_QUESTIONS)

    @property
    def seen(self) -> dict[int, bool]:
        return dict.fromkeys(range(NUM_DEVICES), True)

    def stream(self, device_id: int) -> LabelledStream:
        number = np.arange(NUM_QUESTIONS).reshape(NUM_DEVICES, -1)[device_id]
        return LabelledStream(
            device_id=device_id,
            example_id=1000 + number,
            clip_row=(number // QUESTIONS_PER_CLIP).astype(np.int32),
            token_ids=self.token_ids[number],
            token_mask=np.ones((len(number), self.encoder.text_length), np.bool_),
            label=self.label[number],
        )

    def encodings(self) -> Iterator[tuple[str, bytes]]:
        """Yield all data that must not leave a device, in every plausible encoding.

        Content of fewer than `LEAST_BYTES` bytes is left out.
        """
        for kind, content in self._all():
            if len(content) >= LEAST_BYTES:
                yield kind, content

    def _all(self) -> Iterator[tuple[str, bytes]]:
        for frame in self.store.clips.reshape(-1, *self.store.clips.shape[2:]):
            yield from _pixels(frame)
        for kind, values in (("tokens", self.token_ids), ("labels", self.label[:, None])):
            for row in values:
                yield from _numbers(kind, row)


def _pixels(frame: np.ndarray) -> Iterator[tuple[str, bytes]]:
    planar = np.ascontiguousarray(np.moveaxis(frame, -1, 0))
    for layout, pixels in (("frame", frame), ("planar frame", planar)):
        yield f"{layout}, uint8", pixels.tobytes()
        for dtype in ("<f2", "<f4"):
            yield f"{layout}, {dtype}", pixels.astype(dtype).tobytes()
            yield f"{layout} / 255, {dtype}", (pixels / np.float32(255)).astype(dtype).tobytes()
    for ending in (".jpg", ".png"):
        encoded = cv2.imencode(ending, frame)[1].tobytes()
        yield f"frame, {ending}", encoded
        for start in range(3):
            yield f"frame, {ending} in base64", base64.b64encode(encoded[start:])
    for start in range(3):
        yield "frame, base64", base64.b64encode(frame.tobytes()[start:])


def _numbers(kind: str, row: np.ndarray) -> Iterator[tuple[str, bytes]]:
    for dtype in NUMBER_TYPES:
        largest = np.finfo(dtype).max if dtype[1] == "f" else np.iinfo(dtype).max
        if row.max() <= largest:
            content = row.astype(dtype).tobytes()
            yield f"{kind}, {dtype}", content
            yield f"{kind}, {dtype}, big-endian", row.astype(dtype.replace("<", ">")).tobytes()
            yield f"{kind}, {dtype} in hexadecimal", content.hex().encode()
            for start in range(3):
                yield f"{kind}, {dtype} in base64", base64.b64encode(content[start:])
    for text in (json.dumps(row.tolist()), ",".join(map(str, row)), " ".join(map(str, row))):
        yield f"{kind} as text", text.strip("[]").encode()


def found_in(traffic: bytes, private: PrivateData) -> set[str]:
    """Return the kinds of private data of which the traffic contains `WINDOW_BYTES` consecutive bytes.

    Frames are cut into adjacent pieces, so any run of twice as many bytes is found wherever it begins.
    """
    windows: dict[int, set[bytes]] = {}
    found = set()
    for kind, content in private.encodings():
        size = min(WINDOW_BYTES, len(content))
        if size not in windows:
            windows[size] = {traffic[i : i + size] for i in range(len(traffic) - size + 1)}
        step = size if "frame" in kind else 1
        pieces = (content[start : start + size] for start in range(0, len(content) - size + 1, step))
        # Any file has runs of zeros.
        if any(len(set(piece)) > 2 for piece in windows[size].intersection(pieces)):
            found.add(kind)
    return found
