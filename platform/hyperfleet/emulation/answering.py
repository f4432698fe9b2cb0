"""What devices answer, without any clock: each sample with whichever head had arrived.

A scenario decides when a sample is asked and from which sample's anchor its head was generated. Given that,
an answer is a function of the two samples alone, so that any process may compute any part of a run.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.emulation.feature_table import FeaturePart as FeaturePart
from hyperfleet.emulation.feature_table import FeatureTable as FeatureTable
from hyperfleet.emulation.whole_heads import Answers as Answers
from hyperfleet.emulation.whole_heads import answer_with_whole_heads
from hyperfleet.errors import ConfigError, DataError
from hyperfleet.head_codecs import DEFAULT_CODEC, GeneratedHeads, Heads
from hyperfleet.head_codecs import codec as head_codec
from hyperfleet.head_codecs.factors import split_factors
from hyperfleet.head_codecs.heads import FactorHeads, ModulatedHeads
from hyperfleet.messages import HeadReply, ModelLabel, encode_heads

# Scores in memory at a time: 6 MB of 1,501 answers, however many samples share one head.
_ROWS_AT_ONCE = 1024
# A device checks what a reply says of its model; here device and generator are of one.
_LABEL = ModelLabel(model="", version="", task="")

_Applied = Callable[[np.ndarray, np.ndarray], np.ndarray]


def answer_pairs(
    generator: ParameterGenerator,
    table: FeatureTable,
    sample: Int64[np.ndarray, " pair"],
    head_of: Int64[np.ndarray, " pair"],
    codec: str = DEFAULT_CODEC,
    heads_at_once: int = 64,
) -> Answers:
    """Answer each `sample` with the head that was generated from the anchor of `head_of`.

    A head is generated once however many samples it answers, and dropped when it has; whole ones that arrive
    exactly as made are never in memory as a whole (`answer_with_whole_heads`). Where a head gives
    scores that are not finite the device answers with its own static head, and the score is NaN.

    Args:
        generator: makes the heads.
        table: all live samples; `sample` and `head_of` are rows of it.
        sample: what is answered.
        head_of: what its head was made from.
        codec: how heads travel.
        heads_at_once: heads in memory at a time, where they are as a whole.

    Returns:
        The answers and the winning scores.

    Raises:
        ConfigError: heads of this generator cannot travel in `codec`, or a count below 1.
        DataError: a row that the table has not.
    """
    _check(generator, table, (sample, head_of), codec, heads_at_once)
    if not wants_head_batches(generator, codec):
        return answer_with_whole_heads(generator, table, sample, head_of)
    heads, place = np.unique(head_of, return_inverse=True)
    order = np.argsort(place, kind="stable")
    place = place[order]
    answer, score = np.empty(len(sample), np.int32), np.empty(len(sample), np.float32)
    for start in range(0, len(heads), heads_at_once):
        anchor = table.anchor[heads[start : start + heads_at_once]]
        apply = _applied(_received(generator, generator.generate(anchor), codec))
        first, end = np.searchsorted(place, [start, start + heads_at_once]).tolist()
        for at in range(first, end, _ROWS_AT_ONCE):
            part = slice(at, min(at + _ROWS_AT_ONCE, end))
            rows = sample[order[part]]
            # What is too large for a codec is looked for below, and is no surprise.
            with np.errstate(over="ignore", invalid="ignore"):
                scores = apply(place[part] - start, table.hidden[rows])
            finite = np.isfinite(scores).all(axis=1)
            answer[order[part]] = np.where(finite, scores.argmax(axis=1), table.base_answer[rows])
            score[order[part]] = np.where(finite, scores.max(axis=1), np.nan)
    return answer, score


def wants_head_batches(generator: ParameterGenerator, codec: str) -> bool:
    """Tell whether `answer_pairs` calls `generate`, for batches of which a generator may be packed."""
    return codec != DEFAULT_CODEC or generator.form != "full"


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
            f"heads of this generator cannot travel as {codec!r}; choose one of {', '.join(generator.codecs)}"
        )
    if heads_at_once < 1:
        raise ConfigError(f"heads_at_once must be >= 1, got {heads_at_once}")
    for name, values in zip(("sample", "head_of"), rows, strict=True):
        if len(values) and not 0 <= values.min() <= values.max() < len(table):
            raise DataError(
                f"{name} holds rows {values.min()} to {values.max()}, the feature table has {len(table)}; "
                "run the scenario on the data set that the table was computed of"
            )


def _received(generator: ParameterGenerator, generated: GeneratedHeads, codec: str) -> Heads:
    """Return heads as a device gets them."""
    if codec == DEFAULT_CODEC:
        return _exact(generated)
    return HeadReply.from_bytes(
        encode_heads(generated, codec=codec, label=_LABEL),
        expected=generator.layout,
        num_heads=len(generated),
        base=generator.base,
    ).heads


def _exact(generated: GeneratedHeads) -> Heads:
    # What was generated as factors or as a modulation is the same head and need not be multiplied out to be
    # applied. Whole ones do not come here.
    layout, base = generated.layout, generated.base
    assert base is not None
    if generated.form == "low_rank":
        up, down, bias = split_factors(generated.numbers, layout)
        return FactorHeads(layout=layout, up=up, down=down, bias=bias, base=base)
    scale, shift = generated.numbers.chunk(2, dim=1)
    return ModulatedHeads(layout=layout, scale=scale, shift=shift, base=base)


def _applied(heads: Heads) -> _Applied:
    """Return the function that gives row r the scores of head `which[r]`; `which` must not decrease."""
    if isinstance(heads, ModulatedHeads):
        scale, shift = heads.scale.numpy(), heads.shift.numpy()
        return lambda which, hidden: heads.base.scores((1 + scale[which]) * hidden + shift[which])
    if isinstance(heads, FactorHeads):
        up, down, bias = (part.float().numpy() for part in (heads.up, heads.down, heads.bias))

        def low_rank(which: np.ndarray, hidden: np.ndarray) -> np.ndarray:
            scores = _products(up, which, _products(down, which, hidden))
            scores += heads.base.scores(hidden)
            scores += bias[which]
            return scores

        return low_rank
    weight, dense_bias = heads.layout.split(heads.dense().numpy())

    def dense(which: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        scores = _products(weight, which, hidden)
        scores += dense_bias[which]
        return scores

    return dense


def _products(matrices: np.ndarray, which: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    # A loop over matrices reads each once, where it lies, and multiplies it with all its vectors in one
    # product; one product over all would need the vectors padded to equal numbers.
    products = np.empty((len(vectors), matrices.shape[1]), np.float32)
    starts = np.flatnonzero(np.diff(which, prepend=-1)).tolist()
    for first, end in pairwise([*starts, len(which)]):
        np.matmul(vectors[first:end], matrices[which[first]].T, out=products[first:end])
    return products
