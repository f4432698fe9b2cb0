import numpy as np
import pytest
from scipy import stats

from hyperfleet.evaluation.paired import (
    compare_mean,
    compare_percentile,
    compare_samples,
    mcnemar_p_value,
    wilcoxon_p_value,
)


def test_p_values_agree_with_counting_by_hand():
    # Eight pairs, negative ranks 1 + 2 = 3: five of the 2^8 sign patterns have a rank sum <= 3.
    differences = np.array([12.0, 8, 24, -3, 16, 22, 10, -2])
    assert wilcoxon_p_value(differences) == pytest.approx(2 * 5 / 2**8)
    # McNemar exact: 1 against 9 discordant pairs, two-sided 2 x (1 + 10) / 2^10.
    assert mcnemar_p_value(9, 1) == pytest.approx(22 / 1024)
    assert mcnemar_p_value(0, 0) == 1.0


def test_no_difference_and_no_pairs_have_defined_answers():
    assert wilcoxon_p_value(np.zeros(20)) == 1.0
    assert wilcoxon_p_value(np.array([0.3])) is None
    same = np.linspace(0.1, 0.9, 20)
    tied = compare_mean(same, same, np.random.default_rng(0))
    assert (tied.difference, tied.p_value, tied.is_significant) == (0.0, 1.0, False)
    one = compare_mean(np.array([0.5]), np.array([0.9]), np.random.default_rng(0))
    assert (one.interval, one.p_value, one.is_significant) == (None, None, False)
    empty = np.zeros(3, dtype=int)
    assert compare_samples(empty, empty, empty, np.random.default_rng(0)) is None


def test_interval_of_the_mean_agrees_with_students():
    rng = np.random.default_rng(5)
    static = rng.uniform(0.3, 0.7, 400)
    personalized = static + rng.normal(0.03, 0.1, 400)

    got = compare_mean(static, personalized, rng)

    wanted = stats.ttest_rel(personalized, static).confidence_interval(0.95)
    assert got.interval.low == pytest.approx(wanted.low, abs=0.001)
    assert got.interval.high == pytest.approx(wanted.high, abs=0.001)
    assert got.is_significant


def test_samples_of_one_device_are_not_taken_as_independent():
    # Ten devices of 100 samples: half gain everything, half lose everything.
    gained = np.array([100, 0] * 5)
    got = compare_samples(gained, 100 - gained, np.full(10, 100), np.random.default_rng(0))
    assert got.difference == 0
    assert got.interval.high > 0.4


def test_a_percentile_has_an_interval_but_no_test():
    static = np.linspace(0, 1, 101)
    got = compare_percentile(static, np.clip(static, 0.25, 1), 10.0, np.random.default_rng(0))
    assert got.difference == pytest.approx(0.15)
    assert got.interval.low > 0
    assert got.p_value is None
