import pytest
from scipy import stats

from hyperfleet.errors import ConfigError
from hyperfleet.evaluation.rendering import to_markdown
from hyperfleet.evaluation.seeds import SeedResult, seed_results, seeds_table, summarise

STATIC = (0.50, 0.52, 0.51)
PERSONALIZED = (0.56, 0.55, 0.58)


def three():
    return tuple(
        SeedResult(seed=seed, static=low, personalized=high)
        for seed, (low, high) in enumerate(zip(STATIC, PERSONALIZED, strict=True))
    )


def test_three_seeds_are_summarised_as_scipy_does_and_the_caveat_is_said():
    got = summarise(three())

    assert got.difference_mean == pytest.approx(0.16 / 3)
    assert got.difference_std == pytest.approx(0.0208167, abs=1e-6)
    assert got.t_test_p_value == pytest.approx(stats.ttest_rel(PERSONALIZED, STATIC).pvalue)
    assert got.wilcoxon_p_value == got.smallest_wilcoxon_p_value == 0.25
    assert got.interval.low < got.difference_mean < got.interval.high
    text = to_markdown(seeds_table(got))
    assert "| Seed 2 | 51.0% | 58.0% | +7.0 |" in text
    assert "| **Mean** | **51.0%** | **56.3%** | **+5.3** |" in text
    assert "| Standard deviation, points | 1.0 | 1.5 | 2.1 |" in text
    assert "better in 3 of 3 seeds" in text
    assert "cannot fall below 0.25" in text


def test_equal_differences_have_no_t_test_and_one_seed_no_spread():
    alike = tuple(SeedResult(seed=seed, static=0.5, personalized=0.6) for seed in range(3))
    got = summarise(alike)
    assert (got.interval, got.t_test_p_value) == (None, None)
    assert "interval (Student) -" in to_markdown(seeds_table(got))
    with pytest.raises(ConfigError, match="two or more different seeds"):
        summarise(three()[:1])
    with pytest.raises(ConfigError, match="two or more different seeds"):
        summarise((alike[0], alike[0]))


def test_seeds_of_whole_runs_are_taken_in_order(scored):
    runs = {2: scored(0.5, 0.6, seed=2), 1: scored(0.5, 0.6, seed=1)}
    got = seed_results(runs, held_out=True)
    assert [result.seed for result in got] == [1, 2]
    assert got[0].personalized == runs[1].held_out.personalized.device_mean
