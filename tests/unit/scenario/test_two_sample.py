from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hyperfleet.errors import ConfigError, FeatureError
from hyperfleet.scenario.two_sample import (
    NUM_PERMUTATIONS,
    _discriminant,
    can_drift,
    drift_p_value,
    has_drifted,
)

NUM_TESTS = 200
# The spread of features falls off with the direction; questions of 12 kinds lie further apart than devices.
_rng = np.random.default_rng(7)
SPREAD = np.arange(1, 193) ** -0.5
TURN = np.linalg.qr(_rng.normal(size=(192, 192)))[0]
KINDS = 2 * (_rng.normal(size=(12, 192)) * SPREAD) @ TURN.T
# Drawn from in the tests, which so need no large products.
SCENES = 0.5 * (_rng.normal(size=(4000, 192)) * SPREAD) @ TURN.T
CAMERAS = (_rng.normal(size=(500, 192)) * SPREAD) @ TURN.T


def questions(rng, n, moved=None):
    """Features of n samples of a device, each of a question of a random kind."""
    features = KINDS[rng.integers(len(KINDS), size=n)] + SCENES[rng.integers(len(SCENES), size=n)]
    return (features + (0 if moved is None else moved)).astype(np.float32)


def heavy_tailed(rng, n):
    return (rng.normal(size=(n, 192)) * rng.standard_t(1.5, size=(n, 1))).astype(np.float32)


def few_clips(rng, n):
    """Several samples of a device show the same frame and question."""
    return KINDS[rng.integers(3, size=n)].astype(np.float32)


def camera(rng, length=2.0):
    """A shift that a device's camera might make: short against the spread of 4.6 of its questions."""
    shift = CAMERAS[rng.integers(len(CAMERAS))]
    return length * shift / np.linalg.norm(shift)


def rejections(draw_reference, draw_recent, p_value=0.05, num_tests=NUM_TESTS):
    rng = np.random.default_rng(11)
    return sum(has_drifted(draw_reference(rng), draw_recent(rng), p_value) for _ in range(num_tests))


@pytest.mark.parametrize(("n", "m"), [(8, 8), (16, 16), (32, 32), (32, 8), (8, 32)])
@pytest.mark.parametrize("law", [questions, heavy_tailed, few_clips])
def test_false_alarms_stay_at_the_level(law, n, m):
    count = rejections(lambda rng: law(rng, n), lambda rng: law(rng, m))
    # Five standard deviations would show once in a million; a broken test alarms many times as often.
    assert count <= stats.binom.ppf(0.9999, NUM_TESTS, 0.05)


def test_false_alarms_are_not_far_below_the_level_either():
    # 0.2 leaves enough rejections to count; a test that never rejects holds every level.
    count = rejections(lambda rng: questions(rng, 16), lambda rng: questions(rng, 16), p_value=0.2)
    assert stats.binom.ppf(0.0001, NUM_TESTS, 0.2) <= count <= stats.binom.ppf(0.9999, NUM_TESTS, 0.2)


@given(seed=st.integers(0, 2**32), n=st.integers(4, 24), m=st.integers(4, 24))
@settings(max_examples=20, deadline=None)
def test_any_sample_parted_at_random_has_p_values_at_least_uniform(seed, n, m):
    rng = np.random.default_rng(seed)
    # Two far groups: parted as they came they have drifted, parted at random they have not.
    pool = np.concatenate([questions(rng, n), questions(rng, m, camera(rng, 20.0))])
    p_values = []
    for _ in range(40):
        order = rng.permutation(len(pool))
        p_values.append(drift_p_value(pool[order[:n]], pool[order[n:]]))
    assert sum(p <= 0.1 for p in p_values) <= stats.binom.ppf(1 - 1e-6, 40, 0.1)


@pytest.mark.parametrize(("n", "m", "power"), [(8, 8, 0.85), (16, 16, 0.99), (32, 32, 0.99), (32, 8, 0.99)])
def test_a_shift_below_the_spread_of_the_questions_is_found(n, m, power):
    def moved(rng):
        return questions(rng, m, camera(rng, 2.5))

    assert rejections(lambda rng: questions(rng, n), moved, num_tests=100) >= 100 * power


def test_other_questions_with_the_same_mean_are_found():
    def wider(rng):
        return 1.5 * questions(rng, 32) - 0.5 * KINDS.mean(axis=0).astype(np.float32)

    assert rejections(lambda rng: questions(rng, 32), wider, num_tests=50) >= 45


def test_the_order_of_the_features_and_their_unit_do_not_matter():
    rng = np.random.default_rng(3)
    reference, recent = questions(rng, 16), questions(rng, 12, camera(rng, 1.0))
    p_value = drift_p_value(reference, recent)
    assert 1 / (NUM_PERMUTATIONS + 1) <= p_value <= 1
    assert drift_p_value(reference, recent) == p_value
    assert drift_p_value(1024 * reference + 5, 1024 * recent + 5) == pytest.approx(p_value, abs=0.02)
    shuffled = drift_p_value(rng.permutation(reference), rng.permutation(recent))
    # Other permutations are drawn for it, in effect.
    assert shuffled == pytest.approx(p_value, abs=5 * np.sqrt(p_value * (1 - p_value) / NUM_PERMUTATIONS))


@pytest.mark.parametrize("length", [0.0, 1.0, 2.5])
def test_p_values_are_those_of_scipys_permutation_test(length):
    rng = np.random.default_rng(5)
    reference, recent = questions(rng, 6), questions(rng, 5, camera(rng, length))
    kernel = _discriminant(np.concatenate([reference, recent])).astype(np.float64)

    def distance(first, second):
        first, second = first.astype(int), second.astype(int)
        between = kernel[np.ix_(first, second)].mean()
        return kernel[np.ix_(first, first)].mean() + kernel[np.ix_(second, second)].mean() - 2 * between

    # All 462 ways to part 11 features into 6 and 5.
    exact = stats.permutation_test(
        (np.arange(6), np.arange(6, 11)), distance, alternative="greater", n_resamples=np.inf
    ).pvalue
    assert drift_p_value(reference, recent) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "length"), [(16, 16, 0.7), (12, 4, 1.5)])
def test_drawn_permutations_come_close_to_those_that_scipy_draws(n, m, length):
    rng = np.random.default_rng(6)
    reference, recent = questions(rng, n), questions(rng, m, camera(rng, length))
    kernel = _discriminant(np.concatenate([reference, recent])).astype(np.float64)

    def distance(first, second, axis):
        part = np.zeros((len(first), n + m)) if first.ndim > 1 else np.zeros((1, n + m))
        np.put_along_axis(part, np.atleast_2d(first).astype(int), 1, axis=1)
        return ((part @ kernel) * part).sum(axis=1)

    scipys = stats.permutation_test(
        (np.arange(n), np.arange(n, n + m)),
        distance,
        vectorized=True,
        alternative="greater",
        n_resamples=20_000,
        rng=0,
    ).pvalue
    error = np.sqrt(scipys * (1 - scipys) / NUM_PERMUTATIONS)
    assert 0.01 < scipys < 0.9
    assert drift_p_value(reference, recent) == pytest.approx(scipys, abs=4 * error)


def test_the_statistic_is_the_distance_of_means_against_the_spread_in_each_direction():
    rng = np.random.default_rng(9)
    features = questions(rng, 20)
    distance = ((features[:, None].astype(float) - features[None]) ** 2).sum(axis=2)
    centring = np.eye(20) - 1 / 20
    kernel = centring @ np.exp(-distance / (4 * distance.mean())) @ centring
    expected = kernel @ np.linalg.inv(kernel + 0.1 * np.trace(kernel) / 20 * np.eye(20))
    np.testing.assert_allclose(_discriminant(features), expected, atol=2e-4)


@pytest.mark.parametrize(
    ("n", "m", "p_value", "can"),
    [
        (4, 4, 0.05, True),
        (4, 4, 0.01, False),
        (5, 5, 0.01, True),
        (3, 4, 0.05, True),
        (3, 4, 0.02, False),
        (0, 8, 0.5, False),
        (8, 0, 0.5, False),
        (1, 1, 0.5, False),
    ],
)
def test_too_few_features_are_no_drift(n, m, p_value, can):
    assert can_drift(n, m, p_value) is can
    rng = np.random.default_rng(1)
    assert has_drifted(questions(rng, n), questions(rng, m, camera(rng, 500.0)), p_value) is can


def test_rounding_does_not_hide_partings_that_amount_to_the_observed_one():
    rng = np.random.default_rng(2)
    for n in (3, 4, 5, 6):
        for _ in range(20):
            p_value = drift_p_value(questions(rng, n), questions(rng, n, camera(rng, 500.0)))
            # Two equal halves that are as far apart as can be, and the same with names exchanged.
            assert p_value == pytest.approx(2 / comb(2 * n, n))


def test_features_that_are_all_alike_have_not_moved():
    features = np.ones((8, 192), np.float32)
    assert drift_p_value(features, features) == 1.0
    assert not has_drifted(features, features, 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(value):
    features = np.ones((8, 192), np.float32)
    broken = features.copy()
    broken[3, 5] = value
    with np.errstate(invalid="ignore"), pytest.raises(FeatureError, match="finite"):
        has_drifted(features, broken, 0.05)


@pytest.mark.parametrize("p_value", [0.0, 0.0009, 1.0, -0.1, float("nan")])
def test_a_p_value_that_no_test_gives_is_refused(p_value):
    with pytest.raises(ConfigError, match=r"p_value must be between 0\.001 and 1"):
        can_drift(8, 8, p_value)
