"""Full heads applied in tiles while they are generated, against one head per sample."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from hyperfleet.cloud.generator import CLASSES_PER_TILE, ParameterGenerator
from hyperfleet.emulation import answering
from hyperfleet.emulation.answering import FeatureTable, answer_pairs
from hyperfleet.errors import ConfigError
from hyperfleet.messages import HeadLayout
from hyperfleet.nn import HeadGenerator, HeadGeneratorConfig
from tests.worlds.toy_generators import CountingGenerator, table_of

# Two full tiles and part of one.
NUM_CLASSES = 2 * CLASSES_PER_TILE + 11
LAYOUT = HeadLayout(num_classes=NUM_CLASSES)
TABLE = table_of(30)


def module_of(*, static_base: bool = True, form: str = "full") -> HeadGenerator:
    torch.manual_seed(0)
    config = HeadGeneratorConfig(adr=None, static_base=static_base, form=form)
    module = HeadGenerator(config, LAYOUT).requires_grad_(False)
    for parameter in module.emitter.parameters():
        parameter.normal_(std=0.05)
    if static_base:
        module.base.normal_(std=0.1)
    return module


@cache
def generator_of(static_base: bool) -> ParameterGenerator:
    return ParameterGenerator(module_of(static_base=static_base))


def one_by_one(
    generator: ParameterGenerator, table: FeatureTable, sample: np.ndarray, head_of: np.ndarray
) -> np.ndarray:
    """Scores (n, classes) of each sample with a head that was generated for it alone."""
    scores = []
    for row, made_from in zip(sample, head_of, strict=True):
        head = generator.generate(table.anchor[[made_from]]).full().numpy()
        weight, bias = LAYOUT.split(head)
        scores.append(weight[0] @ table.hidden[row] + bias[0])
    return np.array(scores)


RNG = np.random.default_rng(2)
PAIRS = {
    "one sample": ([4], [9]),
    "one head each": (RNG.permutation(30), RNG.permutation(30)),
    "several samples per head": (RNG.integers(30, size=80), RNG.integers(6, size=80)),
    "few and many, unsorted": (
        RNG.integers(30, size=60),
        RNG.permutation(np.r_[np.arange(20, 30), np.full(20, 3), np.repeat(np.arange(10, 20), 3)]),
    ),
    "the same pair again": ([5, 7, 5, 5, 7], [2, 1, 2, 8, 1]),
}


@pytest.mark.parametrize("static_base", [True, False])
@pytest.mark.parametrize("heads_at_once", [7, 512])
@pytest.mark.parametrize("pairs", PAIRS)
def test_scores_and_answers_are_those_of_one_head_per_sample(
    monkeypatch, pairs: str, heads_at_once: int, static_base: bool
) -> None:
    monkeypatch.setattr(answering, "_FULL_HEADS_AT_ONCE", heads_at_once)
    sample, head_of = (np.array(each, np.int64) for each in PAIRS[pairs])
    generator = generator_of(static_base)
    expected = one_by_one(generator, TABLE, sample, head_of)
    answer, score = answer_pairs(generator, TABLE, sample, head_of)
    assert (answer.dtype, score.dtype) == (np.int32, np.float32)
    np.testing.assert_allclose(score, expected.max(axis=1), rtol=1e-5)
    assert answer.tolist() == expected.argmax(axis=1).tolist()


def test_answers_come_from_every_tile() -> None:
    rows = np.arange(30)
    answer, _ = answer_pairs(generator_of(True), TABLE, rows, rows)
    assert set((answer // CLASSES_PER_TILE).tolist()) == {0, 1, 2}


def test_of_equal_scores_the_first_class_wins() -> None:
    module = module_of()
    for parameter in (*module.emitter.parameters(), module.base):
        parameter.zero_()
    # Class 3 and its doubles in the same and in other tiles beat all others.
    bias = module.emitter.bias[LAYOUT.num_weights :]
    bias[[3, 7, CLASSES_PER_TILE + 1, NUM_CLASSES - 1]] = 1.0
    rows = np.arange(30)
    answer, score = answer_pairs(ParameterGenerator(module), TABLE, rows, rows)
    assert answer.tolist() == [3] * 30
    assert score.tolist() == [1.0] * 30


@pytest.mark.parametrize("broken", [0, CLASSES_PER_TILE, NUM_CLASSES - 1])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_one_score_that_is_not_finite_leaves_the_static_answer(broken: int, value: float) -> None:
    module = module_of()
    module.base[LAYOUT.num_weights + broken] = value
    rows = np.arange(4)
    answer, score = answer_pairs(ParameterGenerator(module), TABLE, rows, rows)
    assert np.isnan(score).all()
    assert answer.tolist() == [77] * 4


def test_only_the_samples_that_overflow_are_answered_without_the_head() -> None:
    table = replace(TABLE, hidden=TABLE.hidden.copy())
    table.hidden[4], table.hidden[6] = 3e38, np.inf
    sample, head_of = np.array([6, 3, 4, 5]), np.array([1, 1, 2, 1])
    generator = generator_of(True)
    answer, score = answer_pairs(generator, table, sample, head_of)
    expected = one_by_one(generator, table, sample[[1, 3]], head_of[[1, 3]])
    assert np.isnan(score).tolist() == [True, False, True, False]
    assert answer[[0, 2]].tolist() == [77, 77]
    assert answer[[1, 3]].tolist() == expected.argmax(axis=1).tolist()


def test_full_heads_are_made_in_tiles_only_and_once_each(monkeypatch) -> None:
    monkeypatch.setattr(answering, "_FULL_HEADS_AT_ONCE", 5)
    generator = CountingGenerator(module_of())
    generator.asked = []
    made: list[np.ndarray] = []
    tiles = generator.tiles
    monkeypatch.setattr(generator, "tiles", lambda features: made.append(features) or tiles(features))
    head_of = np.r_[np.zeros(3000, np.int64), np.arange(12)]
    answer, _ = answer_pairs(generator, TABLE, np.arange(3012) % 30, head_of)
    assert generator.asked == []
    assert [len(each) for each in made] == [5, 5, 2]
    assert len(np.unique(np.concatenate(made), axis=0)) == 12
    few, _ = answer_pairs(generator, TABLE, np.arange(30), np.zeros(30, np.int64))
    assert answer[:3000].tolist() == few.tolist() * 100


def test_heads_of_another_form_have_no_tiles() -> None:
    with pytest.raises(ConfigError, match="a generator of low_rank heads makes no tiles"):
        next(ParameterGenerator(module_of(form="low_rank")).tiles(TABLE.anchor))
