"""Answers with whole heads that arrive exactly as made: generated and applied a few classes at a time."""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # it ships no types

from hyperfleet.cloud.generator import CLASSES_A_TILE, HeadTile, ParameterGenerator
from hyperfleet.emulation.feature_table import FeatureTable

Answers = tuple[Int32[np.ndarray, " pair"], Float32[np.ndarray, " pair"]]

# Heads generated at a time, as many as a job can have (PAIRS_PER_JOB): the generator's weights are read from
# memory once for all of them, and a tile of so many still stays in the cache. 256 cost some percent more a
# head, 128 a fifth.
_HEADS_A_BLOCK = 512


def answer_with_whole_heads(
    generator: ParameterGenerator,
    table: FeatureTable,
    sample: Int64[np.ndarray, " pair"],
    head_of: Int64[np.ndarray, " pair"],
) -> Answers:
    """Do what `answer_pairs` does, for a generator of whole heads and the codec that leaves them as they are.

    Of 512 heads 300 MB would be written to memory and read again; a tile of each is applied while it is in
    the cache, and what remains of it are the best score so far and its class. Memory grows with the pairs, of
    which a job has 512. Computed in one thread.
    """
    # One thread sums in another order than two, and a job has one result however many its host has.
    with _blas().limit(limits=1, user_api="blas"):
        return _answer(generator, table, sample, head_of)


def _answer(
    generator: ParameterGenerator,
    table: FeatureTable,
    sample: Int64[np.ndarray, " pair"],
    head_of: Int64[np.ndarray, " pair"],
) -> Answers:
    heads, place, times = np.unique(head_of, return_inverse=True, return_counts=True)
    # Heads of equally many samples side by side, so that one batched product applies them.
    by_times = np.argsort(times, kind="stable")
    heads, times = heads[by_times], times[by_times]
    order = np.argsort(np.argsort(by_times)[place], kind="stable")  # pairs, those of a head side by side
    ends = np.cumsum(times)
    answer, score = np.empty(len(sample), np.int32), np.empty(len(sample), np.float32)
    for start in range(0, len(heads), _HEADS_A_BLOCK):
        block = slice(start, start + _HEADS_A_BLOCK)
        own = order[ends[start] - times[start] : ends[block][-1]]
        rows = sample[own]
        # What overflows is looked for, and is no surprise.
        with np.errstate(over="ignore", invalid="ignore"):
            tiles = generator.tiles(table.anchor[heads[block]])
            winner, best, finite = _best(tiles, times[block], table.hidden[rows])
        answer[own] = np.where(finite, winner, table.base_answer[rows])
        score[own] = np.where(finite, best, np.nan)
    return answer, score


@cache
def _blas() -> ThreadpoolController:
    # Looks through all libraries of the process, which takes 13 ms.
    return ThreadpoolController()


def _best(
    tiles: Iterable[HeadTile], times: Int64[np.ndarray, " head"], hidden: Float32[np.ndarray, "pair hidden"]
) -> tuple[Int32[np.ndarray, " pair"], Float32[np.ndarray, " pair"], Bool[np.ndarray, " pair"]]:
    """Return winners, their scores and whether all scores are finite; head i has the next `times[i]` rows."""
    num_pairs = len(hidden)
    groups = list(_groups(times))
    winner, best = np.zeros(num_pairs, np.int32), np.full(num_pairs, -np.inf, np.float32)
    finite = np.ones(num_pairs, np.bool_)
    memory = np.empty((num_pairs, CLASSES_A_TILE), np.float32)
    for first, weight, bias in tiles:
        scores = memory[:, : weight.shape[1]]
        for which, rows, number in groups:
            own = hidden[rows].reshape(-1, number, hidden.shape[1])
            products = np.matmul(own, weight[which].transpose(0, 2, 1))
            products += bias[which, None]
            scores[rows] = products.reshape(-1, weight.shape[1])
        at = scores.argmax(axis=1)
        top = np.take_along_axis(scores, at[:, None], axis=1)[:, 0]
        # Of equal scores the first class wins, as it does within a tile.
        better = top > best
        np.copyto(best, top, where=better)
        np.copyto(winner, first + at, where=better, casting="same_kind")
        finite &= np.isfinite(scores).all(axis=1)
    return winner, best, finite


def _groups(times: Int64[np.ndarray, " head"]) -> Iterator[tuple[slice, slice, int]]:
    """Yield stretches of heads that have equally many rows: the heads, their rows, and how many each has."""
    starts = np.flatnonzero(np.diff(times, prepend=0)).tolist()
    end_row = 0
    for first, end in pairwise([*starts, len(times)]):
        number = int(times[first])
        row, end_row = end_row, end_row + number * (end - first)
        yield slice(first, end), slice(row, end_row), number
