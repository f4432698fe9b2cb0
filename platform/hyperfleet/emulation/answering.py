"""Answers of devices, without any clock: each sample with the head that had arrived.

A scenario decides when a sample is asked and which sample's anchor its head is generated from. Given that, an
answer depends on the two samples alone, so any process may compute any part of a run.
"""

from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
from jaxtyping import Float32, Int64
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # it ships no types

from hyperfleet.cloud.generator import CLASSES_PER_TILE, HeadTile, ParameterGenerator
from hyperfleet.emulation.feature_table import FeaturePart as FeaturePart
from hyperfleet.emulation.feature_table import FeatureTable as FeatureTable
from hyperfleet.errors import ConfigError, DataError
from hyperfleet.head_codecs import DEFAULT_CODEC, GeneratedHeads, Heads, best_answer
from hyperfleet.head_codecs import codec as head_codec
from hyperfleet.head_codecs.factors import split_factors
from hyperfleet.head_codecs.formula import Answers as Answers
from hyperfleet.head_codecs.formula import linear, runs_of, winners
from hyperfleet.head_codecs.heads import FactorHeads, ModulatedHeads
from hyperfleet.messages import HeadReply, ModelLabel, encode_heads

# Rows scored at a time: 6 MB of scores for 1,501 answers, however many samples share one head.
_ROWS_AT_ONCE = 1024
# Full heads generated in tiles at a time, as many as a job can have (PAIRS_PER_JOB). The generator's weights
# are read from memory once for all of them, and one tile of them fits the cache. 256 cost a few percent more
# per head, 128 a fifth more.
_FULL_HEADS_AT_ONCE = 512
# A device checks the reply's model; here device and generator belong to the same one.
_LABEL = ModelLabel(model="", version="", task="")


def answer_pairs(
    generator: ParameterGenerator,
    table: FeatureTable,
    sample: Int64[np.ndarray, " pair"],
    head_of: Int64[np.ndarray, " pair"],
    codec: str = DEFAULT_CODEC,
    heads_at_once: int = 64,
) -> Answers:
    """Answer each `sample` with the head generated from the anchor of `head_of`.

    Each head is generated once, however many samples it answers, and then dropped. Full heads in the exact
    codec are applied in tiles of classes: 512 full heads would write 300 MB to memory and read it again,
    while a tile stays in the cache until it is applied. Where a head gives scores that are not finite, the
    device answers with its own static head, and the score is NaN.

    Args:
        generator: generates the heads.
        table: all live samples; `sample` and `head_of` are rows of it.
        sample: rows to answer.
        head_of: row whose anchor each head is generated from.
        codec: codec of the heads on the link.
        heads_at_once: heads in memory at a time, unless they are applied in tiles.

    Returns:
        The answers and the winning scores.

    Raises:
        ConfigError: heads of this generator cannot be sent in `codec`, or a count is below 1.
        DataError: a row that is not in the table.
    """
    _check(generator, table, (sample, head_of), codec, heads_at_once)
    tiled = not wants_head_batches(generator, codec)
    answer, score = np.empty(len(sample), np.int32), np.empty(len(sample), np.float32)
    batches = _batches(head_of, _FULL_HEADS_AT_ONCE if tiled else heads_at_once, by_times=tiled)
    # The number of threads changes the order of sums, and a job must have one result on any host. Scores that
    # overflow are found afterwards.
    with _blas().limit(limits=1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        for heads, pairs, which in batches:
            rows, anchor = sample[pairs], table.anchor[heads]
            if tiled:
                scores = _tile_scores(generator.tiles(anchor), table.hidden[rows], which)
                answer[pairs], score[pairs] = winners(scores, table.base_answer[rows])
                continue
            received = _received(generator, generator.generate(anchor), codec)
            for start in range(0, len(pairs), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                answer[pairs[part]], score[pairs[part]] = best_answer(
                    received, table.hidden[rows[part]], table.base_answer[rows[part]], which[part]
                )
    return answer, score


def wants_head_batches(generator: ParameterGenerator, codec: str) -> bool:
    """Return whether `answer_pairs` calls `generate`, which is faster for batches if packed."""
    return codec != DEFAULT_CODEC or generator.form != "full"


def _batches(
    head_of: Int64[np.ndarray, " pair"], heads_at_once: int, *, by_times: bool
) -> Iterator[
    tuple[Int64[np.ndarray, " head"], Int64[np.ndarray, " own_pair"], Int64[np.ndarray, " own_pair"]]
]:
    """Yield batches of distinct heads: their rows, the pairs they answer, and each pair's head in the batch.

    `by_times` puts heads that answer equally many pairs side by side, for `formula.runs_of`.
    """
    heads, place, times = np.unique(head_of, return_inverse=True, return_counts=True)
    if by_times:
        sorted_heads = np.argsort(times, kind="stable")
        heads, place = heads[sorted_heads], np.argsort(sorted_heads)[place]
    order = np.argsort(place, kind="stable")
    place = place[order]
    for start in range(0, len(heads), heads_at_once):
        first, end = np.searchsorted(place, [start, start + heads_at_once]).tolist()
        yield heads[start : start + heads_at_once], order[first:end], place[first:end] - start


@cache
def _blas() -> ThreadpoolController:
    # Scans all libraries of the process, which takes 13 ms.
    return ThreadpoolController()


def _check(
    generator: ParameterGenerator,
    table: FeatureTable,
    rows: tuple[np.ndarray, np.ndarray],
    codec: str,
    heads_at_once: int,
) -> None:
    head_codec(codec)
    if codec not in generator.codecs:
        raise ConfigError(
            f"heads of this generator cannot be sent as {codec!r}; choose from {', '.join(generator.codecs)}"
        )
    if heads_at_once < 1:
        raise ConfigError(f"heads_at_once must be >= 1, got {heads_at_once}")
    for name, values in zip(("sample", "head_of"), rows, strict=True):
        if len(values) and not 0 <= values.min() <= values.max() < len(table):
            raise DataError(
                f"{name} holds rows {values.min()} to {values.max()}, the feature table has {len(table)}; "
                "run the scenario on the data set that the table was computed from"
            )


def _tile_scores(
    tiles: Iterable[HeadTile],
    hidden: Float32[np.ndarray, "row hidden"],
    which: Int64[np.ndarray, " row"],
) -> Iterator[tuple[int, Float32[np.ndarray, "row class"]]]:
    """Yield the first class and the scores of each tile; the memory is reused for the next one."""
    runs = runs_of(which)
    memory = np.empty((len(hidden), CLASSES_PER_TILE), np.float32)
    for first, weight, bias in tiles:
        yield first, linear(weight, bias, hidden, runs, memory[:, : weight.shape[1]])


def _received(generator: ParameterGenerator, generated: GeneratedHeads, codec: str) -> Heads:
    """Return heads as a device receives them."""
    if codec == DEFAULT_CODEC:
        return _exact(generated)
    return HeadReply.from_bytes(
        encode_heads(generated, codec=codec, label=_LABEL),
        expected=generator.layout,
        num_heads=len(generated),
        base=generator.base,
    ).heads


def _exact(generated: GeneratedHeads) -> Heads:
    # Generated factors and modulations are the same heads and need not be multiplied out to be applied. Full
    # heads in the exact codec never get here.
    layout, base = generated.layout, generated.base
    assert base is not None
    if generated.form == "low_rank":
        up, down, bias = split_factors(generated.numbers, layout)
        return FactorHeads(layout=layout, up=up, down=down, bias=bias, base=base)
    scale, shift = generated.numbers.chunk(2, dim=1)
    return ModulatedHeads(layout=layout, scale=scale, shift=shift, base=base)
