"""Assignment of videos to devices: device_map.csv and devices.json."""

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from hyperfleet.errors import DataError

StreamSplit = Literal["history", "realtime"]
COLUMNS = ("client_id", "sample_path", "label_name", "label_id", "split", "t", "seen")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSample:
    """One line of device_map.csv, whose first four columns are those of FedScale.

    `t` in 0..1 is the position on the device's timeline, which ends with real time. `seen` is False for a
    device without history.
    """

    client_id: int
    sample_path: str
    label_name: str
    label_id: int
    split: StreamSplit
    t: float
    seen: bool

    @property
    def video_id(self) -> str:
        """Name of the video without folder and suffix."""
        return Path(self.sample_path).stem


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DeviceMap:
    """All samples with their devices, and the properties of each device.

    `device_id` (n,) is sorted and unique; `seen` (n,) and `family` (kinds of cameras) have the same order.
    """

    samples: tuple[DeviceSample, ...]
    device_id: np.ndarray
    seen: np.ndarray
    family: tuple[str, ...]
    device_of_video: dict[str, int]

    @classmethod
    def from_samples(cls, samples: Iterable[DeviceSample], family: dict[int, str]) -> "DeviceMap":
        """Build the map; `family` gives each device's kind of camera ("" if unknown).

        Raises:
            DataError: a video belongs to two devices, or a device is both seen and held out.
        """
        rows = tuple(samples)
        owner: dict[str, int] = {}
        seen: dict[int, bool] = {}
        for row in rows:
            if owner.setdefault(row.video_id, row.client_id) != row.client_id:
                raise DataError(
                    f"{row.video_id!r} belongs to devices {owner[row.video_id]} and {row.client_id}; "
                    "give each video to one device, or another would know its frames"
                )
            if seen.setdefault(row.client_id, row.seen) != row.seen:
                raise DataError(
                    f"device {row.client_id} is marked both seen and held out; expected one of them"
                )
        device_id = np.array(sorted(seen), np.int32)
        return cls(
            samples=rows,
            device_id=device_id,
            seen=np.array([seen[device] for device in device_id.tolist()], bool),
            family=tuple(family.get(device, "") for device in device_id.tolist()),
            device_of_video=owner,
        )

    @classmethod
    def read(cls, root: Path) -> "DeviceMap":
        """Read `root`/device_map.csv and, if present, `root`/devices.json.

        Raises:
            DataError: the file or a column is missing, or a value has a wrong type; names file and line.
        """
        path = root / "device_map.csv"
        if not path.is_file():
            raise DataError(
                f"no device map at {path}; `hyperfleet data render` writes one for FleetQA, `hyperfleet data "
                f"prepare` for public data sets; others need a file with the columns {', '.join(COLUMNS)}"
            )
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path} lacks the columns {', '.join(sorted(missing))}; expected {', '.join(COLUMNS)}"
                )
            samples = [_to_sample(path, number, line) for number, line in enumerate(reader, 2)]
        return cls.from_samples(samples, _read_families(root / "devices.json"))

    def write(self, root: Path, devices: list[dict[str, Any]]) -> None:
        """Write device_map.csv, and devices.json with one record per device (`device_id`, `family`, ...)."""
        with (root / "device_map.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({**asdict(sample), "seen": str(sample.seen).lower()} for sample in self.samples)
        (root / "devices.json").write_text(json.dumps(devices), encoding="utf-8")


def _to_sample(path: Path, number: int, line: dict[str, str]) -> DeviceSample:
    try:
        split = line["split"]
        if split not in get_args(StreamSplit):
            raise ValueError(f"split must be one of {', '.join(get_args(StreamSplit))}, got {split!r}")
        seen = {"true": True, "false": False}.get(line["seen"].lower())
        if seen is None:
            raise ValueError(f"seen must be true or false, got {line['seen']!r}")
        return DeviceSample(
            client_id=int(line["client_id"]),
            sample_path=line["sample_path"],
            label_name=line["label_name"],
            label_id=int(line["label_id"]),
            split="history" if split == "history" else "realtime",
            t=float(line["t"]),
            seen=seen,
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} line {number}: {error}; expected the columns {', '.join(COLUMNS)}"
        ) from error


def _read_families(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return {int(record["device_id"]): str(record["family"]) for record in records}
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {error!r}; expected a list of records with device_id and family") from error
