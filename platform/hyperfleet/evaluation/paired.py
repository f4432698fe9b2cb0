"""Paired comparison of two heads on the same devices, with tests by scipy.

Both heads answer the same samples, so every comparison is paired. Samples of one device share a camera and
a scene and are not independent, so devices are resampled, not samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

CONFIDENCE_LEVEL = 0.95
NUM_RESAMPLES = 1_999
# So many that a corrected p-value can fall below 0.001.
NUM_PERMUTATIONS = 19_999

# Values per batch of resamples: 16 MB of float64 for any number of devices.
_BATCH_VALUES = 2_000_000
# Accuracies are ratios of counts: 0.6 - 0.5 and 0.4 - 0.3 are one tie, but not in floating point.
_DECIMALS = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A confidence interval of level `CONFIDENCE_LEVEL`."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Return whether zero is outside the interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """Personalized minus static, as fractions: +0.05 is five points.

    `p_value` is Wilcoxon's signed-rank over devices; `permutation_p_value` flips the signs of the devices'
    differences and tests their mean. With fewer than two devices `interval` and both p-values are None.
    """

    difference: float
    interval: Interval | None
    p_value: float | None
    permutation_p_value: float | None

    @property
    def is_significant(self) -> bool:
        """Return whether both tests reject "no difference" and the interval agrees."""
        if self.interval is None or self.p_value is None or self.permutation_p_value is None:
            return False
        largest = max(self.p_value, self.permutation_p_value)
        return self.interval.excludes_zero and largest < 1 - CONFIDENCE_LEVEL


def wilcoxon_p_value(differences: np.ndarray) -> float | None:
    """Return the two-sided p-value of the Wilcoxon signed-rank test; None with fewer than two pairs.

    Pairs without a difference are left out, as in Wilcoxon's original test; if no pair differs, p is 1.
    Differences are rounded first, so that equal ones share a rank.
    """
    if len(differences) < 2:
        return None
    rounded = np.round(differences, _DECIMALS)
    if not np.any(rounded):
        return 1.0
    return float(stats.wilcoxon(rounded, zero_method="wilcox").pvalue)


def permutation_p_value(differences: np.ndarray, rng: np.random.Generator) -> float | None:
    """Return the two-sided p-value of the mean under random signs; None with fewer than two pairs.

    Exact if there are at most `NUM_PERMUTATIONS` patterns of signs.
    """
    if len(differences) < 2:
        return None
    result = stats.permutation_test(
        (np.round(differences, _DECIMALS),),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=NUM_PERMUTATIONS,
        batch=max(1, _BATCH_VALUES // len(differences)),
        rng=rng,
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct the p-values of several comparisons by Holm's step-down method; None stays None."""
    known = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        corrected[place] = largest
    return corrected


def mcnemar_p_value(num_gained: int, num_lost: int) -> float:
    """Return the exact two-sided McNemar p-value from the samples on which exactly one head is right."""
    if num_gained + num_lost == 0:
        return 1.0
    return float(stats.binomtest(num_gained, num_gained + num_lost, 0.5).pvalue)


def holm_corrected(tests: Sequence[PairedDifference | None]) -> list[PairedDifference | None]:
    """Return the comparisons of one table with both p-values corrected by Holm's method."""
    ranks = holm([None if test is None else test.p_value for test in tests])
    signs = holm([None if test is None else test.permutation_p_value for test in tests])
    return [
        test and replace(test, p_value=rank, permutation_p_value=sign)
        for test, rank, sign in zip(tests, ranks, signs, strict=True)
    ]


def _bootstrap_interval(differences: np.ndarray, rng: np.random.Generator) -> Interval | None:
    """Return the percentile bootstrap interval of the mean; None with fewer than two devices.

    Not BCa, which is undefined if no device differs; at hundreds of devices the two agree.
    """
    if len(differences) < 2:
        return None
    result = stats.bootstrap(
        (differences,),
        np.mean,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        batch=max(1, _BATCH_VALUES // len(differences)),
        confidence_level=CONFIDENCE_LEVEL,
        method="percentile",
        rng=rng,
    )
    low, high = (float(end) for end in result.confidence_interval)
    return Interval(low=low, high=high)


def compare_mean(static: np.ndarray, personalized: np.ndarray, rng: np.random.Generator) -> PairedDifference:
    """Compare the mean over devices of two accuracies (one value per device)."""
    differences = personalized - static
    return PairedDifference(
        difference=float(differences.mean()),
        interval=_bootstrap_interval(differences, rng),
        p_value=wilcoxon_p_value(differences),
        permutation_p_value=permutation_p_value(differences, rng),
    )
