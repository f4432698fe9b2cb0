"""Samples of many devices as arrays. They hold what the devices see, so there is no label."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Int

from hyperfleet.datasets import QuestionStream
from hyperfleet.errors import EmptyStreamError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Samples:
    """Samples of one or more devices as arrays of equal length: device, question and clip of each."""

    device_id: Int[np.ndarray, " sample"]
    example_id: Int[np.ndarray, " sample"]
    clip_row: Int[np.ndarray, " sample"]
    token_ids: Int[np.ndarray, "sample word"]
    token_mask: Bool[np.ndarray, "sample word"]

    def __len__(self) -> int:
        return len(self.example_id)

    def batches(self, batch_size: int) -> Iterator["Samples"]:
        """Yield views of `batch_size` samples each, the last one shorter."""
        for start in range(0, len(self), batch_size):
            part = slice(start, start + batch_size)
            yield Samples(**{each.name: getattr(self, each.name)[part] for each in fields(self)})


def gather_samples(stream: Callable[[int], QuestionStream], device_ids: Sequence[int]) -> Samples | None:
    """Concatenate the streams of `device_ids`, leaving out empty ones; None if all are empty."""
    streams = []
    for device_id in device_ids:
        try:
            streams.append(stream(device_id))
        except EmptyStreamError:
            continue
    if not streams:
        return None
    lengths = [len(each) for each in streams]
    return Samples(
        device_id=np.repeat(np.array([each.device_id for each in streams], np.int64), lengths),
        example_id=np.concatenate([each.example_id for each in streams]),
        clip_row=np.concatenate([each.clip_row for each in streams]),
        token_ids=np.concatenate([each.token_ids for each in streams]),
        token_mask=np.concatenate([each.token_mask for each in streams]),
    )
