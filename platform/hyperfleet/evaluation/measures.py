"""Measures of a fleet run that need no answer key: requests, latency, bytes, joules."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64

from hyperfleet.emulation.timeline import rows
from hyperfleet.errors import DataError, EmptyStreamError

# In the order in which a sample passes through them; they add up to its latency.
PARTS = ("encode", "uplink", "queue", "generate", "downlink", "apply")
TOTAL = "total"
ALL_SAMPLES = "all"
NUM_BINS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class PartLatency:
    """Quantiles and mean of a latency, in seconds."""

    p50_s: float
    p90_s: float
    p99_s: float
    mean_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyGroup:
    """Latency of a group of samples, from arrival to answer.

    `parts` maps each of `PARTS` and `TOTAL` to its quantiles. Means add up, quantiles do not: the sample that
    waits longest for the link is not the one that waits longest in the queue.
    """

    name: str
    num_samples: int
    parts: Mapping[str, PartLatency]


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestCounts:
    """Rows of the event log by kind.

    Attributes:
        sent: all tries.
        retried: tries that failed and were repeated.
        gave_up: samples for which the device stopped trying.
        battery_empty: devices whose battery ran out.
        never_answered: samples that arrived at a device with an empty battery.
    """

    sent: int
    delivered: int
    refused: int
    retried: int
    timed_out: int
    corrupt: int
    lost: int
    gave_up: int
    battery_empty: int
    never_answered: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Spending:
    """Bytes over the links and joules of the devices in a full run.

    Bytes that were sent again count again. Joules are those of radio and computing. `joules_per_fresh_head`
    is the mean over samples that a fresh head answered; None if there is no such sample.
    """

    num_samples: int
    uplink_bytes: int
    downlink_bytes: int
    joules: float
    joules_per_fresh_head: float | None

    @property
    def uplink_bytes_per_sample(self) -> float:
        """Bytes sent per sample."""
        return self.uplink_bytes / self.num_samples

    @property
    def downlink_bytes_per_sample(self) -> float:
        """Bytes received per sample."""
        return self.downlink_bytes / self.num_samples

    @property
    def bytes_per_sample(self) -> float:
        """Bytes in both directions per sample."""
        return (self.uplink_bytes + self.downlink_bytes) / self.num_samples

    @property
    def joules_per_sample(self) -> float:
        """Joules per sample."""
        return self.joules / self.num_samples


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OverTime:
    """A run in bins of equal width, in seconds since its start.

    Samples count in the bin of their arrival, requests and bytes in the bin of their event. Accuracies and
    latencies are NaN in a bin without samples.
    """

    edges_s: Float64[np.ndarray, " edge"]
    num_samples: Int64[np.ndarray, " bin"]
    accuracy: Float64[np.ndarray, " bin"]
    static_model_accuracy: Float64[np.ndarray, " bin"]
    static_head_accuracy: Float64[np.ndarray, " bin"]
    p50_s: Float64[np.ndarray, " bin"]
    p99_s: Float64[np.ndarray, " bin"]
    requests_per_s: Float64[np.ndarray, " bin"]
    uplink_bytes_per_s: Float64[np.ndarray, " bin"]
    downlink_bytes_per_s: Float64[np.ndarray, " bin"]


def check_tables(events: pa.Table, answers: pa.Table) -> None:
    """Refuse tables that are not the log of one run.

    Raises:
        DataError: columns are missing, a sample is answered twice or before it arrived.
        EmptyStreamError: no sample was answered.
    """
    for what, table, schema in (
        ("events", events, rows.EVENT_SCHEMA),
        ("answers", answers, rows.ANSWER_SCHEMA),
    ):
        missing = [name for name in schema.names if name not in table.column_names]
        if missing:
            raise DataError(
                f"the {what} of a run lack the columns {missing}, got {table.column_names}; read the folder "
                "that the run wrote"
            )
    if answers.num_rows == 0:
        raise EmptyStreamError(
            "no sample was answered, expected at least one; run the scenario for longer, or make samples "
            "arrive more often"
        )
    pairs = (
        answers.select(["device_id", "sample"])
        .group_by(["device_id", "sample"])
        .aggregate([([], "count_all")])
    )
    if pairs.num_rows != answers.num_rows:
        twice = pairs.filter(pc.greater(pairs["count_all"], 1)).slice(0, 3).to_pylist()
        raise DataError(
            f"{answers.num_rows} answers to {pairs.num_rows} samples, expected one each; answered more than "
            f"once, first of them: {[(each['device_id'], each['sample']) for each in twice]} "
            "(device_id, sample). Score one run at a time"
        )
    latency_s = numbers(answers, "answered_s") - numbers(answers, "sampled_s")
    num_bad = int((~(np.isfinite(latency_s) & (latency_s >= 0))).sum())
    if num_bad:
        raise DataError(
            f"{num_bad} of {answers.num_rows} answers are dated before their sample or have no valid time; "
            "expected answered_s >= sampled_s, both on the clock of the run"
        )


def numbers(table: pa.Table, column: str) -> np.ndarray:
    """Return a column of numbers."""
    return np.asarray(table[column].to_numpy())


def codes(table: pa.Table, column: str) -> tuple[Int64[np.ndarray, " row"], list[str]]:
    """Return a column of names as indices into the list of names that occur, and that list."""
    texts = table[column].cast(pa.string()).combine_chunks().dictionary_encode()
    return np.asarray(texts.indices.to_numpy()).astype(np.int64), texts.dictionary.to_pylist()


def is_name(table: pa.Table, column: str, name: str) -> Bool[np.ndarray, " row"]:
    """Return a mask of the rows whose column holds `name`."""
    equal = pc.equal(table[column].cast(pa.string()), name)
    return np.asarray(equal.to_numpy(zero_copy_only=False)).astype(bool)


def request_counts(events: pa.Table, num_answers: int) -> RequestCounts:
    """Count the outcomes of the requests."""
    code, names = codes(events, "kind")
    counts = dict(zip(names, np.bincount(code, minlength=len(names)).tolist(), strict=True))
    number = {name: counts.get(name, 0) for name in rows.KINDS}
    return RequestCounts(
        sent=number["sent"],
        delivered=number["delivered"],
        refused=number["refused"],
        retried=number["retry"],
        timed_out=number["timeout"],
        corrupt=number["corrupt"],
        lost=number["lost"],
        gave_up=number["gave-up"],
        battery_empty=number["battery-empty"],
        never_answered=max(number["sample"] - num_answers, 0),
    )


def spending(answers: pa.Table) -> Spending:
    """Add up bytes and joules over all samples."""
    joules = numbers(answers, "joules")
    fresh = is_name(answers, "head", rows.HEADS[rows.FRESH])
    return Spending(
        num_samples=answers.num_rows,
        uplink_bytes=int(numbers(answers, "uplink_bytes").sum()),
        downlink_bytes=int(numbers(answers, "downlink_bytes").sum()),
        joules=float(joules.sum()),
        joules_per_fresh_head=float(joules[fresh].mean()) if fresh.any() else None,
    )


def head_counts(answers: pa.Table) -> Mapping[str, int]:
    """Count the samples that each of `rows.HEADS` answered."""
    return {name: int(is_name(answers, "head", name).sum()) for name in rows.HEADS}


def fallback_counts(answers: pa.Table) -> Mapping[str, int]:
    """Count the samples that did not get the head they asked for, by reason, most frequent first."""
    code, names = codes(answers, "fallback")
    counts = Counter({names[i]: int(n) for i, n in enumerate(np.bincount(code, minlength=len(names)))})
    return {name: count for name, count in counts.most_common() if name}


def latency_groups(answers: pa.Table) -> tuple[LatencyGroup, ...]:
    """Summarise latency: of all samples, then by head, then by network."""
    parts_s = {part: numbers(answers, f"{part}_s") for part in PARTS}
    parts_s[TOTAL] = numbers(answers, "answered_s") - numbers(answers, "sampled_s")
    masks = {ALL_SAMPLES: np.ones(answers.num_rows, dtype=bool)}
    for column, order in (("head", rows.HEADS), ("network", None)):
        code, names = codes(answers, column)
        wanted: Sequence[str] = order if order is not None else sorted(names)
        masks |= {name: code == names.index(name) for name in wanted if name in names}
    return tuple(_group(name, mask, parts_s) for name, mask in masks.items() if mask.any())


def _group(name: str, mask: np.ndarray, parts_s: Mapping[str, np.ndarray]) -> LatencyGroup:
    parts = {}
    for part, seconds in parts_s.items():
        p50_s, p90_s, p99_s = np.percentile(seconds[mask], [50, 90, 99])
        parts[part] = PartLatency(
            p50_s=float(p50_s), p90_s=float(p90_s), p99_s=float(p99_s), mean_s=float(seconds[mask].mean())
        )
    return LatencyGroup(name=name, num_samples=int(mask.sum()), parts=parts)


def over_time(
    events: pa.Table,
    answers: pa.Table,
    correct: Mapping[str, Bool[np.ndarray, " row"]],
    num_bins: int = NUM_BINS,
) -> OverTime:
    """Divide a run into bins; `correct` maps each accuracy of `OverTime` to a mask of the right answers."""
    sampled_s, answered_s = numbers(answers, "sampled_s"), numbers(answers, "answered_s")
    event_s = numbers(events, "time_s")
    end_s = max(float(answered_s.max()), float(event_s.max(initial=0.0)))
    edges_s = np.linspace(0.0, end_s, num_bins + 1) if end_s else np.linspace(0.0, 1.0, num_bins + 1)
    width_s = float(edges_s[1])

    def place(seconds: np.ndarray) -> np.ndarray:
        return np.clip((seconds / width_s).astype(np.int64), 0, num_bins - 1)

    def per_s(mask: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        weights = None if weight is None else weight[mask]
        return np.bincount(place(event_s[mask]), weights=weights, minlength=num_bins) / width_s

    sample_bin, sent = place(sampled_s), is_name(events, "kind", rows.KINDS[rows.SENT])
    num_samples = np.bincount(sample_bin, minlength=num_bins)
    sizes = numbers(events, "num_bytes").astype(np.float64)
    p50_s, p99_s = _quantiles_by_bin(answered_s - sampled_s, sample_bin, num_bins)
    with np.errstate(invalid="ignore"):
        accuracies = {
            name: np.bincount(sample_bin[mask], minlength=num_bins) / num_samples
            for name, mask in correct.items()
        }
    return OverTime(
        edges_s=edges_s,
        num_samples=num_samples.astype(np.int64),
        **accuracies,
        p50_s=p50_s,
        p99_s=p99_s,
        requests_per_s=per_s(sent),
        uplink_bytes_per_s=per_s(sent, sizes),
        downlink_bytes_per_s=per_s(~sent, sizes),
    )


def _quantiles_by_bin(seconds: np.ndarray, of_bin: np.ndarray, num_bins: int) -> np.ndarray:
    """Return median and 99th percentile (2, bin)."""
    order = np.argsort(of_bin, kind="stable")
    ends = np.cumsum(np.bincount(of_bin, minlength=num_bins))
    parts = np.split(seconds[order], ends[:-1])
    return np.array([np.percentile(part, [50, 99]) if len(part) else [np.nan, np.nan] for part in parts]).T
