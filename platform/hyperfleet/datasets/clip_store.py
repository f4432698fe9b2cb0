"""Clip store: a few frames of each video, decoded once and kept as JPEG in one Arrow file.

A row holds a video's name, the number of frames of the source, and `num_stored_frames` evenly spaced JPEG
pictures of the central square. With six pictures, each of three segments has two: training takes one at
random, evaluation always the same one (`sampling.py`). Store large pictures three per clip, so that a clip
takes at most 60 KB. The file is memory-mapped: processes on a machine share it, and pickling a store sends
only its path.

Videos that could not be decoded have rows at the end, with a reason and no pictures.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import pyarrow as pa
from jaxtyping import Integer, UInt8

from hyperfleet.datasets.bounds import MIN_JPEG_QUALITY
from hyperfleet.datasets.video import read_clip
from hyperfleet.errors import ConfigError, DataError, VideoDecodeError

ROWS_PER_BATCH = 256

_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("num_frames", pa.int32()),
        ("frames", pa.list_(pa.binary())),
        ("skip_reason", pa.string()),
    ]
)
_FORMAT = b"hyperfleet clip store 2"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredClip:
    """One row: JPEG pictures, or the reason why there are none. `num_frames` counts the source."""

    video_id: str
    num_frames: int
    frames: tuple[bytes, ...]
    skip_reason: str = ""


def decode_clip(
    video_id: str, path: Path, *, num_stored_frames: int, short_side: int, quality: int
) -> StoredClip:
    """Decode one video into a row of the store; a broken or missing video gives a row with the reason."""
    try:
        frames, num_frames = read_clip(path, num_stored_frames, short_side=short_side)
    except VideoDecodeError as error:
        return StoredClip(video_id=video_id, num_frames=0, frames=(), skip_reason=str(error))
    return StoredClip(video_id=video_id, num_frames=num_frames, frames=encode_frames(frames, quality))


def encode_frames(frames: UInt8[np.ndarray, "frame height width 3"], quality: int) -> tuple[bytes, ...]:
    """Cut frames to the central square and encode them as JPEG with full color resolution.

    Raises:
        ConfigError: the quality is below 90, which would blur details that questions ask about.
    """
    if not MIN_JPEG_QUALITY <= quality <= 100:
        raise ConfigError(f"JPEG quality must be in {MIN_JPEG_QUALITY}..100, got {quality}")
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    side = min(frames.shape[1:3])
    top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
    encoded = []
    for frame in frames[:, top : top + side, left : left + side]:
        _, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), settings)
        encoded.append(data.tobytes())
    return tuple(encoded)


def write_clips(path: Path, clips: Iterable[StoredClip], *, frame_side: int, num_stored_frames: int) -> None:
    """Write a store atomically. `frame_side` is the side of its pictures in pixels.

    Raises:
        DataError: no video could be decoded; the message gives the first reason.
    """
    metadata = {
        b"format": _FORMAT,
        b"frame_side": str(frame_side).encode(),
        b"num_stored_frames": str(num_stored_frames).encode(),
    }
    schema = _SCHEMA.with_metadata(metadata)
    partial = path.with_suffix(".partial")
    skipped: list[StoredClip] = []
    num_stored = 0
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        rows: list[StoredClip] = []
        for clip in clips:
            (skipped if clip.skip_reason else rows).append(clip)
            if len(rows) == ROWS_PER_BATCH:
                num_stored += len(rows)
                writer.write_batch(_to_batch(rows, schema))
                rows = []
        num_stored += len(rows)
        if rows or skipped:
            writer.write_batch(_to_batch(rows + skipped, schema))
    if num_stored == 0:
        partial.unlink()
        reason = skipped[0].skip_reason if skipped else "no videos were given"
        raise DataError(
            f"none of {len(skipped)} videos could be decoded, so there is no clip store; first: {reason}"
        )
    os.replace(partial, path)


def _to_batch(rows: list[StoredClip], schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        pa.array([row.video_id for row in rows], pa.string()),
        pa.array([row.num_frames for row in rows], pa.int32()),
        pa.array([list(row.frames) for row in rows], pa.list_(pa.binary())),
        pa.array([row.skip_reason for row in rows], pa.string()),
    ]
    return pa.record_batch(columns, schema=schema)


@runtime_checkable
class FrameStore(Protocol):
    """Source of decoded frames; `ClipStore` is one."""

    @property
    def num_stored_frames(self) -> int:
        """Frames kept per clip."""
        ...

    def frames(
        self, rows: Integer[np.ndarray, " n"], frame_index: Integer[np.ndarray, "n frame"]
    ) -> UInt8[np.ndarray, "n frame height width 3"]:
        """Return the chosen frames of the chosen clips."""
        ...


class ClipStore:
    """Random access to the pictures of a store.

    Args:
        path: a file written by `write_clips`.

    Raises:
        DataError: the file is missing or of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        batches, metadata = _map_file(path)
        self.num_stored_frames = int(metadata[b"num_stored_frames"])
        self.frame_side = int(metadata[b"frame_side"])
        self.skipped: dict[str, str] = {}
        video_ids: list[str] = []
        num_source_frames: list[int] = []
        for batch in batches:
            columns = (batch[name].to_pylist() for name in ("video_id", "num_frames", "skip_reason"))
            for video_id, num_frames, reason in zip(*columns, strict=True):
                if reason:
                    self.skipped[video_id] = reason
                else:
                    video_ids.append(video_id)
                    num_source_frames.append(num_frames)
        self.video_ids = tuple(video_ids)
        self.num_source_frames = np.array(num_source_frames, np.int32)
        self._row = {video_id: row for row, video_id in enumerate(video_ids)}
        self._pictures = _Pictures.of(batches, self.num_stored_frames)

    def __reduce__(self) -> tuple[type["ClipStore"], tuple[Path]]:
        return ClipStore, (self.path,)

    def __len__(self) -> int:
        return len(self.video_ids)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._row

    def row(self, video_id: str) -> int:
        """Return the row of a video.

        Raises:
            DataError: the store has no pictures of it; the message gives the reason if known.
        """
        row = self._row.get(video_id)
        if row is None:
            unknown = "it was never stored; the annotations belong to another data set"
            reason = self.skipped.get(video_id, unknown)
            raise DataError(f"{self.path} has no pictures of {video_id!r}: {reason}")
        return row

    def frames(
        self, rows: Integer[np.ndarray, " n"], frame_index: Integer[np.ndarray, "n frame"]
    ) -> UInt8[np.ndarray, "n frame side side 3"]:
        """Decode pictures `frame_index` (below `num_stored_frames`) of the clips in `rows`, as RGB.

        Raises:
            DataError: a row or index is outside the store, or a picture is not a JPEG of its size.
        """
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise DataError(f"{self.path} has rows 0 to {len(self) - 1}, got {rows.min()} to {rows.max()}")
        if frame_index.size and (frame_index.min() < 0 or frame_index.max() >= self.num_stored_frames):
            raise DataError(
                f"a stored clip has frames 0 to {self.num_stored_frames - 1}, got {frame_index.min()} to "
                f"{frame_index.max()}; see `hyperfleet.datasets.sampling`"
            )
        side = self.frame_side
        decoded = np.empty((*frame_index.shape, side, side, 3), np.uint8)
        flat = decoded.reshape(-1, side, side, 3)
        pictures = self._pictures.select(rows, frame_index)
        for index, data in enumerate(pictures):
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
            if picture is None or picture.shape != (side, side, 3):
                raise DataError(
                    f"{self.path}: broken picture of "
                    f"{self.video_ids[int(rows[index // frame_index.shape[1]])]!r}; "
                    f"expected a JPEG of {side}x{side}; delete the store and render again"
                )
            flat[index] = picture
        return decoded


@dataclass(frozen=True, slots=True, eq=False)
class _Pictures:
    # Positions of the JPEG bytes: finds a picture without creating Python or Arrow objects.
    pictures_per_row: int
    first_row: np.ndarray
    offsets: list[np.ndarray]
    data: list[np.ndarray]

    @classmethod
    def of(cls, batches: list[pa.RecordBatch], pictures_per_row: int) -> "_Pictures":
        offsets, data = [], []
        for batch in batches:
            values = batch["frames"].values
            # A batch of only skipped videos has no pictures, and Arrow may then omit the buffers.
            _, starts, payload = values.buffers() if len(values) else (None, bytes(4), bytes(1))
            offsets.append(np.frombuffer(starts, np.int32)[: len(values) + 1])
            data.append(np.frombuffer(payload, np.uint8))
        sizes = [len(batch) for batch in batches]
        return cls(pictures_per_row, np.cumsum([0, *sizes[:-1]]), offsets, data)

    def select(self, rows: np.ndarray, frame_index: np.ndarray) -> Iterator[np.ndarray]:
        chunks = np.searchsorted(self.first_row, rows, side="right") - 1
        clips = (rows - self.first_row[chunks]).astype(np.int64)
        positions = clips[:, None] * self.pictures_per_row + frame_index
        for chunk, clip in zip(chunks.tolist(), positions.tolist(), strict=True):
            offsets, data = self.offsets[chunk], self.data[chunk]
            for position in clip:
                yield data[offsets[position] : offsets[position + 1]]


def _map_file(path: Path) -> tuple[list[pa.RecordBatch], dict[bytes, bytes]]:
    if not path.is_file():
        raise DataError(f"no clip store at {path}; `hyperfleet data render` makes it from the videos")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not an Arrow file: {error}; delete it and render again") from error
    metadata = dict(reader.schema.metadata or {})
    if metadata.get(b"format") != _FORMAT:
        raise DataError(
            f"{path} is not a clip store of this version: got "
            f"{metadata.get(b'format', b'no format mark').decode()!r}, "
            f"expected {_FORMAT.decode()!r}; delete it and render again"
        )
    return batches, metadata
