"""Faults of a scenario, as queries of the running timeline."""

from collections.abc import Iterator

from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.faults import (
    Blackout,
    ClockSkew,
    CorruptReplies,
    Fault,
    KillHost,
    KillReplica,
    RefuseRequests,
    SlowDevices,
)
from hyperfleet.seeding import uniform

# Streams of draws; those below 16 are the timeline's own.
_FIRST_STREAM = 16


class Disturbances:
    """Active faults at a time, for a device or a request.

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

    def spans(self) -> Iterator[tuple[Fault, float, float | None]]:
        """Yield each fault that the log shows or that kills, when it begins, and when it ends if it does."""
        for _, fault in self._faults:
            if isinstance(fault, KillHost):
                yield fault, fault.at_s, None
            elif isinstance(fault, KillReplica):
                yield fault, fault.at_s, fault.at_s + fault.restart_s
            elif not isinstance(fault, ClockSkew):
                yield fault, fault.from_s, fault.to_s

    def slowdown(self, device: int, now_s: float) -> float:
        """Return by which factor a device computes more slowly than usual."""
        factor = 1.0
        for stream, fault in self._slow:
            if fault.from_s <= now_s < fault.to_s and uniform(self._seed, stream, device, 0) < fault.share:
                factor *= fault.factor
        return factor

    def refuses(self, device: int, number: int, attempt: int, now_s: float) -> tuple[int, float] | None:
        """Return status and Retry-After in seconds if a fault refuses the request."""
        for stream, fault in self._refusals:
            if fault.from_s <= now_s < fault.to_s and self._hits(
                stream, device, number, attempt, fault.share
            ):
                return fault.status, fault.retry_after_s
        return None

    def damages(self, device: int, number: int, attempt: int, now_s: float) -> str | None:
        """Return the damage of a reply that arrives; None if it is intact."""
        for stream, fault in self._damages:
            if fault.from_s <= now_s < fault.to_s and self._hits(
                stream, device, number, attempt, fault.share
            ):
                return "truncated" if fault.truncated else "checksum"
        return None

    def skew_s(self, device: int) -> float:
        """Return by how many seconds the clock of a device is ahead."""
        skews = (
            fault.skew_s
            for stream, fault in self._skews
            if uniform(self._seed, stream, device, 0) < fault.share
        )
        return sum(skews, start=0.0)

    def _hits(self, stream: int, device: int, number: int, attempt: int, share: float) -> bool:
        return uniform(self._seed, stream, device, number * 64 + attempt) < share
