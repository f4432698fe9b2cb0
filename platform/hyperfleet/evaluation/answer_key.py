"""The right answers of live samples; only scorers read them."""

from dataclasses import dataclass

import numpy as np

from hyperfleet.errors import DataError

OUT_OF_VOCABULARY = -1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AnswerKey:
    """The right answers, which only scorers see.

    `example_id` (n,) is unique; `label` (n,) is the class, or -1 for an answer outside the vocabulary.

    Raises:
        DataError: lengths differ, or an id occurs twice.
    """

    example_id: np.ndarray
    label: np.ndarray

    def __post_init__(self) -> None:
        _check_unique("answer key", "example_id", self.example_id, self.label)


def _check_unique(where: str, name: str, ids: np.ndarray, values: np.ndarray) -> None:
    if ids.shape != values.shape or ids.ndim != 1:
        raise DataError(f"{where}: one value a {name} expected, got shapes {values.shape} and {ids.shape}")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        twice = unique[counts > 1][:3].tolist()
        raise DataError(f"{where}: {name} must be unique, got {twice} more than once")
