"""Paired comparison of two heads on the same devices, with tests by scipy.

Both heads answer the same samples, so every comparison is paired. Samples of one device share a camera and
a scene and are not independent, so devices are resampled, not samples.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE_LEVEL = 0.95
NUM_RESAMPLES = 1_999

# Values per batch of resamples: 16 MB of float64 for any number of devices.
_BATCH_VALUES = 2_000_000


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

    `p_value` is Wilcoxon's signed-rank over devices. With fewer than two devices `interval` and `p_value` are
    None.
    """

    difference: float
    interval: Interval | None
    p_value: float | None

    @property
    def is_significant(self) -> bool:
        """Return whether the test rejects "no difference" and the interval agrees."""
        if self.interval is None or self.p_value is None:
            return False
        return self.interval.excludes_zero and self.p_value < 1 - CONFIDENCE_LEVEL


def wilcoxon_p_value(differences: np.ndarray) -> float | None:
    """Return the two-sided p-value of the Wilcoxon signed-rank test; None with fewer than two pairs.

    Pairs without a difference are left out, as in Wilcoxon's original test; if no pair differs, p is 1.
    """
    if len(differences) < 2:
        return None
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="wilcox").pvalue)


def mcnemar_p_value(num_gained: int, num_lost: int) -> float:
    """Return the exact two-sided McNemar p-value from the samples on which exactly one head is right."""
    if num_gained + num_lost == 0:
        return 1.0
    return float(stats.binomtest(num_gained, num_gained + num_lost, 0.5).pvalue)


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
    )
