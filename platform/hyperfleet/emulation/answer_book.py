"""Cache of answers: a sample with the head of a given feature has one answer."""

import numpy as np
from jaxtyping import Float32, Int32, Int64

from hyperfleet.emulation.feature_table import FeatureTable


class AnswerBook:
    """Answers by pair of sample and head, so that no pair is computed twice in a run.

    Args:
        table: the samples and their answers with the static head.
    """

    def __init__(self, table: FeatureTable) -> None:
        self._table = table
        # Sorted, for vectorized binary search.
        self._asked = np.empty(0, np.int64)
        self._known = np.empty(0, np.int64)
        self._answer = np.empty(0, np.int32)
        self._score = np.empty(0, np.float32)

    def ask(
        self, row: Int64[np.ndarray, " sample"], head_row: Int64[np.ndarray, " sample"]
    ) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]:
        """Return the pairs not asked for before; the caller must `learn` their answers."""
        generated = head_row >= 0
        keys = np.unique(self._keys(row[generated], head_row[generated]))
        new = keys[~_contains(self._asked, keys)]
        self._asked = np.union1d(self._asked, new)
        # Ordered by head: pairs that share one are adjacent.
        head, sample = np.divmod(new, len(self._table))
        return sample, head

    def learn(
        self,
        row: Int64[np.ndarray, " pair"],
        head_row: Int64[np.ndarray, " pair"],
        answer: Int32[np.ndarray, " pair"],
        score: Float32[np.ndarray, " pair"],
    ) -> None:
        """Store answers."""
        keys = np.concatenate([self._known, self._keys(row, head_row)])
        order = np.argsort(keys, kind="stable")
        self._known = keys[order]
        self._answer = np.concatenate([self._answer, answer])[order]
        self._score = np.concatenate([self._score, score])[order]

    def look_up(
        self, row: Int64[np.ndarray, " sample"], head_row: Int64[np.ndarray, " sample"]
    ) -> tuple[Int32[np.ndarray, " sample"], Float32[np.ndarray, " sample"]]:
        """Return answers and winning scores; the score of the static head (`head_row` -1) is NaN."""
        answer = self._table.base_answer[row].copy()
        score = np.full(len(row), np.nan, np.float32)
        generated = np.flatnonzero(head_row >= 0)
        if len(generated):
            keys = self._keys(row[generated], head_row[generated])
            place = np.searchsorted(self._known, keys)
            assert _contains(self._known, keys).all(), "look_up of an answer that was never learnt"
            answer[generated] = self._answer[place]
            score[generated] = self._score[place]
        return answer, score

    def _keys(
        self, row: Int64[np.ndarray, " pair"], head_row: Int64[np.ndarray, " pair"]
    ) -> Int64[np.ndarray, " pair"]:
        keys: np.ndarray = head_row * len(self._table) + row
        return keys


def _contains(ascending: np.ndarray, keys: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(ascending, keys), max(len(ascending) - 1, 0))
    return ascending[place] == keys if len(ascending) else np.zeros(len(keys), dtype=bool)
