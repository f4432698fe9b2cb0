import itertools

import numpy as np
import pytest
from scipy import stats

from hyperfleet.evaluation.paired import (
    PairedDifference,
    compare_mean,
    holm,
    holm_corrected,
    mcnemar_p_value,
    permutation_p_value,
    wilcoxon_p_value,
)


def test_p_values_agree_with_counting_by_hand():
    # Eight pairs, negative ranks 1 + 2 = 3: five of the 2^8 sign patterns have a rank sum <= 3.
    differences = np.array([12.0, 8, 24, -3, 16, 22, 10, -2])
    assert wilcoxon_p_value(differences) == pytest.approx(2 * 5 / 2**8)
    # McNemar exact: 1 against 9 discordant pairs, two-sided 2 x (1 + 10) / 2^10.
    assert mcnemar_p_value(9, 1) == pytest.approx(22 / 1024)
    assert mcnemar_p_value(0, 0) == 1.0


def test_ties_of_fractions_are_ties_as_those_of_counts_are():
    rng = np.random.default_rng(3)
    static, personalized = rng.integers(0, 11, 60), rng.integers(1, 11, 60)
    counted = stats.wilcoxon(personalized - static, zero_method="wilcox").pvalue
    # 0.6 - 0.5 is not 0.4 - 0.3 in floating point.
    assert wilcoxon_p_value(personalized / 10 - static / 10) == pytest.approx(counted, rel=1e-12)


def test_random_signs_are_counted_exactly_where_they_are_few():
    differences = np.array([0.3, 0.1, 0.2, -0.1])
    signs = np.array(list(itertools.product([1, -1], repeat=4)))
    means = (signs * differences).mean(axis=1)
    expected = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
    rng = np.random.default_rng(0)
    assert permutation_p_value(differences, rng) == pytest.approx(expected)
    assert permutation_p_value(np.zeros(30), rng) == 1.0
    assert permutation_p_value(np.array([0.3]), rng) is None


def test_random_signs_reject_as_often_as_they_may():
    rng = np.random.default_rng(1)
    rejected = [permutation_p_value(rng.normal(size=25), rng) < 0.05 for _ in range(200)]
    assert sum(rejected) <= stats.binom.ppf(1 - 1e-6, 200, 0.05)


def test_holm_steps_down_and_leaves_out_what_was_not_tested():
    # By hand: 3 x 0.01, then 2 x 0.02, then the larger of 0.04 and 1 x 0.03.
    assert holm([0.03, None, 0.01, 0.02]) == [pytest.approx(0.04), None, *map(pytest.approx, (0.03, 0.04))]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    test = PairedDifference(difference=0.1, interval=None, p_value=0.03, permutation_p_value=0.02)
    first, none, second = holm_corrected([test, None, test])
    assert none is None
    assert first == second
    assert (first.p_value, first.permutation_p_value) == (0.06, 0.04)


def test_no_difference_and_no_pairs_have_defined_answers():
    assert wilcoxon_p_value(np.zeros(20)) == 1.0
    assert wilcoxon_p_value(np.array([0.3])) is None
    same = np.linspace(0.1, 0.9, 20)
    tied = compare_mean(same, same, np.random.default_rng(0))
    assert (tied.difference, tied.p_value, tied.is_significant) == (0.0, 1.0, False)
    one = compare_mean(np.array([0.5]), np.array([0.9]), np.random.default_rng(0))
    assert (one.interval, one.p_value, one.is_significant) == (None, None, False)


def test_interval_of_the_mean_agrees_with_students():
    rng = np.random.default_rng(5)
    static = rng.uniform(0.3, 0.7, 400)
    personalized = static + rng.normal(0.03, 0.1, 400)

    got = compare_mean(static, personalized, rng)

    wanted = stats.ttest_rel(personalized, static).confidence_interval(0.95)
    assert got.interval.low == pytest.approx(wanted.low, abs=0.001)
    assert got.interval.high == pytest.approx(wanted.high, abs=0.001)
    assert got.is_significant
