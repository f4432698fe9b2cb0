"""The right answers to live samples; only scorers read them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from hyperfleet.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AnswerKey:
    """The right answer to each example, and the device of the data set that filmed it.

    Attributes:
        example_id: unique.
        label: the class, or `OUT_OF_VOCABULARY` for an answer outside the vocabulary.
        device_id: the device of the data set.
        held_out: whether that device gave nothing to training.

    Raises:
        DataError: an id occurs twice.
    """

    example_id: Int[np.ndarray, " example"]
    label: Int[np.ndarray, " example"]
    device_id: Int[np.ndarray, " example"]
    held_out: Bool[np.ndarray, " example"]

    def __post_init__(self) -> None:
        unique, counts = np.unique(self.example_id, return_counts=True)
        if len(unique) != len(self.example_id):
            twice = unique[counts > 1][:3].tolist()
            raise DataError(f"answer key: example_id must be unique, got {twice} more than once")
