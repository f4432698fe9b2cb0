"""Example pictures of each camera family, for reports."""

from pathlib import Path

import numpy as np

from hyperfleet.datasets.clip_store import ClipStore
from hyperfleet.datasets.corpus import STORE_FILE
from hyperfleet.datasets.device_map import DeviceMap


def example_frames(root: Path, per_family: int = 3) -> dict[str, list[np.ndarray]]:
    """Return pictures (side, side, 3) uint8 RGB of each camera family, each from another device.

    They are the middle frames of the first clips of the family's first devices.

    Raises:
        DataError: the device map or the clip store is missing or broken.
    """
    device_map = DeviceMap.read(root)
    store = ClipStore(root / STORE_FILE)
    family_of = dict(zip(device_map.device_id.tolist(), device_map.family, strict=True))
    first_clip: dict[int, str] = {}
    for sample in device_map.samples:
        if sample.video_id in store:
            first_clip.setdefault(sample.client_id, sample.video_id)
    examples: dict[str, list[np.ndarray]] = {family: [] for family in sorted(set(device_map.family))}
    for device_id in sorted(first_clip):
        found = examples[family_of[device_id]]
        if len(found) < per_family:
            row = np.array([store.row(first_clip[device_id])])
            found.append(store.frames(row, np.array([[store.num_stored_frames // 2]]))[0, 0])
    return examples
