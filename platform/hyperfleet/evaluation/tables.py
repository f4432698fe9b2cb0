"""The tables of a scenario run: accuracy, heads, cost, latency, requests, faults, hosts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.fault_scores import FaultScore
from hyperfleet.evaluation.figures import group_label
from hyperfleet.evaluation.fleet_score import FleetScore, HeadAccuracy
from hyperfleet.evaluation.measures import PARTS, TOTAL, LatencyGroup
from hyperfleet.evaluation.paired import PairedDifference
from hyperfleet.evaluation.rendering import Cell, Table, row


@runtime_checkable
class HostDeath(Protocol):
    """A process that computed for devices and died; a pool of them keeps such a record."""

    @property
    def at_s(self) -> float:
        """When that was noticed, in seconds of wall time since the pool had started."""
        ...

    @property
    def num_jobs_redone(self) -> int:
        """Jobs that others did again."""
        ...

    @property
    def recovery_s(self) -> float | None:
        """Seconds until the first of these jobs was done; None if none was."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFact:
    """Wall time in seconds and, where measured, peak memory in bytes of one step of a larger run."""

    name: str
    wall_s: float
    peak_memory_bytes: int | None = None


def fleet_tables(
    score: FleetScore, host_deaths: Sequence[HostDeath] = (), steps: Sequence[StepFact] = ()
) -> tuple[Table, ...]:
    """Build all tables of a run; those of faults, host deaths and steps only if there were any."""
    tables = [accuracy_table(score), heads_table(score), cost_table(score), latency_table(score)]
    tables.append(requests_table(score))
    if score.faults:
        tables.append(fault_table(score))
    if host_deaths:
        tables.append(host_table(host_deaths))
    if steps:
        tables.append(steps_table(steps))
    return tuple(tables)


def accuracy_table(score: FleetScore) -> Table:
    """Answers given against static model and static head on the same samples."""

    def line(name: str, accuracy: HeadAccuracy, test: PairedDifference | None) -> tuple[Cell, ...]:
        return row(
            name,
            wording.percent(accuracy.sample),
            wording.percent(accuracy.device_mean),
            wording.percent(accuracy.device_p10),
            wording.points(test.difference if test else None),
            wording.interval_points(test.interval if test else None),
            wording.p_value(test.p_value if test else None),
            strong=test is None,
        )

    return Table(
        name="accuracy",
        title="Accuracy of the answers given",
        columns=(
            "",
            "Samples",
            "Devices, mean",
            "Devices, 10th percentile",
            "Answers minus it (points)",
            "95% interval",
            "p",
        ),
        rows=(
            line("Answers given", score.answers, None),
            line("Static model (Fine-tuning)", score.static_model, score.against_static_model),
            line("Personal model's static head", score.static_head, score.against_static_head),
        ),
        footnotes=(
            f"{score.num_samples:,} samples of {wording.devices(len(score.devices.device_id))}. Answers "
            "outside the vocabulary count as wrong.",
            f"Differences: mean over the {len(score.sources.device_id):,} devices of the data set that were "
            "shown; interval: bootstrap over them; p: Wilcoxon signed-rank over them.",
        ),
    )


def heads_table(score: FleetScore) -> Table:
    """What answered the samples, and why some got no head."""
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
        title="What answered the samples",
        columns=("", "Samples", "Share"),
        rows=(*lines, *reasons),
        footnotes=("Samples that fell back are among those of cached and static heads.",) if reasons else (),
    )


def cost_table(score: FleetScore) -> Table:
    """Bytes and joules, in all and a sample."""
    spent = score.spending
    fresh = spent.joules_per_fresh_head
    return Table(
        name="cost",
        title="What the answers cost",
        columns=("", "In all", "A sample"),
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
        footnotes=(
            "Bytes and joules of tries that failed are included. Energy is that of radio and computing, "
            "above an idle device.",
        ),
    )


def latency_table(score: FleetScore) -> Table:
    """Median, 90th and 99th percentile of the latency and its parts."""

    def line(group: LatencyGroup) -> tuple[Cell, ...]:
        cells = [
            " / ".join(wording.milliseconds(seconds) for seconds in (each.p50_s, each.p90_s, each.p99_s))
            for each in (group.parts[part] for part in (*PARTS, TOTAL))
        ]
        return row(group_label(group.name), f"{group.num_samples:,}", *cells)

    return Table(
        name="latency",
        title="Latency from sample to answer in ms, p50 / p90 / p99",
        columns=("", "Samples", *(part.capitalize() for part in PARTS), "Total"),
        rows=tuple(line(group) for group in score.latency),
        footnotes=(
            "Queue: waiting for the generator, failed tries and the pauses between them. Quantiles of the "
            "parts do not add up to the total's.",
        ),
    )


def requests_table(score: FleetScore) -> Table:
    """What became of the requests."""
    counts = score.requests
    lines = (
        ("Requests sent", counts.sent),
        ("Heads delivered", counts.delivered),
        ("Refused (429, 503)", counts.refused),
        ("Timed out", counts.timed_out),
        ("Replies corrupt", counts.corrupt),
        ("Connections that broke", counts.lost),
        ("Tried again", counts.retried),
        ("Samples given up", counts.gave_up),
        ("Devices with empty battery", counts.battery_empty),
        ("Samples never answered", counts.never_answered),
    )
    return Table(
        name="requests",
        title="What became of the requests",
        columns=("", "Number"),
        rows=tuple(row(name, f"{number:,}") for name, number in lines),
        footnotes=("A sample is never answered only where the battery of its device was empty.",),
    )


def fault_table(score: FleetScore) -> Table:
    """What each fault did and how long it took to get over it."""
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
            "after its end, s",
        ),
        rows=tuple(_fault_row(fault) for fault in score.faults),
        footnotes=(
            "Samples: those under way at some time of the fault. Recovery: from the beginning of the fault "
            "until samples were served as before it.",
        ),
    )


def host_table(deaths: Sequence[HostDeath]) -> Table:
    """Hosts that died, and when their work was under way again."""
    return Table(
        name="hosts",
        title="Hosts that died",
        columns=("At, s of wall time", "Jobs done again", "Recovery, s"),
        rows=tuple(
            row(f"{death.at_s:.1f}", f"{death.num_jobs_redone:,}", _seconds(death.recovery_s))
            for death in deaths
        ),
        footnotes=(
            "Recovery: from the death being noticed until the first of its jobs was done by another host. "
            "Hosts compute answers; the event log does not depend on them.",
        ),
    )


def steps_table(steps: Sequence[StepFact]) -> Table:
    """Wall time and peak memory of each step."""

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
