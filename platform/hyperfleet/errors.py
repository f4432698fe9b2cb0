"""The errors that HyperFleet raises on purpose.

    HyperFleetError
    |-- ConfigError               a value refused at construction (also ValueError)
    |   |-- UnknownNameError      an unknown name; the message lists the valid ones
    |   `-- NotAcceptableError    none of the codecs that a client accepts can carry the heads
    |-- DataError                 a data set, annotation or clip store that cannot be used (also ValueError)
    |   |-- VideoDecodeError      one video file that cannot be decoded
    |   `-- EmptyStreamError      a device or a split without a single sample
    |-- FeatureError              an uploaded feature of wrong length, type or value (also ValueError)
    |   `-- TooManyFeaturesError  more features than a request may carry
    |-- HeadLayoutError           a head whose tensors do not fit the device (also ValueError)
    |-- CheckpointError           a checkpoint of another model, or an incomplete one (also ValueError)
    |-- ModelNotRegisteredError   the registry holds no such generator (also LookupError)
    |-- ServiceError              the generator or the tracking store cannot be started or reached, or
    |                             refuses: `status`, `retry_after_s`, `transient`
    |-- UnauthenticatedError      a request without a valid bearer token
    |-- DeadlineError             the caller's deadline passed first
    |-- CallerGoneError           the caller left before it was answered
    `-- ComeAgainError            refused now, welcome again after `retry_after_s` seconds
        |-- OverloadedError       the queue of heads is full
        `-- RateLimitedError      a client exceeds its rate

Each message says what was wrong, what was got, what was expected and what to do.
What a caller needs beyond the message is an attribute. All of it survives pickling.
"""

from collections.abc import Iterable


class HyperFleetError(Exception):
    """Base class: catch it to catch everything HyperFleet raises on purpose."""


class ConfigError(HyperFleetError, ValueError):
    """A configuration value that cannot work."""


class UnknownNameError(ConfigError):
    """An unknown name."""


class DataError(HyperFleetError, ValueError):
    """A data set, annotation file or clip store that cannot be used."""


class VideoDecodeError(DataError):
    """A video file that cannot be decoded."""


class EmptyStreamError(DataError):
    """A device or a split without a single sample."""


class FeatureError(HyperFleetError, ValueError):
    """An uploaded feature of wrong length, type or value."""


class HeadLayoutError(HyperFleetError, ValueError):
    """A head whose tensors do not fit the device that received it."""


class CheckpointError(HyperFleetError, ValueError):
    """A checkpoint of another model, or one with tensors missing."""


class ModelNotRegisteredError(HyperFleetError, LookupError):
    """The model registry holds no generator of that name, version or alias."""


class ServiceError(HyperFleetError):
    """The parameter generator or the tracking store cannot be started or reached, or refuses.

    Attributes:
        status: HTTP status of the refusal; None if no HTTP reply came.
        retry_after_s: seconds that the service asks callers to wait before the next try; 0 if it does not.
        transient: another try may succeed.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after_s: float = 0.0, transient: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.transient = transient


class TooManyFeaturesError(FeatureError):
    """A request asks for more heads than allowed."""


class NotAcceptableError(ConfigError):
    """None of the codecs that a client accepts can carry the heads."""


class UnauthenticatedError(HyperFleetError):
    """A request without a valid bearer token."""


class DeadlineError(HyperFleetError):
    """The caller's deadline passed before its heads were generated."""


class CallerGoneError(HyperFleetError):
    """The caller left before its heads were generated."""


class ComeAgainError(HyperFleetError):
    """A request is refused now and may be sent again after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class OverloadedError(ComeAgainError):
    """The queue of heads that wait for the generator is full."""


class RateLimitedError(ComeAgainError):
    """A client asks for more heads than its rate allows."""


def unknown_name(kind: str, got: object, valid: Iterable[object]) -> UnknownNameError:
    """Return the error for a misspelt name; `valid` holds the existing names."""
    names = ", ".join(sorted(str(name) for name in valid))
    return UnknownNameError(f"unknown {kind} {got!r}; expected one of: {names}")
