"""Plan of all clips before drawing: device, time and split of each."""

from dataclasses import dataclass
from typing import Literal

from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.seeding import numpy_generator

Split = Literal["train", "val", "test"]

# The last fifth of a device's timeline is real time; the part before it is the history in the cloud.
HISTORY_END = 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPlan:
    """One clip to film; `t` in 0..1 is its position on the device's timeline."""

    video_number: int
    device_id: int
    split: Split
    t: float
    seen: bool

    @property
    def video_id(self) -> str:
        """Name of the video without suffix, as in MSRVTT-QA."""
        return f"video{self.video_number}"


def plan_clips(config: FleetQAConfig) -> tuple[ClipPlan, ...]:
    """Plan every clip of the data set, numbered as in MSRVTT-QA: train first, then val, then test.

    A device's history clips go to train and val, its live clips to test; held-out devices have live
    clips only.
    """
    history = [
        (device_id, HISTORY_END * (clip + 0.5) / config.history_clips)
        for device_id in range(config.num_seen_devices)
        for clip in range(config.history_clips)
    ]
    live = [
        (device_id, HISTORY_END + (1 - HISTORY_END) * (clip + 0.5) / config.live_clips)
        for device_id in range(config.num_devices)
        for clip in range(config.live_clips)
    ]
    chosen = numpy_generator(config.seed, "val").choice(len(history), config.num_val_clips, replace=False)
    in_val = set(chosen.tolist())
    splits: tuple[tuple[Split, list[tuple[int, float]]], ...] = (
        ("train", [clip for index, clip in enumerate(history) if index not in in_val]),
        ("val", [clip for index, clip in enumerate(history) if index in in_val]),
        ("test", live),
    )
    plans: list[ClipPlan] = []
    for split, clips in splits:
        for device_id, t in clips:
            seen = device_id < config.num_seen_devices
            plans.append(
                ClipPlan(video_number=len(plans), device_id=device_id, split=split, t=round(t, 4), seen=seen)
            )
    return tuple(plans)
