"""The score of a scenario run: answers joined with the answer key, what they cost and what went wrong.

Labels of live samples enter here and nowhere else in the emulation. What the emulated devices film repeats:
a device of the data set stands for many emulated ones, and streams begin again. Only the data set's devices
are independent of each other, so they are what tests and intervals resample.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int, Int64

from hyperfleet.errors import DataError
from hyperfleet.evaluation.answer_key import OUT_OF_VOCABULARY, AnswerKey
from hyperfleet.evaluation.fault_scores import FaultScore, fault_scores
from hyperfleet.evaluation.measures import (
    TOTAL,
    LatencyGroup,
    OverTime,
    RequestCounts,
    Spending,
    check_tables,
    fallback_counts,
    head_counts,
    latency_groups,
    numbers,
    over_time,
    request_counts,
    spending,
)
from hyperfleet.evaluation.paired import PairedDifference, compare_mean
from hyperfleet.seeding import numpy_generator

LOW_PERCENTILE = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadAccuracy:
    """Share of right answers, over samples and over the emulated devices."""

    sample: float
    device_mean: float
    device_p10: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AccuracyByUnit:
    """Share of right answers of each device, sorted by `device_id`; each has at least one sample.

    Attributes:
        device_id: emulated devices, or devices of the data set.
        num_samples: samples of each.
        answers: of the answers given.
        static_model: of the Fine-tuning model.
        static_head: of the personal model's own static head.
    """

    device_id: Int64[np.ndarray, " device"]
    num_samples: Int64[np.ndarray, " device"]
    answers: Float64[np.ndarray, " device"]
    static_model: Float64[np.ndarray, " device"]
    static_head: Float64[np.ndarray, " device"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FleetScore:
    """What a scenario run brought.

    Attributes:
        num_samples: samples that were answered.
        answers: accuracy of the answers given, whatever head they came from.
        static_model: accuracy of the Fine-tuning model on the same samples.
        static_head: accuracy of the personal model's own static head on the same samples.
        against_static_model: answers given minus static model, mean over the data set's devices.
        against_static_head: answers given minus static head, mean over the data set's devices.
        devices: accuracy of each emulated device.
        sources: accuracy of each device of the data set whose material was shown.
        heads: samples by what answered them: fresh, cached or static head.
        fallbacks: samples that did not get the head they asked for, by reason.
        requests: what became of the requests.
        spending: bytes and joules.
        latency: of all samples, by head, and by network.
        over_time: accuracy, latency, requests and bytes in bins.
        faults: what each fault did.
    """

    num_samples: int
    answers: HeadAccuracy
    static_model: HeadAccuracy
    static_head: HeadAccuracy
    against_static_model: PairedDifference
    against_static_head: PairedDifference
    devices: AccuracyByUnit
    sources: AccuracyByUnit
    heads: Mapping[str, int]
    fallbacks: Mapping[str, int]
    requests: RequestCounts
    spending: Spending
    latency: tuple[LatencyGroup, ...]
    over_time: OverTime
    faults: tuple[FaultScore, ...]

    def share(self, head: str) -> float:
        """Return the share of samples that "fresh", "cached" or "static" heads answered."""
        return self.heads[head] / self.num_samples

    @property
    def num_fallbacks(self) -> int:
        """Samples that did not get the head they asked for."""
        return sum(self.fallbacks.values())

    def as_metrics(self) -> dict[str, float]:
        """Flatten to names and numbers for an experiment tracker."""
        metrics = {
            "scenario/samples": float(self.num_samples),
            "scenario/devices": float(len(self.devices.device_id)),
            "scenario/fallbacks": float(self.num_fallbacks),
            "accuracy/difference_to_static_model": self.against_static_model.difference,
            "accuracy/difference_to_static_head": self.against_static_head.difference,
            "bytes/uplink": float(self.spending.uplink_bytes),
            "bytes/downlink": float(self.spending.downlink_bytes),
            "bytes/per_sample": self.spending.bytes_per_sample,
            "energy/joules_per_sample": self.spending.joules_per_sample,
        }
        if self.spending.joules_per_fresh_head is not None:
            metrics["energy/joules_per_fresh_head"] = self.spending.joules_per_fresh_head
        for name in ("answers", "static_model", "static_head"):
            accuracy: HeadAccuracy = getattr(self, name)
            metrics[f"accuracy/{name}/sample"] = accuracy.sample
            metrics[f"accuracy/{name}/device_mean"] = accuracy.device_mean
            metrics[f"accuracy/{name}/device_p10"] = accuracy.device_p10
        for name in self.heads:
            metrics[f"share/{name}"] = self.share(name)
        for name in self.requests.__dataclass_fields__:
            metrics[f"requests/{name}"] = float(getattr(self.requests, name))
        for part, latency in self.latency[0].parts.items():
            for quantile in ("p50_s", "p90_s", "p99_s"):
                metrics[f"latency/{part}_{quantile}"] = getattr(latency, quantile)
        return metrics

    def metrics_over_time(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield (step, metrics) for an experiment tracker; the step is the second at which a bin ends.

        Bins without a sample have no accuracy and no latency; of bins that end in one second the last counts.
        """
        time = self.over_time
        by_step: dict[int, dict[str, float]] = {}
        for index, end_s in enumerate(time.edges_s[1:].tolist()):
            values = {
                "over_time/accuracy": time.accuracy[index],
                "over_time/static_model_accuracy": time.static_model_accuracy[index],
                "over_time/p50_s": time.p50_s[index],
                "over_time/p99_s": time.p99_s[index],
                "over_time/requests_per_s": time.requests_per_s[index],
                "over_time/uplink_bytes_per_s": time.uplink_bytes_per_s[index],
                "over_time/downlink_bytes_per_s": time.downlink_bytes_per_s[index],
            }
            by_step[int(np.ceil(end_s))] = {
                name: float(value) for name, value in values.items() if np.isfinite(value)
            }
        yield from by_step.items()


def score_fleet(
    events: pa.Table,
    answers: pa.Table,
    key: AnswerKey,
    source_device_id: Int[np.ndarray, " example"],
    *,
    bootstrap_seed: int = 0,
) -> FleetScore:
    """Score what a scenario run left.

    Args:
        events: its event log, of `rows.EVENT_SCHEMA`.
        answers: its answers, of `rows.ANSWER_SCHEMA`.
        key: the right answers; it may hold more examples than were shown.
        source_device_id: for each example of `key` the device of the data set that filmed it.
        bootstrap_seed: seed of the bootstrap resamples.

    Raises:
        DataError: columns are missing, a sample is answered twice or before it arrived, an example is not in
            the key, or `source_device_id` is not as long as the key.
        EmptyStreamError: no sample was answered.
    """
    check_tables(events, answers)
    if len(source_device_id) != len(key.example_id):
        raise DataError(
            f"source_device_id must have one device an example of the key ({len(key.example_id)}), "
            f"got {len(source_device_id)}; take both from the same split"
        )
    place = _places(answers, key)
    correct = _correct(answers, key.label[place])
    devices = _by_unit(numbers(answers, "device_id"), correct)
    sources = _by_unit(source_device_id[place].astype(np.int64), correct)
    names = {
        "accuracy": "answers",
        "static_model_accuracy": "static_model",
        "static_head_accuracy": "static_head",
    }
    time = over_time(events, answers, {column: correct[name] for column, name in names.items()})

    def test(name: str) -> PairedDifference:
        rng = numpy_generator(bootstrap_seed, "bootstrap", name)
        return compare_mean(getattr(sources, name), sources.answers, rng)

    return FleetScore(
        num_samples=answers.num_rows,
        answers=_accuracy(correct["answers"], devices.answers),
        static_model=_accuracy(correct["static_model"], devices.static_model),
        static_head=_accuracy(correct["static_head"], devices.static_head),
        against_static_model=test("static_model"),
        against_static_head=test("static_head"),
        devices=devices,
        sources=sources,
        heads=head_counts(answers),
        fallbacks=fallback_counts(answers),
        requests=request_counts(events, answers.num_rows),
        spending=spending(answers),
        latency=latency_groups(answers),
        over_time=time,
        faults=fault_scores(events, answers),
    )


def _correct(answers: pa.Table, label: Int[np.ndarray, " row"]) -> Mapping[str, Bool[np.ndarray, " row"]]:
    known = label != OUT_OF_VOCABULARY
    columns = {"answers": "answer", "static_model": "static_answer", "static_head": "base_answer"}
    return {name: (numbers(answers, column) == label) & known for name, column in columns.items()}


def total_latency(score: FleetScore) -> tuple[float, float]:
    """Return median and 99th percentile of the latency of all samples, in seconds."""
    total = score.latency[0].parts[TOTAL]
    return total.p50_s, total.p99_s


def _places(answers: pa.Table, key: AnswerKey) -> Int64[np.ndarray, " row"]:
    """Return for each answer the place of its example in the key."""
    wanted = answers["example_id"].combine_chunks()
    found = pc.index_in(wanted, value_set=pa.array(key.example_id, wanted.type))
    if found.null_count:
        missing = pc.unique(wanted.filter(found.is_null()))
        raise DataError(
            f"{len(missing)} examples of the answers are not in the answer key, first "
            f"{missing[:3].to_pylist()}; score a run with the data set it ran on ({len(key.example_id)} "
            "examples known)"
        )
    return np.asarray(found.to_numpy()).astype(np.int64)


def _by_unit(unit_of: np.ndarray, correct: Mapping[str, Bool[np.ndarray, " row"]]) -> AccuracyByUnit:
    unit, place = np.unique(unit_of, return_inverse=True)
    num_samples = np.bincount(place, minlength=len(unit)).astype(np.int64)
    shares = {
        name: np.bincount(place[mask], minlength=len(unit)) / num_samples for name, mask in correct.items()
    }
    return AccuracyByUnit(device_id=unit.astype(np.int64), num_samples=num_samples, **shares)


def _accuracy(correct: Bool[np.ndarray, " row"], by_device: Float64[np.ndarray, " device"]) -> HeadAccuracy:
    return HeadAccuracy(
        sample=float(correct.mean()),
        device_mean=float(by_device.mean()),
        device_p10=float(np.percentile(by_device, LOW_PERCENTILE)),
    )
