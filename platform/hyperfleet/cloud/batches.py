"""Batches of tensors from a split of questions and a store of frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from hyperfleet.datasets import FrameStore
from hyperfleet.datasets.sampling import (
    central_crop,
    crop_at,
    inference_frames,
    random_corners,
    training_frames,
)
from hyperfleet.errors import EmptyStreamError


@runtime_checkable
class LabelledSplit(Protocol):
    """Samples with their labels; `hyperfleet.datasets.Split` is one."""

    @property
    def example_id(self) -> np.ndarray:
        """Number of each sample in its annotation file."""
        ...

    @property
    def device_id(self) -> np.ndarray:
        """Device of each sample's clip."""
        ...

    @property
    def clip_row(self) -> np.ndarray:
        """Row of each sample's clip in the store."""
        ...

    @property
    def token_ids(self) -> np.ndarray:
        """The tokenized question, caption or candidates."""
        ...

    @property
    def token_mask(self) -> np.ndarray:
        """False where a text is padded."""
        ...

    @property
    def label(self) -> np.ndarray:
        """Target of the task's loss, e.g. the class of the answer; -1 if it is out of the vocabulary."""
        ...

    @property
    def category(self) -> np.ndarray:
        """Category of the sample, with a template in StableSynthNet; -1 for none."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSource:
    """Batches of one split for an encoder of `num_frames` frames of `image_size` pixels.

    Raises:
        EmptyStreamError: the split holds no sample.
    """

    store: FrameStore
    split: LabelledSplit
    num_frames: int
    image_size: int
    random_crop: bool = True

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise EmptyStreamError(
                "the split holds no question, expected at least one; check the annotation files and "
                "render the data set with more history clips"
            )

    def __len__(self) -> int:
        return len(self.split.label)

    def num_batches(self, batch_size: int) -> int:
        """Return the number of full batches in one pass; a split smaller than one batch counts as one."""
        return max(1, len(self) // batch_size)

    def shuffled(
        self, rng: np.random.Generator, batch_size: int, per_category: int | None = None
    ) -> Iterator[Int[np.ndarray, " sample"]]:
        """Yield the samples of each batch of one pass in random order; an incomplete last batch is dropped.

        With `per_category`, samples of one category are adjacent in groups of that size (the last group of a
        category may be smaller), and the groups are shuffled: a P x K sampler that still makes full passes.
        """
        order = rng.permutation(len(self))
        if per_category is not None:
            order = _grouped(order, self.split.category, per_category, rng)
        for start in range(0, self.num_batches(batch_size) * batch_size, batch_size):
            yield order[start : start + batch_size]

    def labels(self, samples: Int[np.ndarray, " sample"]) -> Tensor:
        """Return the labels of `samples`; -1 for an answer out of the vocabulary."""
        return torch.from_numpy(self.split.label[samples].astype(np.int64))

    def targets(self, samples: Int[np.ndarray, " sample"]) -> dict[str, Tensor]:
        """Return `labels` and `categories` of `samples`."""
        categories = torch.from_numpy(self.split.category[samples].astype(np.int64))
        return {"labels": self.labels(samples), "categories": categories}

    def _questions(self, samples: Int[np.ndarray, " sample"]) -> dict[str, Tensor]:
        return {
            "token_ids": torch.from_numpy(self.split.token_ids[samples].astype(np.int64)),
            "token_mask": torch.from_numpy(self.split.token_mask[samples]),
            **self.targets(samples),
        }

    def batch(
        self, samples: Int[np.ndarray, " sample"], rng: np.random.Generator, share: slice = slice(None)
    ) -> dict[str, Tensor]:
        """Return a training batch: a random frame of each segment and, if configured, a random crop per clip.

        `share` is the part of `samples` that this worker computes. Draws are made for all of them, so
        that a sample's frames and crop do not depend on the number of workers.
        """
        index = training_frames(rng, len(samples), self.store.num_stored_frames, self.num_frames)
        crop_rng = rng.spawn(1)[0]
        own = samples[share]
        stored = self.store.frames(self.split.clip_row[own], index[share])
        if self.random_crop:
            corners = random_corners(crop_rng, len(samples), stored.shape[2:4], self.image_size)
            frames = crop_at(stored, corners[share], self.image_size)
        else:
            frames = central_crop(stored, self.image_size)
        return {"frames": torch.from_numpy(np.ascontiguousarray(frames)), **self._questions(own)}

    def in_order(self, samples: Int[np.ndarray, " sample"], batch_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield `samples` in order as inference sees them: middle frames, central crops."""
        index = inference_frames(self.store.num_stored_frames, self.num_frames)
        for start in range(0, len(samples), batch_size):
            part = samples[start : start + batch_size]
            # Questions of one clip are adjacent: decode its frames once and repeat them.
            rows, place = np.unique(self.split.clip_row[part], return_inverse=True)
            frames = self.store.frames(rows, np.broadcast_to(index, (len(rows), self.num_frames)))
            frames = central_crop(frames, self.image_size)[place]
            yield {"frames": torch.from_numpy(frames), **self._questions(part)}


def _grouped(
    order: Int[np.ndarray, " sample"], category: np.ndarray, size: int, rng: np.random.Generator
) -> Int[np.ndarray, " sample"]:
    # Stable, so that samples of one category keep their random order.
    by_category = order[np.argsort(category[order], kind="stable")]
    _, first, count = np.unique(category[by_category], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(first, count)
    group = np.cumsum(np.r_[False, (place[1:] % size == 0) | (place[1:] == 0)])
    rank = rng.permutation(group[-1] + 1)[group]
    return by_category[np.argsort(rank, kind="stable")]
