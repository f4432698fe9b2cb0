"""Two-sample test for drifted features, distribution-free and for small samples.

Features differ more between questions than between devices, so the drift of a device is small against the
spread, and only 8 to 32 features of 192 dimensions are compared. The statistic is that of kernel Fisher
discriminant analysis (Harchaoui, Bach and Moulines, "Testing for homogeneity with kernel Fisher discriminant
analysis", NIPS 2007): the distance between the two means, relative to the spread in each direction. The
p-value comes from permutations (Phipson and Smyth, "Permutation p-values should never be zero", 2010), so the
false alarm rate holds for any distribution.

`scipy.stats.permutation_test` with the same statistic is the oracle of the tests. It takes several
milliseconds per call, mostly to draw permutations; here they are drawn once.
"""

from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float32

from hyperfleet.errors import ConfigError, FeatureError
from hyperfleet.seeding import numpy_generator

NUM_PERMUTATIONS = 999

# Directions with a spread below this part of the mean spread count as noise and are not amplified.
_RIDGE = 0.1
# Squared width of the kernel over the mean squared distance. Wide enough to find a shift of the mean like a
# linear kernel, curved enough to find a change of spread or of the mixture of questions.
_WIDTH = 4.0


def can_drift(num_reference: int, num_recent: int, p_value: float) -> bool:
    """Return whether this many features can reach `p_value` at all.

    The smallest p-value is one over the number of splits; swapping two equal halves gives the same split.

    Raises:
        ConfigError: a p-value outside of [0.001, 1): 999 permutations reach no smaller one.
    """
    if not 1 / (NUM_PERMUTATIONS + 1) <= p_value < 1:
        raise ConfigError(
            f"p_value must be between {1 / (NUM_PERMUTATIONS + 1)} and 1, got {p_value}: "
            f"{NUM_PERMUTATIONS} permutations reach no smaller one"
        )
    if not (num_reference and num_recent):
        return False
    num_alike = 2 if num_reference == num_recent else 1
    return num_alike / comb(num_reference + num_recent, num_recent) <= p_value


def has_drifted(
    reference: Float32[np.ndarray, "reference 192"], recent: Float32[np.ndarray, "recent 192"], p_value: float
) -> bool:
    """Return whether `recent` features come from another distribution than `reference`.

    Deterministic. With too few features, see `can_drift`, the result is False.

    Args:
        reference: features around the device's last head.
        recent: its newest features.
        p_value: false alarm rate of the test, at least 0.001.

    Raises:
        ConfigError: a p-value out of range.
        FeatureError: features that are not finite.
    """
    return can_drift(len(reference), len(recent), p_value) and drift_p_value(reference, recent) <= p_value


def drift_p_value(
    reference: Float32[np.ndarray, "reference 192"], recent: Float32[np.ndarray, "recent 192"]
) -> float:
    """Return the share of splits whose means are at least as far apart as those of the observed split.

    Raises:
        FeatureError: features that are not finite.
    """
    kernel = _discriminant(np.concatenate([reference, recent]))
    parts = _parts(len(reference), len(recent))
    # With features centred together, the distance of the two means depends on the sum over one part alone.
    # Small chunks: BLAS splits larger products among threads, which on busy cores wait ten times longer than
    # they compute, and rounding would depend on the number of threads.
    some = max(1, 250_000 // kernel.size)
    chunks = (parts[start : start + some] for start in range(0, len(parts), some))
    distance = np.concatenate([np.einsum("pi,pi->p", chunk @ kernel, chunk) for chunk in chunks])
    # Rounding must not push a split that is equivalent to the observed one below it.
    return float(np.mean(distance >= distance[0] - 1e-5 * abs(distance[0])))


def _discriminant(features: Float32[np.ndarray, "n 192"]) -> Float32[np.ndarray, "n n"]:
    """K (K + ridge)^-1 of the centred Gaussian kernel K: products of whitened features."""
    centred = features - features.mean(axis=0)
    # Three small products stay in this thread, see `drift_p_value`.
    thirds = centred.reshape(len(centred), 3, 64).transpose(1, 0, 2)
    products = np.matmul(thirds, thirds.transpose(0, 2, 1).copy()).sum(axis=0)
    square = products.diagonal()
    scale = 2 * float(square.mean())
    if not np.isfinite(scale):
        raise FeatureError("features hold NaN or infinite values, expected finite ones")
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
    """Splits as rows of 1 (one part) and 0 (the other): the observed split, then random ones."""
    n = num_reference + num_recent
    if comb(n, num_reference) <= NUM_PERMUTATIONS:
        # All splits: an exact p-value where it has few possible values.
        parts = np.zeros((comb(n, num_reference), n), np.float32)
        np.put_along_axis(parts, np.array(list(combinations(range(n), num_reference))), 1, axis=1)
        return parts
    rng = numpy_generator(0, "drift-test", num_reference, num_recent)
    rank = rng.permuted(np.tile(np.arange(n), (NUM_PERMUTATIONS, 1)), axis=1)
    return (np.concatenate([np.arange(n)[None], rank]) < num_reference).astype(np.float32)
