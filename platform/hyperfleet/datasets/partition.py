"""Partition of a public data set's videos over devices with label skew.

Videos are divided, not questions: two devices must never know frames of the same clip.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hyperfleet.errors import ConfigError
from hyperfleet.seeding import numpy_generator

HELD_OUT_SHARE = 0.2


def num_held_out(num_devices: int) -> int:
    """Return the number of devices without history: a fifth, those with the highest numbers."""
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
    """Return the devices of the history videos and of the live videos.

    The devices' shares of each category are drawn from a symmetric Dirichlet distribution (label skew as in
    Hsu et al. 2019, https://arxiv.org/abs/1909.06335; a small `alpha` gives strong skew). History and live
    videos of a device have the same skew; held-out devices have live videos only. A device without a video
    gets one from the device with the most.

    Raises:
        ConfigError: there are fewer videos than devices, or `alpha` is not above 0.
    """
    num_seen = num_devices - num_held_out(num_devices)
    if num_devices < 1 or num_seen > len(history) or num_devices > len(live):
        raise ConfigError(
            f"{num_devices} devices ({num_seen} of them with a history) share {len(history)} history and "
            f"{len(live)} live videos; expected at least 1 device, and a video of each kind per device: "
            "lower num_devices"
        )
    if not alpha > 0:
        raise ConfigError(f"alpha must be > 0, got {alpha}; 0.5 is usual, large values give equal devices")
    kinds = sorted({category[video] for video in (*history, *live)})
    rng = numpy_generator(seed, "partition")
    taste = {kind: rng.dirichlet(np.full(num_devices, alpha)) for kind in kinds}
    # A small constant keeps the draw possible if held-out devices have a whole category.
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
