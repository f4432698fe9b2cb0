"""Several seeds of one experiment: rows, mean, spread, and tests with what they can and cannot show."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from hyperfleet.errors import ConfigError
from hyperfleet.evaluation import wording
from hyperfleet.evaluation.metrics import FleetScore
from hyperfleet.evaluation.paired import CONFIDENCE_LEVEL, Interval, wilcoxon_p_value
from hyperfleet.evaluation.rendering import Cell, Table, row


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedResult:
    """Mean accuracy over devices of both heads, for one seed, as fractions."""

    seed: int
    static: float
    personalized: float

    @property
    def difference(self) -> float:
        """Personalized minus static."""
        return self.personalized - self.static


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedSummary:
    """Results of several seeds.

    Standard deviations are of the sample (n - 1). `interval` is Student's, for the mean difference.
    Tests and interval are None where seeds are too few or too much alike to have one.
    """

    results: tuple[SeedResult, ...]
    static_mean: float
    static_std: float
    personalized_mean: float
    personalized_std: float
    difference_mean: float
    difference_std: float
    interval: Interval | None
    t_test_p_value: float | None
    wilcoxon_p_value: float | None

    @property
    def num_wins(self) -> int:
        """Seeds in which the personalized head is better."""
        return sum(result.difference > 0 for result in self.results)

    @property
    def smallest_wilcoxon_p_value(self) -> float:
        """The least p-value that Wilcoxon's two-sided test can give for this many seeds: 0.25 for three."""
        return float(min(1.0, 2.0 ** (1 - len(self.results))))

    @property
    def caveat(self) -> str:
        """What so few seeds can show, in one sentence."""
        number = len(self.results)
        return (
            f"With {number} seeds Wilcoxon's two-sided p cannot fall below "
            f"{self.smallest_wilcoxon_p_value:.3g}, and the t-test ({number - 1} degrees of freedom) takes "
            f"differences as normally distributed, which {number} values cannot show. Read the rows."
        )


def seed_results(scores: Mapping[int, FleetScore], *, held_out: bool = False) -> tuple[SeedResult, ...]:
    """Take each seed's mean accuracy over all devices, or over the held-out ones.

    Raises:
        ConfigError: held-out devices are asked for and a run had none.
    """
    results = []
    for seed, score in sorted(scores.items()):
        group = score.held_out if held_out else score.overall
        if group is None:
            raise ConfigError(f"seed {seed} has no held-out devices; summarise all devices instead")
        results.append(
            SeedResult(
                seed=seed, static=group.static.device_mean, personalized=group.personalized.device_mean
            )
        )
    return tuple(results)


def summarise(results: tuple[SeedResult, ...]) -> SeedSummary:
    """Summarise the results of two or more seeds.

    Raises:
        ConfigError: fewer than two seeds, or one seed twice.
    """
    seeds = [result.seed for result in results]
    if len(seeds) < 2 or len(set(seeds)) != len(seeds):
        raise ConfigError(f"a spread needs two or more different seeds, got {seeds}; run more seeds")
    differences = [result.difference for result in results]
    interval, t_test_p_value = _student(np.array(differences))
    static = [result.static for result in results]
    personalized = [result.personalized for result in results]
    return SeedSummary(
        results=results,
        static_mean=statistics.fmean(static),
        static_std=statistics.stdev(static),
        personalized_mean=statistics.fmean(personalized),
        personalized_std=statistics.stdev(personalized),
        difference_mean=statistics.fmean(differences),
        difference_std=statistics.stdev(differences),
        interval=interval,
        t_test_p_value=t_test_p_value,
        wilcoxon_p_value=wilcoxon_p_value(np.array(differences)),
    )


def seeds_table(summary: SeedSummary, title: str = "Mean accuracy over devices, by seed") -> Table:
    """One row a seed, then mean and standard deviation."""
    rows = [
        row(
            f"Seed {result.seed}",
            wording.percent(result.static),
            wording.percent(result.personalized),
            wording.points(result.difference),
        )
        for result in summary.results
    ]
    rows.append(
        row(
            "Mean",
            wording.percent(summary.static_mean),
            wording.percent(summary.personalized_mean),
            wording.points(summary.difference_mean),
            strong=True,
        )
    )
    spreads = (summary.static_std, summary.personalized_std, summary.difference_std)
    rows.append(row("Standard deviation, points", *(Cell(text=f"{100 * spread:.1f}") for spread in spreads)))
    return Table(
        name="seeds",
        title=title,
        columns=("", "Static", "Personalized", "Difference (points)"),
        rows=tuple(rows),
        footnotes=(
            f"Personalized heads are better in {summary.num_wins} of {len(summary.results)} seeds. Mean "
            f"difference: 95% interval (Student) {wording.interval_points(summary.interval)}, paired t-test "
            f"p {wording.p_value(summary.t_test_p_value)}, Wilcoxon p "
            f"{wording.p_value(summary.wilcoxon_p_value)}.",
            summary.caveat,
        ),
    )


def _student(differences: np.ndarray) -> tuple[Interval | None, float | None]:
    """Interval and p-value of the paired t-test; none where all differences agree: t is undefined."""
    if np.ptp(differences) <= 1e-12 * max(1.0, float(np.abs(differences).max())):
        return None, None
    result = stats.ttest_1samp(differences, 0.0)
    ends = result.confidence_interval(CONFIDENCE_LEVEL)
    return Interval(low=float(ends.low), high=float(ends.high)), float(result.pvalue)
