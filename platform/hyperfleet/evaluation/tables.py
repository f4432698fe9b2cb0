"""Tables of a fleet run: accuracy, heads, cost, latency, requests, faults, hosts, steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.fault_scores import FaultScore
from hyperfleet.evaluation.figures import group_label
from hyperfleet.evaluation.fleet_score import (
    ALL_DEVICES,
    HELD_OUT,
    SEEN,
    STATIC_HEAD,
    STATIC_MODEL,
    FleetScore,
    HeadAccuracy,
)
from hyperfleet.evaluation.measures import PARTS, TOTAL, LatencyGroup
from hyperfleet.evaluation.rendering import Cell, Table, row


@runtime_checkable
class HostDeath(Protocol):
    """Record of a host process that died."""

    @property
    def at_s(self) -> float:
        """Time at which the death was noticed, in seconds of wall time since the pool started."""
        ...

    @property
    def num_jobs_redone(self) -> int:
        """Jobs that other hosts repeated."""
        ...

    @property
    def recovery_s(self) -> float | None:
        """Seconds until the first of these jobs was done; None if none was done."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFact:
    """Wall time in seconds and, if measured, peak memory in bytes of one step of a larger run."""

    name: str
    wall_s: float
    peak_memory_bytes: int | None = None


def fleet_tables(
    score: FleetScore, host_deaths: Sequence[HostDeath] = (), steps: Sequence[StepFact] = ()
) -> tuple[Table, ...]:
    """Build all tables of a run; those of faults, host deaths and steps only if there were any."""
    builders = (accuracy_table, comparison_table, heads_table, cost_table, latency_table, requests_table)
    tables = [build(score) for build in builders]
    if score.faults:
        tables.append(fault_table(score))
    if host_deaths:
        tables.append(host_table(host_deaths))
    if steps:
        tables.append(steps_table(steps))
    return tuple(tables)


def accuracy_table(score: FleetScore) -> Table:
    """Accuracy of the answers given, the static model and the static head on the same samples."""

    def line(name: str, accuracy: HeadAccuracy, *, strong: bool = False) -> tuple[Cell, ...]:
        shares = (accuracy.sample, accuracy.in_vocabulary, accuracy.device_mean, accuracy.device_p10)
        return row(name, *map(wording.percent, shares), strong=strong)

    num_unknown = score.num_samples - score.num_in_vocabulary
    return Table(
        name="accuracy",
        title="Accuracy on the devices' live samples",
        columns=("", "All samples", "In vocabulary", "Devices, mean", "Devices, 10th percentile"),
        rows=(
            line("Answers given", score.answers, strong=True),
            line("Static model (Fine-tuning)", score.static_model),
            line("Personal model's static head", score.static_head),
        ),
        footnotes=(
            f"{score.num_samples:,} samples of {wording.devices(len(score.devices.device_id))}. "
            f"{num_unknown:,} of them have an answer outside the vocabulary; they count as wrong, except "
            "under 'In vocabulary' (All-in-One's count), which leaves them out.",
        ),
    )


def comparison_table(score: FleetScore) -> Table:
    """Answers given against both baselines, over all, seen and held-out devices of the data set."""
    groups = {ALL_DEVICES: "All devices", SEEN: "Seen devices", HELD_OUT: "Held-out devices"}
    baselines = {STATIC_MODEL: "static model", STATIC_HEAD: "own static head"}
    split = " Seen devices gave clips to training; held-out devices gave none."
    return Table(
        name="comparison",
        title="Answers given against static heads",
        columns=(
            "",
            "Devices",
            "Answers given",
            "Static",
            "Difference (points)",
            "95% interval",
            *wording.P_COLUMNS,
        ),
        rows=tuple(
            row(
                f"{groups[each.group]}, {baselines[each.baseline]}",
                f"{each.num_devices:,}",
                wording.percent(each.answers),
                wording.percent(each.static),
                wording.points(each.test.difference),
                wording.interval_points(each.test.interval),
                *wording.p_values(each.test),
                strong=each is score.comparisons[0],
            )
            for each in score.comparisons
        ),
        footnotes=(
            "Means over the devices of the data set. Interval: bootstrap over them. Tests over them: "
            "Wilcoxon signed-rank, and random signs of the differences (permutation)."
            + (split if score.held_out.any() else ""),
        ),
    )


def heads_table(score: FleetScore) -> Table:
    """Samples by the head that answered them, and fallbacks by reason."""
    lines = [
        row(group_label(name), f"{count:,}", wording.percent(score.share(name)))
        for name, count in score.heads.items()
    ]
    reasons = [
        row(f"fell back: {reason}", f"{count:,}", wording.percent(count / score.num_samples))
        for reason, count in score.fallbacks.items()
    ]
    return Table(
        name="heads",
        title="Heads that answered the samples",
        columns=("", "Samples", "Share"),
        rows=(*lines, *reasons),
        footnotes=("Samples that fell back are included in those of cached and static heads.",)
        if reasons
        else (),
    )


def cost_table(score: FleetScore) -> Table:
    """Bytes and joules, in total and per sample."""
    spent = score.spending
    fresh = spent.joules_per_fresh_head
    return Table(
        name="cost",
        title="Cost of the answers",
        columns=("", "Total", "Per sample"),
        rows=(
            row(
                "Sent",
                f"{wording.significant(spent.uplink_bytes / 2**20)} MiB",
                f"{wording.kib(spent.uplink_bytes_per_sample)} KiB",
            ),
            row(
                "Received",
                f"{wording.significant(spent.downlink_bytes / 2**20)} MiB",
                f"{wording.kib(spent.downlink_bytes_per_sample)} KiB",
            ),
            row(
                "Energy of the devices",
                f"{wording.significant(spent.joules)} J",
                f"{wording.significant(spent.joules_per_sample)} J",
            ),
            row(
                "Energy, sample with a fresh head",
                wording.NOTHING,
                wording.NOTHING if fresh is None else f"{wording.significant(fresh)} J",
            ),
        ),
        footnotes=("Failed tries are included. Energy: radio and computing, above an idle device.",),
    )


def latency_table(score: FleetScore) -> Table:
    """Median, 90th and 99th percentile of the latency and its parts, by head and network."""

    def line(group: LatencyGroup) -> tuple[Cell, ...]:
        cells = [
            " / ".join(wording.milliseconds(seconds) for seconds in (each.p50_s, each.p90_s, each.p99_s))
            for each in (group.parts[part] for part in (TOTAL, *PARTS))
        ]
        return row(group_label(group.name), f"{group.num_samples:,}", *cells)

    return Table(
        name="latency",
        title="Latency from sample to answer in ms, p50 / p90 / p99",
        columns=("", "Samples", "Total", *(part.capitalize() for part in PARTS)),
        rows=tuple(line(group) for group in score.latency),
        footnotes=(
            "Queue: waiting for the generator, failed tries, and the pauses between them. Quantiles of the "
            "parts do not add up to those of the total.",
        ),
    )


def requests_table(score: FleetScore) -> Table:
    """Requests by outcome."""
    counts = score.requests
    lines = (
        ("Requests sent", counts.sent),
        ("Heads delivered", counts.delivered),
        ("Refused (429, 503)", counts.refused),
        ("Timed out", counts.timed_out),
        ("Replies corrupt", counts.corrupt),
        ("Connections lost", counts.lost),
        ("Retried", counts.retried),
        ("Samples given up", counts.gave_up),
        ("Devices with empty battery", counts.battery_empty),
        ("Samples never answered", counts.never_answered),
    )
    return Table(
        name="requests",
        title="Requests by outcome",
        columns=("", "Number"),
        rows=tuple(row(name, f"{number:,}") for name, number in lines),
        footnotes=("A sample is never answered only if the battery of its device was empty.",),
    )


def fault_table(score: FleetScore) -> Table:
    """Effect of each fault and time of recovery."""
    return Table(
        name="faults",
        title="Faults and recovery",
        columns=(
            "Fault",
            "From, s",
            "To, s",
            "Samples",
            "Fell back",
            "p99 before, ms",
            "p99, ms",
            "Recovery, s",
            "After its end, s",
        ),
        rows=tuple(_fault_row(fault) for fault in score.faults),
        footnotes=(
            "Samples: in progress at any time during the fault. Recovery: from the start of the fault until "
            "samples were served as before it.",
        ),
    )


def host_table(deaths: Sequence[HostDeath]) -> Table:
    """Hosts that died, and the time until others had taken over."""
    return Table(
        name="hosts",
        title="Hosts that died",
        columns=("At, s of wall time", "Jobs repeated", "Recovery, s"),
        rows=tuple(
            row(f"{death.at_s:.1f}", f"{death.num_jobs_redone:,}", _seconds(death.recovery_s))
            for death in deaths
        ),
        footnotes=(
            "Recovery: from the notice of the death until another host had done the first of its jobs. Hosts "
            "only compute answers; the event log does not depend on them.",
        ),
    )


def steps_table(steps: Sequence[StepFact]) -> Table:
    """Wall time and peak memory per step."""

    def line(name: str, wall_s: float, peaks: Sequence[int | None], *, strong: bool) -> tuple[Cell, ...]:
        known = [peak for peak in peaks if peak is not None]
        return row(
            name,
            wording.duration(wall_s),
            wording.mib(max(known)) if known else wording.NOTHING,
            strong=strong,
        )

    total_s = sum(step.wall_s for step in steps)
    return Table(
        name="steps",
        title="Wall time and peak memory by step",
        columns=("Step", "Wall time", "Peak memory, MiB"),
        rows=(
            *(line(step.name, step.wall_s, [step.peak_memory_bytes], strong=False) for step in steps),
            line("All steps", total_s, [step.peak_memory_bytes for step in steps], strong=True),
        ),
    )


def _fault_row(fault: FaultScore) -> tuple[Cell, ...]:
    recovery = _seconds(fault.recovery_s)
    return row(
        fault.kind,
        f"{fault.begin_s:.1f}",
        "end of run" if fault.end_s is None else f"{fault.end_s:.1f}",
        f"{fault.num_samples:,}",
        f"{fault.num_fallbacks:,}",
        wording.NOTHING if fault.p99_before_s is None else wording.milliseconds(fault.p99_before_s),
        wording.NOTHING if fault.p99_s is None else wording.milliseconds(fault.p99_s),
        recovery if fault.effect == "recovered" else fault.effect,
        _seconds(fault.recovery_after_end_s) if fault.effect == "recovered" else wording.NOTHING,
    )


def _seconds(seconds: float | None) -> str:
    return wording.NOTHING if seconds is None else wording.significant(seconds)
