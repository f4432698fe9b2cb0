"""Accuracy of a fleet run: static against personalized heads on the same live samples.

Devices are averaged, not samples, so that a busy device counts no more than a quiet one; the
accuracy over samples stands beside it. An answer outside the vocabulary counts as wrong; the
customary number that leaves such samples out (All-in-One's) is given apart, under its own name.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from hyperfleet.errors import DataError, EmptyStreamError
from hyperfleet.evaluation.latency import PARTS, LatencySplit, latency_splits
from hyperfleet.evaluation.paired import (
    PairedDifference,
    compare_mean,
    compare_percentile,
    compare_samples,
)
from hyperfleet.seeding import numpy_generator

OUT_OF_VOCABULARY = -1
LOW_PERCENTILE = 10.0
EVENT_COLUMNS = (
    "device_id",
    "example_id",
    "network",
    "model_version",
    "answer",
    "static_answer",
    "uplink_bytes",
    "downlink_bytes",
    *(f"{part}_s" for part in PARTS),
    "fallback",
)
NO_REPORT = "no report"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AnswerKey:
    """The right answers, which only scorers see.

    `example_id` (n,) is unique; `label` (n,) is the class, or -1 for an answer outside the vocabulary.

    Raises:
        DataError: lengths differ, or an id occurs twice.
    """

    example_id: np.ndarray
    label: np.ndarray

    def __post_init__(self) -> None:
        _check_unique("answer key", "example_id", self.example_id, self.label)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Roster:
    """The devices that took part.

    `device_id` (n,) is unique; `seen` (n,) is False for a device that gave nothing to training.

    Raises:
        DataError: lengths differ, or an id occurs twice.
    """

    device_id: np.ndarray
    seen: np.ndarray

    def __post_init__(self) -> None:
        _check_unique("roster", "device_id", self.device_id, self.seen)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DeviceScores:
    """One value a device, sorted by `device_id`; every device has at least one sample."""

    device_id: np.ndarray
    seen: np.ndarray
    num_samples: np.ndarray
    num_in_vocabulary: np.ndarray
    num_static_correct: np.ndarray
    num_personalized_correct: np.ndarray
    num_gained: np.ndarray
    num_lost: np.ndarray

    @property
    def static_accuracy(self) -> np.ndarray:
        """Share of right answers of the static head, a device."""
        return np.asarray(self.num_static_correct / self.num_samples)

    @property
    def personalized_accuracy(self) -> np.ndarray:
        """Share of right answers of the personalized head, a device."""
        return np.asarray(self.num_personalized_correct / self.num_samples)

    def where(self, mask: np.ndarray) -> "DeviceScores":
        """Keep the devices that `mask` (n,) marks."""
        return DeviceScores(**{name: getattr(self, name)[mask] for name in self.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Accuracy of one head over one group of devices, as fractions.

    `in_vocabulary` is over samples with the out-of-vocabulary ones left out of the denominator, as
    All-in-One counts; None where no sample is left.
    """

    device_mean: float
    device_p10: float
    sample: float
    in_vocabulary: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupScore:
    """Both heads over one group of devices, and their paired differences."""

    num_devices: int
    num_samples: int
    num_in_vocabulary: int
    static: Accuracy
    personalized: Accuracy
    device_mean: PairedDifference
    device_p10: PairedDifference
    sample: PairedDifference
    in_vocabulary: PairedDifference | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FleetScore:
    """What a fleet run brought.

    `seen` and `held_out` are None where the run had no such device. `fallbacks` counts, by reason,
    the samples that the device answered with its own static head because no personalized head arrived;
    they stay in the personalized accuracy, for that is what the device showed. `skipped` names the
    devices without a single sample, with the reason.
    """

    devices: DeviceScores
    overall: GroupScore
    seen: GroupScore | None
    held_out: GroupScore | None
    fallbacks: Mapping[str, int]
    skipped: Mapping[int, str]
    model_versions: tuple[str, ...]
    latency: tuple[LatencySplit, ...]

    @property
    def num_fallbacks(self) -> int:
        """Samples that a device's own static head answered in place of a personalized one."""
        return sum(self.fallbacks.values())

    def as_metrics(self) -> dict[str, float]:
        """Flatten to names and numbers for an experiment tracker."""
        metrics = {
            "fleet/devices": float(self.overall.num_devices),
            "fleet/samples": float(self.overall.num_samples),
            "fleet/fallbacks": float(self.num_fallbacks),
            "fleet/skipped_devices": float(len(self.skipped)),
        }
        for name, group in (("all", self.overall), ("seen", self.seen), ("held_out", self.held_out)):
            if group is None:
                continue
            for head, accuracy in (("static", group.static), ("personalized", group.personalized)):
                metrics[f"accuracy/{name}/{head}/device_mean"] = accuracy.device_mean
                metrics[f"accuracy/{name}/{head}/device_p10"] = accuracy.device_p10
                metrics[f"accuracy/{name}/{head}/sample"] = accuracy.sample
            metrics[f"accuracy/{name}/difference"] = group.device_mean.difference
            if group.device_mean.p_value is not None:
                metrics[f"accuracy/{name}/p_value"] = group.device_mean.p_value
        for split in self.latency[:1]:
            for part, quantiles in split.parts.items():
                metrics[f"latency/{part}_p50_s"] = quantiles.p50_s
                metrics[f"latency/{part}_p99_s"] = quantiles.p99_s
        return metrics


def score(
    events: pa.Table,
    key: AnswerKey,
    roster: Roster,
    *,
    skipped: Mapping[int, str] | None = None,
    bootstrap_seed: int = 0,
) -> FleetScore:
    """Score the events of a fleet run.

    Args:
        events: one row a `hyperfleet.messages.DeviceReport`, with at least `EVENT_COLUMNS`.
        key: the right answers; it may hold more examples than the run asked.
        roster: the devices of this run, and whether training saw them.
        skipped: devices that could not take part, with the reason. A device of the roster without
            an event and without a reason is listed as "no report".
        bootstrap_seed: seed of the bootstrap resamples.

    Raises:
        DataError: columns are missing or hold nulls, an example was answered twice or is not in the
            key, a device is not in the roster, or a latency is impossible.
        EmptyStreamError: there is no event at all.
    """
    _check_events(events)
    devices = _device_scores(events, key, roster)
    groups = {
        name: _group_score(devices.where(mask), numpy_generator(bootstrap_seed, "bootstrap", name))
        for name, mask in (
            ("overall", np.ones(len(devices.seen), dtype=bool)),
            ("seen", devices.seen),
            ("held_out", ~devices.seen),
        )
        if mask.any()
    }
    silent = np.setdiff1d(roster.device_id, devices.device_id).tolist()
    reasons = _texts(events, "fallback")
    return FleetScore(
        devices=devices,
        overall=groups["overall"],
        seen=groups.get("seen"),
        held_out=groups.get("held_out"),
        fallbacks=dict(Counter(reasons[reasons != ""].tolist()).most_common()),
        skipped=dict.fromkeys(silent, NO_REPORT) | dict(skipped or {}),
        model_versions=tuple(sorted(set(_texts(events, "model_version").tolist()) - {""})),
        latency=latency_splits(events),
    )


def _device_scores(events: pa.Table, key: AnswerKey, roster: Roster) -> DeviceScores:
    label = _look_up("example", _numbers(events, "example_id"), key.example_id, key.label)
    static_answer = _numbers(events, "static_answer")
    # Also where no head arrived: the device then answered with the static head it has, and that counts.
    answer = _numbers(events, "answer")
    in_vocabulary = label != OUT_OF_VOCABULARY
    static = (static_answer == label) & in_vocabulary
    personalized = (answer == label) & in_vocabulary

    device_id, row_device = np.unique(_numbers(events, "device_id"), return_inverse=True)
    num_devices = len(device_id)

    def count(mask: np.ndarray) -> np.ndarray:
        return np.bincount(row_device[mask], minlength=num_devices)

    return DeviceScores(
        device_id=device_id,
        seen=_look_up("device", device_id, roster.device_id, roster.seen).astype(bool),
        num_samples=np.bincount(row_device, minlength=num_devices),
        num_in_vocabulary=count(in_vocabulary),
        num_static_correct=count(static),
        num_personalized_correct=count(personalized),
        num_gained=count(personalized & ~static),
        num_lost=count(static & ~personalized),
    )


def _group_score(devices: DeviceScores, rng: np.random.Generator) -> GroupScore:
    static, personalized = devices.static_accuracy, devices.personalized_accuracy
    sample = compare_samples(devices.num_gained, devices.num_lost, devices.num_samples, rng)
    assert sample is not None, "every device of a score has a sample"
    return GroupScore(
        num_devices=len(devices.device_id),
        num_samples=int(devices.num_samples.sum()),
        num_in_vocabulary=int(devices.num_in_vocabulary.sum()),
        static=_accuracy(static, devices.num_static_correct, devices),
        personalized=_accuracy(personalized, devices.num_personalized_correct, devices),
        device_mean=compare_mean(static, personalized, rng),
        device_p10=compare_percentile(static, personalized, LOW_PERCENTILE, rng),
        sample=sample,
        in_vocabulary=compare_samples(devices.num_gained, devices.num_lost, devices.num_in_vocabulary, rng),
    )


def _accuracy(by_device: np.ndarray, num_correct: np.ndarray, devices: DeviceScores) -> Accuracy:
    num_in_vocabulary = int(devices.num_in_vocabulary.sum())
    total = int(num_correct.sum())
    return Accuracy(
        device_mean=float(by_device.mean()),
        device_p10=float(np.percentile(by_device, LOW_PERCENTILE)),
        sample=total / int(devices.num_samples.sum()),
        in_vocabulary=total / num_in_vocabulary if num_in_vocabulary else None,
    )


def _numbers(events: pa.Table, column: str) -> np.ndarray:
    return np.asarray(events[column].to_numpy())


def _texts(events: pa.Table, column: str) -> np.ndarray:
    """A text column as objects; it may be dictionary-encoded, and a null is the empty text."""
    texts = events[column].cast(pa.string()).fill_null("")
    return np.asarray(texts.to_numpy(zero_copy_only=False), dtype=object)


def _look_up(what: str, wanted: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the value of each wanted id."""
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
    found = ids[order[place]] == wanted if len(ids) else np.zeros(len(wanted), dtype=bool)
    if not found.all():
        missing = np.unique(wanted[~found])
        raise DataError(
            f"{len(missing)} {what} ids of the events are unknown, first {missing[:3].tolist()}; "
            f"score a run with the data set it ran on ({len(ids)} {what} ids known)"
        )
    return np.asarray(values[order[place]])


def _check_unique(where: str, name: str, ids: np.ndarray, values: np.ndarray) -> None:
    if ids.shape != values.shape or ids.ndim != 1:
        raise DataError(f"{where}: one value a {name} expected, got shapes {values.shape} and {ids.shape}")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        twice = unique[counts > 1][:3].tolist()
        raise DataError(f"{where}: {name} must be unique, got {twice} more than once")


def _check_events(events: pa.Table) -> None:
    missing = [name for name in EVENT_COLUMNS if name not in events.column_names]
    if missing:
        raise DataError(
            f"events lack the columns {missing}; expected those of DeviceReport, got {events.column_names}"
        )
    if events.num_rows == 0:
        raise EmptyStreamError("no event to score: no device reported; the log of the fleet says why")
    nullable = ("fallback", *(f"{part}_s" for part in PARTS))
    holes = [name for name in EVENT_COLUMNS if name not in nullable and events[name].null_count]
    if holes:
        raise DataError(f"events hold nulls in {holes}; every report carries a value there")
    ids, counts = np.unique(_numbers(events, "example_id"), return_counts=True)
    if len(ids) != events.num_rows:
        raise DataError(
            f"{events.num_rows} events answer {len(ids)} examples; each must be answered once, got "
            f"{ids[counts > 1][:3].tolist()} more than once. Score one run at a time"
        )
