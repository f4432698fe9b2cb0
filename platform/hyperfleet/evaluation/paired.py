"""Is the personalized head better than the static one on the same devices? Tests by scipy.

Both heads answer the same samples, so every comparison is paired. Samples of one device share a
camera and a scene, hence they are not independent of each other; the resampling unit is therefore
the device everywhere, also where the statistic counts samples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE_LEVEL = 0.95
NUM_RESAMPLES = 1_999
WILCOXON = "Wilcoxon signed-rank over devices"
MCNEMAR = "McNemar exact over samples"
BOOTSTRAP_ONLY = "bootstrap over devices, no test"

# A resampled batch holds about this many values: 16 MB of float64, whatever the number of devices.
_BATCH_VALUES = 2_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A confidence interval of level `CONFIDENCE_LEVEL`."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """Personalized minus static, as fractions: +0.05 is five points.

    `interval` is None with fewer than two devices, `p_value` where `test` tests nothing.
    """

    difference: float
    interval: Interval | None
    p_value: float | None
    test: str

    @property
    def is_significant(self) -> bool:
        """Whether the test rejects "no difference" and the interval agrees."""
        if self.interval is None or self.p_value is None:
            return False
        return self.interval.excludes_zero and self.p_value < 1 - CONFIDENCE_LEVEL


def wilcoxon_p_value(differences: np.ndarray) -> float | None:
    """Two-sided p-value of the Wilcoxon signed-rank test; None with fewer than two pairs.

    Pairs without a difference are left out, as Wilcoxon did; if no pair differs, p is 1.
    """
    if len(differences) < 2:
        return None
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="wilcox").pvalue)


def mcnemar_p_value(num_gained: int, num_lost: int) -> float:
    """Exact two-sided McNemar p-value from the samples on which exactly one head is right."""
    if num_gained + num_lost == 0:
        return 1.0
    return float(stats.binomtest(num_gained, num_gained + num_lost, 0.5).pvalue)


def bootstrap_interval(
    data: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], rng: np.random.Generator
) -> Interval | None:
    """Percentile bootstrap over devices: the arrays of `data` (one value a device) are resampled together.

    The percentile method, not BCa: BCa is undefined where no device differs, and at hundreds of
    devices the two agree.

    Returns:
        The interval, or None with fewer than two devices.
    """
    num_devices = len(data[0])
    if num_devices < 2:
        return None
    result = stats.bootstrap(
        data,
        statistic,
        paired=len(data) > 1,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        batch=max(1, _BATCH_VALUES // num_devices),
        confidence_level=CONFIDENCE_LEVEL,
        method="percentile",
        rng=rng,
    )
    low, high = (float(end) for end in result.confidence_interval)
    return Interval(low=low, high=high)


def compare_mean(static: np.ndarray, personalized: np.ndarray, rng: np.random.Generator) -> PairedDifference:
    """Compare the mean over devices of two accuracies (one value a device)."""
    differences = personalized - static
    return PairedDifference(
        difference=float(differences.mean()),
        interval=bootstrap_interval((differences,), np.mean, rng),
        p_value=wilcoxon_p_value(differences),
        test=WILCOXON,
    )


def compare_percentile(
    static: np.ndarray, personalized: np.ndarray, percent: float, rng: np.random.Generator
) -> PairedDifference:
    """Compare a percentile over devices of two accuracies (one value a device)."""

    def difference(low: np.ndarray, high: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(np.percentile(high, percent, axis=axis) - np.percentile(low, percent, axis=axis))

    return PairedDifference(
        difference=float(difference(static, personalized)),
        interval=bootstrap_interval((static, personalized), difference, rng),
        p_value=None,
        test=BOOTSTRAP_ONLY,
    )


def compare_samples(
    num_gained: np.ndarray, num_lost: np.ndarray, num_samples: np.ndarray, rng: np.random.Generator
) -> PairedDifference | None:
    """Compare accuracy over samples, from counts a device.

    Args:
        num_gained: samples of each device that only the personalized head answers right.
        num_lost: samples of each device that only the static head answers right.
        num_samples: samples of each device that count.
        rng: draws the bootstrap resamples.

    Returns:
        The difference, or None where no sample counts.
    """
    if num_samples.sum() == 0:
        return None

    def difference(gain: np.ndarray, size: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(gain.sum(axis=axis) / size.sum(axis=axis))

    # A device without a counting sample has no part in the ratio, and a resample of such devices no value.
    counting = num_samples > 0
    gain, num_samples = (num_gained - num_lost)[counting], num_samples[counting]
    return PairedDifference(
        difference=float(gain.sum() / num_samples.sum()),
        interval=bootstrap_interval((gain, num_samples), difference, rng),
        p_value=mcnemar_p_value(int(num_gained.sum()), int(num_lost.sum())),
        test=MCNEMAR,
    )
