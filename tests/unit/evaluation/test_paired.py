import numpy as np
import pytest
from scipy import stats

from hyperfleet.evaluation.paired import compare_mean, mcnemar_p_value, wilcoxon_p_value


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


def test_interval_of_the_mean_agrees_with_students():
    rng = np.random.default_rng(5)
    static = rng.uniform(0.3, 0.7, 400)
    personalized = static + rng.normal(0.03, 0.1, 400)

    got = compare_mean(static, personalized, rng)

    wanted = stats.ttest_rel(personalized, static).confidence_interval(0.95)
    assert got.interval.low == pytest.approx(wanted.low, abs=0.001)
    assert got.interval.high == pytest.approx(wanted.high, abs=0.001)
    assert got.is_significant
