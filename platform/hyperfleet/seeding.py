"""Random generators derived from one root seed and the name of what is drawn.

Two draws with different names are independent; the same name gives the same draw on any
machine, in any order and in any process, which is what makes a fleet repeatable however
its devices are spread over hosts.
"""

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _entropy(root_seed: int, stream: tuple[int | str, ...]) -> list[int]:
    return [root_seed, *(zlib.crc32(part.encode()) if isinstance(part, str) else part for part in stream)]


def numpy_generator(root_seed: int, *stream: int | str) -> np.random.Generator:
    """Return the NumPy generator of `stream`, e.g. `numpy_generator(0, "camera", device_id)`."""
    return np.random.default_rng(_entropy(root_seed, stream))


def torch_generator(root_seed: int, *stream: int | str) -> "torch.Generator":
    """Return the (CPU) torch generator of `stream`."""
    import torch  # not above: scenarios are drawn without it

    seed = np.random.SeedSequence(_entropy(root_seed, stream)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed) & 0x7FFF_FFFF_FFFF_FFFF)


def draw64(key: int, index: int) -> int:
    """Return the 64-bit draw number `index` of the stream `key`, which may itself be a draw.

    The SplitMix64 generator (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA
    2014), reached by index: a generator of NumPy takes 20 microseconds to make, more than all else that a
    message of an emulated device costs.
    """
    z = (key + (index + 1) * _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
