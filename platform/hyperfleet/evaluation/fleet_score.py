"""The score of a fleet run: answers joined with the answer key, their cost, and faults.

Emulated devices share and repeat material: each device of the data set supplies many emulated ones, and
streams start over. Only the data set's devices are independent, so tests and intervals resample those.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int, Int64

from hyperfleet.datasets.vocabulary import OUT_OF_VOCABULARY
from hyperfleet.errors import DataError
from hyperfleet.evaluation.answer_key import AnswerKey
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
ALL_DEVICES, SEEN, HELD_OUT = "all", "seen", "held_out"
STATIC_MODEL, STATIC_HEAD = "static_model", "static_head"


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadAccuracy:
    """Share of right answers, over samples and over the emulated devices.

    `in_vocabulary` leaves out samples whose answer is outside the vocabulary, as All-in-One counts;
    None if no sample is left.
    """

    sample: float
    in_vocabulary: float | None
    device_mean: float
    device_p10: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AccuracyByUnit:
    """Share of right answers per device, sorted by `device_id`; each has at least one sample.

    Attributes:
        device_id: emulated devices, or devices of the data set.
        num_samples: samples per device.
        answers: accuracy of the answers given.
        static_model: accuracy of the Fine-tuning model.
        static_head: accuracy of the personal model's own static head.
    """

    device_id: Int64[np.ndarray, " device"]
    num_samples: Int64[np.ndarray, " device"]
    answers: Float64[np.ndarray, " device"]
    static_model: Float64[np.ndarray, " device"]
    static_head: Float64[np.ndarray, " device"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Answers given against a static baseline: means over a group of the data set's devices.

    Attributes:
        group: `ALL_DEVICES`, `SEEN` or `HELD_OUT`.
        baseline: `STATIC_MODEL` or `STATIC_HEAD`.
        num_devices: devices in the group.
        answers: mean accuracy of the answers given.
        static: mean accuracy of the baseline on the same samples.
        test: answers given minus baseline, paired by device.
    """

    group: str
    baseline: str
    num_devices: int
    answers: float
    static: float
    test: PairedDifference


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FleetScore:
    """The score of a fleet run.

    Attributes:
        num_samples: samples that were answered.
        num_in_vocabulary: those whose answer is in the vocabulary.
        answers: accuracy of the answers given, from any head.
        static_model: accuracy of the Fine-tuning model on the same samples.
        static_head: accuracy of the personal model's own static head on the same samples.
        comparisons: answers given against both baselines: over all devices, then over seen and held-out ones
            if any device was held out.
        devices: accuracy per emulated device.
        sources: accuracy per device of the data set whose material was shown.
        held_out: whether each of `sources` gave nothing to training.
        heads: samples by the head that answered them: fresh, cached or static.
        fallbacks: samples that did not get the head they asked for, by reason.
        requests: outcomes of the requests.
        spending: bytes and joules.
        latency: latency of all samples, by head, and by network.
        over_time: accuracy, latency, requests and bytes in bins.
        faults: effect of each fault.
    """

    num_samples: int
    num_in_vocabulary: int
    answers: HeadAccuracy
    static_model: HeadAccuracy
    static_head: HeadAccuracy
    comparisons: tuple[Comparison, ...]
    devices: AccuracyByUnit
    sources: AccuracyByUnit
    held_out: Bool[np.ndarray, " source"]
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
        """Number of samples that did not get the head they asked for."""
        return sum(self.fallbacks.values())

    def against(self, baseline: str, group: str = ALL_DEVICES) -> Comparison | None:
        """Return the comparison with a baseline over a group of devices; None if the group is empty."""
        wanted = (group, baseline)
        return next((each for each in self.comparisons if (each.group, each.baseline) == wanted), None)

    @property
    def against_static_model(self) -> PairedDifference:
        """Answers given minus static model, mean over all devices of the data set."""
        return self.comparisons[0].test

    def as_metrics(self) -> dict[str, float]:
        """Flatten to names and numbers for an experiment tracker."""
        metrics = {
            "fleet/samples": float(self.num_samples),
            "fleet/devices": float(len(self.devices.device_id)),
            "fleet/fallbacks": float(self.num_fallbacks),
            "bytes/uplink": float(self.spending.uplink_bytes),
            "bytes/downlink": float(self.spending.downlink_bytes),
            "bytes/per_sample": self.spending.bytes_per_sample,
            "energy/joules_per_sample": self.spending.joules_per_sample,
        }
        if self.spending.joules_per_fresh_head is not None:
            metrics["energy/joules_per_fresh_head"] = self.spending.joules_per_fresh_head
        for each in self.comparisons:
            name = f"accuracy/{each.group}/difference_to_{each.baseline}"
            metrics[name] = each.test.difference
            if each.test.p_value is not None:
                metrics[f"{name}_p_value"] = each.test.p_value
            if each.test.permutation_p_value is not None:
                metrics[f"{name}_permutation_p_value"] = each.test.permutation_p_value
        for name in ("answers", STATIC_MODEL, STATIC_HEAD):
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

        Bins without a sample have no accuracy and no latency. If several bins end within one second, the
        last one counts.
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
    events: pa.Table, answers: pa.Table, key: AnswerKey, *, bootstrap_seed: int = 0
) -> FleetScore:
    """Score the log of a run.

    Args:
        events: event log, of `rows.EVENT_SCHEMA`.
        answers: answers, of `rows.ANSWER_SCHEMA`.
        key: right answers; it may hold more examples than were shown.
        bootstrap_seed: seed of the bootstrap resamples.

    Raises:
        DataError: columns are missing, a sample is answered twice or before it arrived, or an example is not
            in the key.
        EmptyStreamError: no sample was answered.
    """
    check_tables(events, answers)
    place = _places(answers, key)
    label = key.label[place]
    correct = _correct(answers, label)
    devices = _by_unit(numbers(answers, "device_id"), correct)
    source_id = key.device_id[place].astype(np.int64)
    sources = _by_unit(source_id, correct)
    held_out = np.isin(sources.device_id, source_id[key.held_out[place]])
    accuracies = {
        "accuracy": correct["answers"],
        "static_model_accuracy": correct[STATIC_MODEL],
        "static_head_accuracy": correct[STATIC_HEAD],
    }
    num_known = int((label != OUT_OF_VOCABULARY).sum())
    return FleetScore(
        num_samples=answers.num_rows,
        num_in_vocabulary=num_known,
        answers=_accuracy(correct["answers"], devices.answers, num_known),
        static_model=_accuracy(correct[STATIC_MODEL], devices.static_model, num_known),
        static_head=_accuracy(correct[STATIC_HEAD], devices.static_head, num_known),
        comparisons=_comparisons(sources, held_out, bootstrap_seed),
        devices=devices,
        sources=sources,
        held_out=held_out,
        heads=head_counts(answers),
        fallbacks=fallback_counts(answers),
        requests=request_counts(events, answers.num_rows),
        spending=spending(answers),
        latency=latency_groups(answers),
        over_time=over_time(events, answers, accuracies),
        faults=fault_scores(events, answers),
    )


def _comparisons(
    sources: AccuracyByUnit, held_out: Bool[np.ndarray, " source"], seed: int
) -> tuple[Comparison, ...]:
    groups = {ALL_DEVICES: np.ones_like(held_out)}
    if held_out.any():
        groups |= {SEEN: ~held_out, HELD_OUT: held_out}
    return tuple(
        _compare(group, baseline, sources, mask, numpy_generator(seed, "bootstrap", group, baseline))
        for group, mask in groups.items()
        if mask.any()
        for baseline in (STATIC_MODEL, STATIC_HEAD)
    )


def _compare(
    group: str,
    baseline: str,
    sources: AccuracyByUnit,
    mask: Bool[np.ndarray, " source"],
    rng: np.random.Generator,
) -> Comparison:
    static, given = getattr(sources, baseline)[mask], sources.answers[mask]
    return Comparison(
        group=group,
        baseline=baseline,
        num_devices=len(given),
        answers=float(given.mean()),
        static=float(static.mean()),
        test=compare_mean(static, given, rng),
    )


def _correct(answers: pa.Table, label: Int[np.ndarray, " row"]) -> Mapping[str, Bool[np.ndarray, " row"]]:
    known = label != OUT_OF_VOCABULARY
    columns = {"answers": "answer", STATIC_MODEL: "static_answer", STATIC_HEAD: "base_answer"}
    return {name: (numbers(answers, column) == label) & known for name, column in columns.items()}


def total_latency(score: FleetScore) -> tuple[float, float]:
    """Return the median and the 99th percentile of the latency of all samples, in seconds."""
    total = score.latency[0].parts[TOTAL]
    return total.p50_s, total.p99_s


def _places(answers: pa.Table, key: AnswerKey) -> Int64[np.ndarray, " row"]:
    """Return the place in the key of each answer's example."""
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


def _accuracy(
    correct: Bool[np.ndarray, " row"], by_device: Float64[np.ndarray, " device"], num_in_vocabulary: int
) -> HeadAccuracy:
    return HeadAccuracy(
        sample=float(correct.mean()),
        in_vocabulary=int(correct.sum()) / num_in_vocabulary if num_in_vocabulary else None,
        device_mean=float(by_device.mean()),
        device_p10=float(np.percentile(by_device, LOW_PERCENTILE)),
    )
