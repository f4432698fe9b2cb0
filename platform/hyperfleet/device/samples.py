"""Questions of many devices side by side: what the devices see, so there is no label."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from hyperfleet.errors import ConfigError, EmptyStreamError


@runtime_checkable
class QuestionStream(Protocol):
    """The private stream of one device, in order of time; `hyperfleet.datasets` has one."""

    @property
    def example_id(self) -> Int[np.ndarray, " sample"]:
        """Number of the question in the annotation file."""
        ...

    @property
    def clip_row(self) -> Int[np.ndarray, " sample"]:
        """Row of its clip in the clip store."""
        ...

    @property
    def token_ids(self) -> Int[np.ndarray, "sample word"]:
        """The tokenised question."""
        ...

    @property
    def token_mask(self) -> Bool[np.ndarray, "sample word"]:
        """False where the question is padded."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Samples:
    """Samples of one or more devices as arrays of equal length: who asks, about which clip, what."""

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


def gather_samples(
    stream: Callable[[int], QuestionStream], device_ids: Sequence[int], samples_per_device: int | None = None
) -> tuple[Samples | None, tuple[int, ...]]:
    """Put the streams of `device_ids` side by side, the first `samples_per_device` questions of each.

    Returns:
        The samples, None when there is not one, and the devices whose stream is empty.

    Raises:
        ConfigError: `samples_per_device` below 1.
    """
    if samples_per_device is not None and samples_per_device < 1:
        raise ConfigError(f"samples_per_device must be >= 1, or None for all, got {samples_per_device}")
    taken = slice(samples_per_device)
    parts, empty = [], []
    for device_id in device_ids:
        try:
            own = stream(device_id)
        except EmptyStreamError:
            empty.append(device_id)
            continue
        example_id = own.example_id[taken]
        if len(example_id) == 0:
            empty.append(device_id)
            continue
        parts.append(
            Samples(
                device_id=np.full(len(example_id), device_id, dtype=np.int64),
                example_id=example_id,
                clip_row=own.clip_row[taken],
                token_ids=own.token_ids[taken],
                token_mask=own.token_mask[taken],
            )
        )
    if not parts:
        return None, tuple(empty)
    arrays = {
        each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Samples)
    }
    return Samples(**arrays), tuple(empty)
