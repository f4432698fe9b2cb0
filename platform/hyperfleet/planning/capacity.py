"""Capacity planning: generator replicas and bandwidth of a fleet, found by running its timeline.

The generator is the scenario's `CloudModel`, fitted to a measured run (`hyperfleet.planning.cloud_fit`).
Devices, links, retries, faults and request policy are those of the scenario.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from hyperfleet.emulation.timeline import rows
from hyperfleet.emulation.timeline.engine import AnsweredSample, Timeline, Work
from hyperfleet.emulation.timeline.plan import Material, Plan, draw_plan
from hyperfleet.errors import ConfigError, EmptyStreamError
from hyperfleet.planning.bandwidth import Bandwidth, Traffic
from hyperfleet.planning.cloud_fit import Latencies
from hyperfleet.scenario.definition import Scenario

ASSUMPTION = (
    "Identical replicas serve one queue, first come first served. A free replica takes up to max_batch "
    "waiting heads, does not wait for more, and is busy for batch_s + n * head_s seconds. Nothing else takes "
    "time in the cloud, its network is not limited, and replicas do not slow each other down. Arrivals, "
    "links and devices are those of the scenario, drawn once."
)
# Answers taken from the timeline at a time.
_WINDOW = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class TriedReplicas:
    """A number of replicas that was tried, and the 99th percentile of its latency.

    None: the run was stopped when 1 % of the samples had missed the target. A sample without the head it
    asked for counts as infinitely late.
    """

    replicas: int
    p99_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CapacityPlan:
    """Replicas and bandwidth that a fleet needs.

    Attributes:
        num_devices: active devices.
        target_p99_s: target for the latency of samples, from arrival to answer.
        replicas: fewest replicas that meet the target.
        p50_s: median latency with these replicas.
        p99_s: 99th percentile with these replicas; samples that fell back count as infinitely late.
        least_p99_s: 99th percentile if a replica were always free.
        heads_per_s: requested heads per second, mean of the run.
        max_heads_per_s: capacity of the replicas with full batches.
        bandwidth: of all links together.
        tried: numbers of replicas that were run, in this order.
        assumption: assumptions behind the numbers.
    """

    num_devices: int
    target_p99_s: float
    replicas: int
    p50_s: float
    p99_s: float
    least_p99_s: float
    heads_per_s: float
    max_heads_per_s: float
    bandwidth: Bandwidth
    tried: tuple[TriedReplicas, ...]
    assumption: str = ASSUMPTION


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Run:
    """Measures of a run of the timeline, up to the point where it was stopped."""

    latencies: Latencies
    bandwidth: Bandwidth
    num_sent: int
    end_s: float
    was_stopped: bool

    @property
    def p99_s(self) -> float:
        return self.quantile_s(99.0)

    def quantile_s(self, percent: float) -> float:
        """Return a percentile of the latency; samples that fell back may count as infinitely late."""
        return float(np.percentile(self.latencies.total_s, percent, method="higher"))


def plan_capacity(
    scenario: Scenario,
    material: Material,
    work: Work,
    *,
    num_devices: int,
    target_p99_s: float,
    anchor: Float32[np.ndarray, "row 192"] | None = None,
) -> CapacityPlan:
    """Find the fewest replicas with which 99 % of the samples are answered within a target.

    The number is bisected, assuming that more replicas delay no sample.

    Args:
        scenario: scenario of the fleet; `scenario.cloud` holds the measured times of a replica.
        material: material of the data set's devices.
        work: cost of a sample.
        num_devices: active devices to plan for; registered devices are raised to it if necessary.
        target_p99_s: target from the arrival of a sample to its answer, in seconds.
        anchor: features of all rows, for policies that look at them.

    Raises:
        ConfigError: the target is out of range, or no number of replicas meets it.
        EmptyStreamError: no sample arrives in the scenario.
    """
    if not 0 < target_p99_s < math.inf:
        raise ConfigError(f"target_p99_s must be finite and > 0 seconds, got {target_p99_s}")
    registered = max(num_devices, scenario.registered_devices)
    scenario = replace(scenario, active_devices=num_devices, registered_devices=registered)
    plan = _plan_with_samples(scenario, material)

    def run(replicas: int, limit_s: float = math.inf) -> _Run:
        changed = replace(scenario, cloud=replace(scenario.cloud, replicas=replicas))
        return _run(changed, plan, work, anchor, limit_s)

    # With one replica per sample nothing queues: the remaining latency does not depend on replicas.
    free = run(most := plan.num_samples)
    if free.p99_s > target_p99_s:
        raise ConfigError(
            f"target_p99_s is {target_p99_s} s, but devices, links and faults alone take {free.p99_s:.3g} s "
            "at the 99th percentile (inf: more than 1 % of the samples get no head); raise the target or "
            "change the scenario"
        )
    # A closed loop is over when all samples are answered, mostly long before its duration.
    asked_s = scenario.duration_s if plan.streams is None else min(scenario.duration_s, free.end_s)
    heads_per_s = free.num_sent / asked_s
    guess = math.ceil(heads_per_s * scenario.cloud.replicas / scenario.cloud.max_heads_per_s)
    replicas, best, tried = _fewest(run, min(max(guess, 1), most), most, free, target_p99_s)
    return CapacityPlan(
        num_devices=num_devices,
        target_p99_s=target_p99_s,
        replicas=replicas,
        p50_s=best.quantile_s(50.0),
        p99_s=best.p99_s,
        least_p99_s=free.p99_s,
        heads_per_s=heads_per_s,
        max_heads_per_s=replace(scenario.cloud, replicas=replicas).max_heads_per_s,
        bandwidth=best.bandwidth,
        tried=tried,
    )


def _plan_with_samples(scenario: Scenario, material: Material) -> Plan:
    plan = draw_plan(scenario, material)
    if plan.num_samples == 0:
        raise EmptyStreamError(
            f"no sample arrives at {scenario.active_devices} devices within {scenario.duration_s} s, "
            "expected at least one; let the scenario run longer"
        )
    return plan


def predict(
    scenario: Scenario, plan: Plan, work: Work, *, anchor: Float32[np.ndarray, "row 192"] | None = None
) -> Latencies:
    """Run a scenario in virtual time, with its queue model, and return the latencies."""
    run = _run(scenario, plan, work, anchor, math.inf, fallbacks_count=False)
    return run.latencies


def _fewest(
    run: Callable[[int, float], _Run], guess: int, most: int, free: _Run, target_p99_s: float
) -> tuple[int, _Run, tuple[TriedReplicas, ...]]:
    """Return the fewest replicas that meet the target, their run, and all numbers tried."""
    tried = [TriedReplicas(replicas=most, p99_s=free.p99_s)]
    too_few, enough, best = 0, most, free
    replicas = guess
    while enough - too_few > 1:
        if not too_few < replicas < enough:
            replicas = (too_few + enough) // 2
        result = run(replicas, target_p99_s)
        p99_s = None if result.was_stopped else result.p99_s
        tried.append(TriedReplicas(replicas=replicas, p99_s=p99_s))
        if p99_s is not None and p99_s <= target_p99_s:
            enough, best = replicas, result
            replicas = (too_few + enough) // 2
        else:
            too_few = replicas
            # Double until the target is met once: `most` is far away.
            replicas = 2 * replicas if enough == most else (too_few + enough) // 2
    return enough, best, tuple(tried)


def _run(
    scenario: Scenario,
    plan: Plan,
    work: Work,
    anchor: Float32[np.ndarray, "row 192"] | None,
    limit_s: float,
    *,
    fallbacks_count: bool = True,
) -> _Run:
    """Run the timeline; stop it when 1 % of the samples took longer than `limit_s`.

    With `fallbacks_count`, samples that fell back count as infinitely late.
    """
    timeline = Timeline(scenario, plan, work, anchor=anchor)
    traffic = Traffic()
    total_s, cloud_s = [], []
    num_late, num_fallbacks, was_stopped = 0, 0, False
    for window in timeline.windows(_WINDOW):
        traffic.add(window.events)
        answers = window.answers
        fell_back = np.array([bool(each.fallback) for each in answers], dtype=bool)
        seconds = np.array([each.answered_s - each.sampled_s for each in answers])
        if fallbacks_count:
            seconds[fell_back] = math.inf
        total_s.append(seconds)
        cloud_s.append(_cloud_s(answers))
        num_fallbacks += int(fell_back.sum())
        num_late += int((seconds > limit_s).sum())
        if num_late > 0.01 * plan.num_samples:
            was_stopped = True
            break
    return _Run(
        latencies=Latencies(
            total_s=np.concatenate([*total_s, np.empty(0)]),
            cloud_s=np.concatenate([*cloud_s, np.empty(0)]),
            num_fallbacks=num_fallbacks,
        ),
        bandwidth=traffic.bandwidth(timeline.now_s),
        num_sent=traffic.num_sent,
        end_s=timeline.now_s,
        was_stopped=was_stopped,
    )


def _cloud_s(answers: Sequence[AnsweredSample]) -> Float64[np.ndarray, " fresh"]:
    return np.array(
        [each.queue_s + each.generate_s for each in answers if each.head == rows.FRESH], dtype=float
    )
