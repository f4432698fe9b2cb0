"""The one formula that applies heads outside training: P = W phi + b (equation 7), and the answer.

In NumPy, which is faster than torch on one head. Training has the differentiable form in `hyperfleet.nn`.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32, Int64

Answers = tuple[Int32[np.ndarray, " row"], Float32[np.ndarray, " row"]]


class Run(NamedTuple):
    """Adjacent heads with equally many rows each: the heads, their rows, and the rows per head."""

    heads: slice
    rows: slice
    rows_per_head: int


def runs_of(which: Int64[np.ndarray, " row"]) -> list[Run]:
    """Group rows for batched products; row i uses head `which[i]`, and `which` must not decrease."""
    first_row = np.flatnonzero(np.diff(which, prepend=-1))
    heads, num_rows = which[first_row], np.diff(first_row, append=len(which))
    starts = np.flatnonzero((np.diff(num_rows, prepend=0) != 0) | (np.diff(heads, prepend=-2) != 1))
    runs = []
    for start, end in pairwise([*starts.tolist(), len(heads)]):
        head, row, each = int(heads[start]), int(first_row[start]), int(num_rows[start])
        number = end - start
        runs.append(Run(slice(head, head + number), slice(row, row + each * number), each))
    return runs


def products(
    matrices: Float32[np.ndarray, "head output width"],
    vectors: Float32[np.ndarray, "row width"],
    runs: Iterable[Run],
    out: Float32[np.ndarray, "row output"] | None = None,
) -> Float32[np.ndarray, "row output"]:
    """Multiply each vector by its head's matrix, reading each matrix once and in place."""
    if out is None:
        out = np.empty((len(vectors), matrices.shape[1]), np.float32)
    for heads, rows, each in runs:
        own = vectors[rows].reshape(-1, each, vectors.shape[1])
        np.matmul(own, matrices[heads].transpose(0, 2, 1), out=out[rows].reshape(-1, each, out.shape[1]))
    return out


def linear(
    weight: Float32[np.ndarray, "head output hidden"],
    bias: Float32[np.ndarray, "head output"],
    hidden: Float32[np.ndarray, "row hidden"],
    runs: Iterable[Run],
    out: Float32[np.ndarray, "row output"] | None = None,
) -> Float32[np.ndarray, "row output"]:
    """Return W phi + b for each row; `weight` and `bias` may be a tile of the classes."""
    scores = products(weight, hidden, runs, out)
    for heads, rows, each in runs:
        own = scores[rows].reshape(-1, each, scores.shape[1])
        own += bias[heads, None]
    return scores


def winners(
    tiles: Iterable[tuple[int, Float32[np.ndarray, "row class"]]], base_answer: Int[np.ndarray, " row"]
) -> Answers:
    """Return the best class of each row and its score.

    Of equal scores the first class wins. A row with a score that is not finite gets its `base_answer` and
    the score NaN.

    Args:
        tiles: scores of some classes each, with the number of the first one, in ascending order.
        base_answer: the static head's answers.
    """
    num_rows = len(base_answer)
    winner, best = np.zeros(num_rows, np.int32), np.full(num_rows, -np.inf, np.float32)
    finite = np.ones(num_rows, np.bool_)
    for first, scores in tiles:
        at = scores.argmax(axis=1)
        top = np.take_along_axis(scores, at[:, None], axis=1)[:, 0]
        better = top > best
        np.copyto(best, top, where=better)
        np.copyto(winner, first + at, where=better, casting="same_kind")
        finite &= np.isfinite(scores).all(axis=1)
    winner[~finite] = base_answer[~finite]
    best[~finite] = np.nan
    return winner, best
