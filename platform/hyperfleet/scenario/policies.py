"""Request policies: when a device asks for a new head. Until then it reuses the last one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from hyperfleet.errors import ConfigError
from hyperfleet.scenario.two_sample import can_drift


@runtime_checkable
class HeadAge(Protocol):
    """The state of a device that a policy sees when a sample arrives."""

    @property
    def has_head(self) -> bool:
        """Whether the device has received a head."""
        ...

    @property
    def samples_since_head(self) -> int:
        """Samples since the last successful request."""
        ...

    @property
    def idle_s(self) -> float:
        """Seconds since the previous sample; infinite at the first one."""
        ...

    def drifted(self, window: int, p_value: float) -> bool:
        """Return whether the newest `window` features differ from those around the last head."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class EverySample:
    """Ask for every sample, as both papers do."""

    kind: Literal["every-sample"] = "every-sample"

    def asks(self, age: HeadAge) -> bool:
        """Return True."""
        return True


@dataclass(frozen=True, kw_only=True, slots=True)
class OncePerSession:
    """Ask at the first sample of a session; a session ends after `gap_s` seconds without a sample."""

    gap_s: float = 300.0
    kind: Literal["once-per-session"] = "once-per-session"

    def __post_init__(self) -> None:
        if not self.gap_s > 0:
            raise ConfigError(f"OncePerSession.gap_s must be > 0 seconds, got {self.gap_s}")

    def asks(self, age: HeadAge) -> bool:
        """Return whether a session begins."""
        return not age.has_head or age.idle_s >= self.gap_s


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryN:
    """Ask for every n-th sample."""

    n: int = 8
    kind: Literal["every-n"] = "every-n"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"EveryN.n must be >= 1, got {self.n}")

    def asks(self, age: HeadAge) -> bool:
        """Return whether n samples have arrived since the last head."""
        return not age.has_head or age.samples_since_head >= self.n


@dataclass(frozen=True, kw_only=True, slots=True)
class OnDrift:
    """Ask when a two-sample test finds that the newest features differ from those around the last head.

    Each of the two samples holds `window` features. The test runs once per `window` samples: at every
    sample, it would reject sooner or later even without drift.
    """

    window: int = 16
    p_value: float = 0.01
    kind: Literal["on-drift"] = "on-drift"

    def __post_init__(self) -> None:
        if self.window < 4:
            raise ConfigError(f"OnDrift.window must be >= 4 features, got {self.window}")
        if not 0 < self.p_value < 1:
            raise ConfigError(f"OnDrift.p_value must be between 0 and 1, got {self.p_value}")
        if not can_drift(self.window, self.window, self.p_value):
            raise ConfigError(
                f"OnDrift.p_value {self.p_value} cannot be reached with windows of {self.window} features; "
                "choose a longer window or a larger p_value"
            )

    def asks(self, age: HeadAge) -> bool:
        """Return whether a full window differs from the one around the last head."""
        if not age.has_head:
            return True
        due = age.samples_since_head >= 2 * self.window and age.samples_since_head % self.window == 0
        return due and age.drifted(self.window, self.p_value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Never:
    """Never ask: the static head of the personal model answers all samples."""

    kind: Literal["never"] = "never"

    def asks(self, age: HeadAge) -> bool:
        """Return False."""
        return False


RequestPolicy = EverySample | OncePerSession | EveryN | OnDrift | Never

# Names for the command line, with default parameters.
POLICIES: dict[str, Callable[[], RequestPolicy]] = {
    "every-sample": EverySample,
    "once-per-session": OncePerSession,
    "every-n": EveryN,
    "on-drift": OnDrift,
    "never": Never,
}
