"""Random generators derived from a root seed and the name of a draw.

Draws with different names are independent. The same name gives the same draw on any machine, in any order
and in any process, so a fleet is repeatable however its devices are spread over hosts.
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
    """Return 64-bit draw number `index` of the stream `key`, which may itself be a draw.

    SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) by
    index. Building a NumPy generator takes 20 microseconds, more than the rest of an emulated message.
    """
    z = (key + (index + 1) * _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def uniform(seed: int, stream: int, device: int, number: int) -> float:
    """Return the draw in [0, 1) of a stream, a device and a number; cheap enough for each message."""
    return (draw64(draw64(draw64(seed, stream), device), number) >> 11) * 2.0**-53
