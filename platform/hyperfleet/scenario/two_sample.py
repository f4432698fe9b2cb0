"""Whether features have moved: a two-sample test that asks for no law and few samples.

Features of a device differ from question to question more than from device to device, so that the change
of a device is small against the spread, and 8 to 32 features stand against 192 dimensions. The statistic is
that of kernel Fisher discriminant analysis (Harchaoui, Bach and Moulines, "Testing for homogeneity with
kernel Fisher discriminant analysis", NIPS 2007): the distance of the two means, measured against the spread
in each direction. Its p-value comes from permutations (Phipson and Smyth, "Permutation p-values should never
be zero", 2010), so that the rate of false alarms holds for any law of the features.

`scipy.stats.permutation_test` does the same with any statistic and is the oracle of the tests. Each of its
calls takes several milliseconds, most of them to draw permutations; here they are drawn once.
"""

from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float32

from hyperfleet.errors import ConfigError, FeatureError
from hyperfleet.seeding import numpy_generator

NUM_PERMUTATIONS = 999

# Directions whose spread is below this part of the mean one count as noise: they are not blown up to it.
_RIDGE = 0.1
# Squared width of the kernel over the mean squared distance. Wide, so that a shift of the mean is found as by
# a linear kernel, yet curved enough that a change of spread or of the mixture of questions is found as well.
_WIDTH = 4.0


def can_drift(num_reference: int, num_recent: int, p_value: float) -> bool:
    """Return whether so few features can show a drift at `p_value` at all, however far apart they lie.

    There are only so many ways to part them in two, and exchanging two equal halves changes nothing.

    Raises:
        ConfigError: a p-value that no 999 permutations reach, or that is none.
    """
    if not 1 / (NUM_PERMUTATIONS + 1) <= p_value < 1:
        raise ConfigError(
            f"p_value must lie between {1 / (NUM_PERMUTATIONS + 1)} and 1, got {p_value}: "
            f"{NUM_PERMUTATIONS} permutations show no smaller one"
        )
    if not (num_reference and num_recent):
        return False
    num_alike = 2 if num_reference == num_recent else 1
    return num_alike / comb(num_reference + num_recent, num_recent) <= p_value


def has_drifted(
    reference: Float32[np.ndarray, "reference 192"], recent: Float32[np.ndarray, "recent 192"], p_value: float
) -> bool:
    """Return whether `recent` features come from another distribution than those of `reference`.

    Too few features to tell, see `can_drift`, are no drift. The same features give the same answer.

    Args:
        reference: features from when the device was last personalized.
        recent: its newest features.
        p_value: rate of false alarms among tests of features that did not move; at least 0.001.

    Raises:
        ConfigError: a p-value out of range.
        FeatureError: features that are not finite.
    """
    return can_drift(len(reference), len(recent), p_value) and drift_p_value(reference, recent) <= p_value


def drift_p_value(
    reference: Float32[np.ndarray, "reference 192"], recent: Float32[np.ndarray, "recent 192"]
) -> float:
    """Return how often features of one distribution, parted at random, lie as far apart as these.

    Raises:
        FeatureError: features that are not finite.
    """
    kernel = _discriminant(np.concatenate([reference, recent]))
    parts = _parts(len(reference), len(recent))
    # The distance of two means that are centred together depends on the sum over one part alone.
    # A few at a time: BLAS shares larger products among threads, which wait for each other ten times longer
    # than they compute as soon as other processes want the cores, and round as their number wants.
    some = max(1, 250_000 // kernel.size)
    chunks = (parts[start : start + some] for start in range(0, len(parts), some))
    distance = np.concatenate([np.einsum("pi,pi->p", chunk @ kernel, chunk) for chunk in chunks])
    # Partings that amount to the observed one must not fall below it by rounding.
    return float(np.mean(distance >= distance[0] - 1e-5 * abs(distance[0])))


def _discriminant(features: Float32[np.ndarray, "n 192"]) -> Float32[np.ndarray, "n n"]:
    """K (K + ridge)^-1 of the centred Gaussian kernel K: products of features, alike in all directions."""
    centred = features - features.mean(axis=0)
    # In three products, one after the other: small ones stay in this thread, see `drift_p_value`.
    thirds = centred.reshape(len(centred), 3, 64).transpose(1, 0, 2)
    products = np.matmul(thirds, thirds.transpose(0, 2, 1).copy()).sum(axis=0)
    square = products.diagonal()
    scale = 2 * float(square.mean())
    if not np.isfinite(scale):
        raise FeatureError("features to be compared hold NaN or infinite values, expected finite ones")
    if scale <= 0:
        return np.zeros_like(products)
    distance = square[:, None] + square - 2 * products
    kernel = np.exp(distance * np.float32(-1 / (_WIDTH * scale)))
    kernel -= kernel.mean(axis=0)
    kernel -= kernel.mean(axis=1, keepdims=True)
    spread = kernel.copy()
    spread.flat[:: len(spread) + 1] += np.float32(_RIDGE * max(float(kernel.trace()) / len(kernel), 1e-12))
    return np.linalg.solve(spread, kernel)


@lru_cache(maxsize=64)
def _parts(num_reference: int, num_recent: int) -> Float32[np.ndarray, "part n"]:
    """1 for the features of one part, 0 for those of the other: the observed parts, then random ones."""
    n = num_reference + num_recent
    if comb(n, num_reference) <= NUM_PERMUTATIONS:
        # All of them, so that the p-value is exact where it can take few values.
        parts = np.zeros((comb(n, num_reference), n), np.float32)
        np.put_along_axis(parts, np.array(list(combinations(range(n), num_reference))), 1, axis=1)
        return parts
    rng = numpy_generator(0, "drift-test", num_reference, num_recent)
    rank = rng.permuted(np.tile(np.arange(n), (NUM_PERMUTATIONS, 1)), axis=1)
    return (np.concatenate([np.arange(n)[None], rank]) < num_reference).astype(np.float32)
