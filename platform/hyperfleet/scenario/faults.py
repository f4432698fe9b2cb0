"""Faults of a run: part of the scenario, so that every run repeats them."""

from dataclasses import dataclass
from typing import Literal

from hyperfleet.errors import ConfigError


def _check_time(fault: str, at_s: float) -> None:
    if not 0 <= at_s < float("inf"):
        raise ConfigError(f"{fault}.at_s must be finite and >= 0 seconds, got {at_s}")


def _check_span(fault: str, from_s: float, to_s: float) -> None:
    if not 0 <= from_s < to_s < float("inf"):
        raise ConfigError(f"{fault} must begin at >= 0 s and end later, got {from_s} s to {to_s} s")


def _check_share(fault: str, share: float) -> None:
    if not 0 < share <= 1:
        raise ConfigError(f"{fault}.share must be above 0 and at most 1, got {share}")


@dataclass(frozen=True, kw_only=True, slots=True)
class KillHost:
    """A host process is killed; the log must not change."""

    at_s: float
    kind: Literal["kill-host"] = "kill-host"

    def __post_init__(self) -> None:
        _check_time("KillHost", self.at_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class KillReplica:
    """A generator replica dies with the heads in its batch and restarts after `restart_s`."""

    at_s: float
    restart_s: float = 5.0
    kind: Literal["kill-replica"] = "kill-replica"

    def __post_init__(self) -> None:
        _check_time("KillReplica", self.at_s)
        if not self.restart_s > 0:
            raise ConfigError(f"KillReplica.restart_s must be > 0 seconds, got {self.restart_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Blackout:
    """A network carries nothing; None means all networks."""

    from_s: float
    to_s: float
    network: str | None = None
    kind: Literal["blackout"] = "blackout"

    def __post_init__(self) -> None:
        _check_span("Blackout", self.from_s, self.to_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowDevices:
    """A share of the devices computes `factor` times more slowly, e.g. because of heat."""

    from_s: float
    to_s: float
    share: float = 0.1
    factor: float = 5.0
    kind: Literal["slow-devices"] = "slow-devices"

    def __post_init__(self) -> None:
        _check_span("SlowDevices", self.from_s, self.to_s)
        _check_share("SlowDevices", self.share)
        if not self.factor > 1:
            raise ConfigError(f"SlowDevices.factor must be > 1, got {self.factor}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptReplies:
    """A share of the replies arrives damaged or truncated; the device detects it and asks again."""

    from_s: float
    to_s: float
    share: float = 0.1
    truncated: bool = False
    kind: Literal["corrupt-replies"] = "corrupt-replies"

    def __post_init__(self) -> None:
        _check_span("CorruptReplies", self.from_s, self.to_s)
        _check_share("CorruptReplies", self.share)


@dataclass(frozen=True, kw_only=True, slots=True)
class RefuseRequests:
    """The service refuses a share of the requests with 429 or 503 and a Retry-After."""

    from_s: float
    to_s: float
    share: float = 1.0
    status: Literal[429, 503] = 429
    retry_after_s: float = 1.0
    kind: Literal["refuse-requests"] = "refuse-requests"

    def __post_init__(self) -> None:
        _check_span("RefuseRequests", self.from_s, self.to_s)
        _check_share("RefuseRequests", self.share)
        if self.status not in (429, 503):
            raise ConfigError(f"RefuseRequests.status must be 429 or 503, got {self.status}")
        if not self.retry_after_s >= 0:
            raise ConfigError(f"RefuseRequests.retry_after_s must be >= 0 seconds, got {self.retry_after_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockSkew:
    """The clocks of a share of the devices are `skew_s` ahead; their reports carry these times."""

    share: float = 0.1
    skew_s: float = 30.0
    kind: Literal["clock-skew"] = "clock-skew"

    def __post_init__(self) -> None:
        _check_share("ClockSkew", self.share)
        if self.skew_s == 0 or abs(self.skew_s) == float("inf"):
            raise ConfigError(f"ClockSkew.skew_s must be finite and not 0, got {self.skew_s}")


Fault = KillHost | KillReplica | Blackout | SlowDevices | CorruptReplies | RefuseRequests | ClockSkew
