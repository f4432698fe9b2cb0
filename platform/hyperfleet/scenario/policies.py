"""When a device asks for a new head.

Between two heads it goes on with the one it has, and the head grows old.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from hyperfleet.errors import ConfigError
from hyperfleet.scenario.two_sample import can_drift


@runtime_checkable
class HeadAge(Protocol):
    """What a policy may know about a device when a sample arrives."""

    @property
    def has_head(self) -> bool:
        """Whether it ever got a head."""
        ...

    @property
    def samples_since_head(self) -> int:
        """Samples that arrived since it last asked with success."""
        ...

    @property
    def idle_s(self) -> float:
        """Seconds since the sample before; infinite at the first one."""
        ...

    def drifted(self, window: int, p_value: float) -> bool:
        """Whether the newest `window` features differ from those around the last head."""
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
    """Ask at the first sample of a session; `gap_s` seconds without a sample end one."""

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
        """Return whether n samples have come since the last head."""
        return not age.has_head or age.samples_since_head >= self.n


@dataclass(frozen=True, kw_only=True, slots=True)
class OnDrift:
    """Ask when the features moved: a two-sample test between those around the last head and the newest.

    Both samples hold `window` features. It is made once every `window` samples: made at each, it would
    reject sooner or later whatever happens.
    """

    window: int = 16
    p_value: float = 0.01
    kind: Literal["on-drift"] = "on-drift"

    def __post_init__(self) -> None:
        if self.window < 4:
            raise ConfigError(f"OnDrift.window must be >= 4 features to compare, got {self.window}")
        if not 0 < self.p_value < 1:
            raise ConfigError(f"OnDrift.p_value must lie between 0 and 1, got {self.p_value}")
        if not can_drift(self.window, self.window, self.p_value):
            raise ConfigError(
                f"OnDrift.p_value {self.p_value} can never be reached with windows of {self.window}; "
                "take a longer window or a larger p_value"
            )

    def asks(self, age: HeadAge) -> bool:
        """Return whether a full window differs from the one around the last head."""
        if not age.has_head:
            return True
        due = age.samples_since_head >= 2 * self.window and age.samples_since_head % self.window == 0
        return due and age.drifted(self.window, self.p_value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Never:
    """Never ask: the static head of the personal model answers everything."""

    kind: Literal["never"] = "never"

    def asks(self, age: HeadAge) -> bool:
        """Return False."""
        return False


RequestPolicy = EverySample | OncePerSession | EveryN | OnDrift | Never

# For the command line; a scenario in Python takes any of the classes with any numbers.
POLICIES: dict[str, Callable[[], RequestPolicy]] = {
    "every-sample": EverySample,
    "once-per-session": OncePerSession,
    "every-n": EveryN,
    "on-drift": OnDrift,
    "never": Never,
}
