"""Every error HyperFleet raises on purpose.

    HyperFleetError
    |-- ConfigError               a value refused at construction (also ValueError)
    |   |-- UnknownNameError      a name that is in no table; the message lists the valid ones
    |   `-- NotAcceptableError    no codec that a client accepts can carry the heads
    |-- DataError                 a data set, annotation or clip store that cannot be used (also ValueError)
    |   |-- VideoDecodeError      one video file that cannot be decoded
    |   `-- EmptyStreamError      a device or a split without a single sample
    |-- FeatureError              an uploaded feature of wrong length, type or value (also ValueError)
    |   `-- TooManyFeaturesError  more features than one request may carry
    |-- HeadLayoutError           a head whose tensors do not fit the device (also ValueError)
    |-- CheckpointError           a checkpoint of another model, or an incomplete one (also ValueError)
    |-- ModelNotRegisteredError   the registry holds no such generator (also LookupError)
    |-- ServiceError              the generator or the tracking store cannot be started or reached
    |-- UnauthenticatedError      a request without a valid bearer token
    |-- DeadlineError             the caller's deadline was over first
    |-- CallerGoneError           the caller left before it was answered
    `-- ComeAgainError            refused now, welcome `retry_after_s` seconds later
        |-- OverloadedError       more heads wait than may
        `-- RateLimitedError      a client asks for more than it may take now

Each message says what was wrong, what was got, what was expected and what to do.
The classes take the message, and those that ask to come again the time, so they survive pickling.
"""

from collections.abc import Iterable


class HyperFleetError(Exception):
    """Base class: catch it to catch everything HyperFleet raises on purpose."""


class ConfigError(HyperFleetError, ValueError):
    """A configuration value that cannot work."""


class UnknownNameError(ConfigError):
    """A name that stands in no table."""


class DataError(HyperFleetError, ValueError):
    """A data set, annotation file or clip store that cannot be used."""


class VideoDecodeError(DataError):
    """A video file that cannot be decoded."""


class EmptyStreamError(DataError):
    """A device or a split without a single sample."""


class FeatureError(HyperFleetError, ValueError):
    """An uploaded feature of wrong length, type or value."""


class HeadLayoutError(HyperFleetError, ValueError):
    """A head whose tensors do not fit the device that got it."""


class CheckpointError(HyperFleetError, ValueError):
    """A checkpoint of another model, or one with tensors missing."""


class ModelNotRegisteredError(HyperFleetError, LookupError):
    """The model registry holds no generator of that name, version or alias."""


class ServiceError(HyperFleetError):
    """The parameter generator or the tracking store cannot be started or reached."""


class TooManyFeaturesError(FeatureError):
    """A request asks for more heads than one may."""


class NotAcceptableError(ConfigError):
    """Heads cannot travel in any of the codecs that a client accepts."""


class UnauthenticatedError(HyperFleetError):
    """A request without a valid bearer token."""


class DeadlineError(HyperFleetError):
    """The caller's deadline was over before its heads were generated."""


class CallerGoneError(HyperFleetError):
    """A caller that left before its heads were generated."""


class ComeAgainError(HyperFleetError):
    """A request that is refused now and may be sent again `retry_after_s` seconds later."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class OverloadedError(ComeAgainError):
    """More heads wait for the generator than may."""


class RateLimitedError(ComeAgainError):
    """A client asks for more heads than it may take now."""


def unknown_name(kind: str, got: object, valid: Iterable[object]) -> UnknownNameError:
    """Build the error for a misspelt name; `valid` holds the names that exist."""
    names = ", ".join(sorted(str(name) for name in valid))
    return UnknownNameError(f"unknown {kind} {got!r}; expected one of: {names}")
