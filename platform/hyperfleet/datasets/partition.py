"""Spreading the videos of a public data set over devices that each have a taste.

Videos are divided, never questions: frames of one clip must not be known to two devices.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hyperfleet.errors import ConfigError
from hyperfleet.seeding import numpy_generator

HELD_OUT_SHARE = 0.2


def num_held_out(num_devices: int) -> int:
    """Number of devices without history: a fifth; they have the highest numbers."""
    return round(HELD_OUT_SHARE * num_devices)


def partition_videos(
    history: Sequence[str],
    live: Sequence[str],
    category: Mapping[str, int],
    *,
    num_devices: int,
    alpha: float,
    seed: int,
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the devices of history and of live videos.

    For each category the devices' shares are drawn from a symmetric Dirichlet distribution (label skew
    as in Hsu et al. 2019, https://arxiv.org/abs/1909.06335; a small `alpha` gives strong tastes). A
    device has one taste for its history and its live videos; held-out devices have live videos alone.
    Whoever would get none is given one of the device that has most.

    Raises:
        ConfigError: fewer videos than devices, or `alpha` is not above 0.
    """
    num_seen = num_devices - num_held_out(num_devices)
    if num_devices < 1 or num_seen > len(history) or num_devices > len(live):
        raise ConfigError(
            f"{num_devices} devices ({num_seen} of them with a history) share {len(history)} history and "
            f"{len(live)} live videos; expected 1 device or more, and a video of each kind for every one: "
            "lower num_devices"
        )
    if not alpha > 0:
        raise ConfigError(f"alpha must be > 0, got {alpha}; 0.5 is usual, large values give equal devices")
    kinds = sorted({category[video] for video in (*history, *live)})
    rng = numpy_generator(seed, "partition")
    taste = {kind: rng.dirichlet(np.full(num_devices, alpha)) for kind in kinds}
    # Adding a trace to each keeps a draw possible where all of a taste lies on held-out devices.
    seen_taste = {kind: share[:num_seen] + 1e-12 for kind, share in taste.items()}
    return (
        _assign(history, category, seen_taste, rng),
        _assign(live, category, taste, rng),
    )


def _assign(
    videos: Sequence[str], category: Mapping[str, int], taste: dict[int, np.ndarray], rng: np.random.Generator
) -> dict[str, int]:
    num_devices = len(next(iter(taste.values())))
    owner = np.empty(len(videos), np.int64)
    kinds = np.array([category[video] for video in videos])
    for kind, share in taste.items():
        rows = np.flatnonzero(kinds == kind)
        owner[rows] = rng.choice(num_devices, size=len(rows), p=share / share.sum())
    counts = np.bincount(owner, minlength=num_devices)
    for device in np.flatnonzero(counts == 0).tolist():
        richest = int(counts.argmax())
        row = int(np.flatnonzero(owner == richest)[-1])
        owner[row] = device
        counts[richest] -= 1
        counts[device] += 1
    return dict(zip(videos, owner.tolist(), strict=True))
