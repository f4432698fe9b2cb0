"""The faults of a scenario, as questions that the timeline asks on its way."""

from typing import TYPE_CHECKING

from hyperfleet.emulation.timeline import rows
from hyperfleet.emulation.timeline.draws import uniform
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.faults import (
    Blackout,
    ClockSkew,
    CorruptReplies,
    KillHost,
    KillReplica,
    RefuseRequests,
    SlowDevices,
)

if TYPE_CHECKING:
    from hyperfleet.emulation.timeline.engine import Timeline

# Streams of draws; those below 16 are the timeline's own.
_FIRST_STREAM = 16


class Disturbances:
    """What is wrong at a time, for a device or a request.

    Attributes:
        pauses: for each network of the scenario, the times (from, to) at which nothing moves.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._seed = scenario.seed
        self._faults = list(enumerate(scenario.faults, start=_FIRST_STREAM))
        self._slow = [(i, fault) for i, fault in self._faults if isinstance(fault, SlowDevices)]
        self._refusals = [(i, fault) for i, fault in self._faults if isinstance(fault, RefuseRequests)]
        self._damages = [(i, fault) for i, fault in self._faults if isinstance(fault, CorruptReplies)]
        self._skews = [(i, fault) for i, fault in self._faults if isinstance(fault, ClockSkew)]
        self.pauses = [
            tuple(
                sorted(
                    (fault.from_s, fault.to_s)
                    for _, fault in self._faults
                    if isinstance(fault, Blackout) and fault.network in (None, name)
                )
            )
            for name in scenario.networks
        ]

    def schedule(self, timeline: "Timeline") -> None:
        """Write the beginning and the end of each fault into the timeline's log when its time comes."""
        for _, fault in self._faults:
            if isinstance(fault, ClockSkew):
                continue
            begin_s = fault.at_s if isinstance(fault, KillHost | KillReplica) else fault.from_s
            timeline.schedule(begin_s, lambda now_s, what, _: _begin(timeline, now_s, what), fault)
            if not isinstance(fault, KillHost):
                end_s = fault.at_s + fault.restart_s if isinstance(fault, KillReplica) else fault.to_s
                timeline.schedule(
                    end_s,
                    lambda now_s, what, _: timeline.log(now_s, rows.FAULT_ENDS, -1, detail=what.kind),
                    fault,
                )

    def slowdown(self, device: int, now_s: float) -> float:
        """Return how many times as long as usual a device computes."""
        factor = 1.0
        for stream, fault in self._slow:
            if fault.from_s <= now_s < fault.to_s and uniform(self._seed, stream, device, 0) < fault.share:
                factor *= fault.factor
        return factor

    def refuses(self, device: int, number: int, attempt: int, now_s: float) -> tuple[int, float] | None:
        """Return status and Retry-After if a request is refused on purpose."""
        for stream, fault in self._refusals:
            if fault.from_s <= now_s < fault.to_s and self._hits(
                stream, device, number, attempt, fault.share
            ):
                return fault.status, fault.retry_after_s
        return None

    def damages(self, device: int, number: int, attempt: int, now_s: float) -> str | None:
        """Return what is wrong with a reply that arrives, if anything is."""
        for stream, fault in self._damages:
            if fault.from_s <= now_s < fault.to_s and self._hits(
                stream, device, number, attempt, fault.share
            ):
                return "truncated" if fault.truncated else "checksum"
        return None

    def skew_s(self, device: int) -> float:
        """Return how far the clock of a device is ahead."""
        skews = (
            fault.skew_s
            for stream, fault in self._skews
            if uniform(self._seed, stream, device, 0) < fault.share
        )
        return sum(skews, start=0.0)

    def _hits(self, stream: int, device: int, number: int, attempt: int, share: float) -> bool:
        return uniform(self._seed, stream, device, number * 64 + attempt) < share


def _begin(timeline: "Timeline", now_s: float, fault: object) -> None:
    assert isinstance(
        fault, KillHost | KillReplica | Blackout | SlowDevices | CorruptReplies | RefuseRequests
    )
    # What happens to the hosts is no event of the devices: the log must not tell of it.
    if isinstance(fault, KillHost):
        timeline.kill_host(now_s)
        return
    timeline.log(now_s, rows.FAULT_BEGINS, -1, detail=fault.kind)
    if isinstance(fault, KillReplica):
        timeline.kill_replica(now_s, fault.restart_s)
