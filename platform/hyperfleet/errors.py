"""Every error HyperFleet raises on purpose.

    HyperFleetError
    |-- ConfigError               a value refused at construction (also ValueError)
    |   `-- UnknownNameError      a name that is in no table; the message lists the valid ones
    |-- DataError                 a data set, annotation or clip store that cannot be used (also ValueError)
    |   |-- VideoDecodeError      one video file that cannot be decoded
    |   `-- EmptyStreamError      a device or a split without a single sample
    |-- FeatureError              an uploaded feature of wrong length, type or value (also ValueError)
    |-- HeadLayoutError           a head whose tensors do not fit the device (also ValueError)
    |-- CheckpointError           a checkpoint of another model, or an incomplete one (also ValueError)
    |-- ModelNotRegisteredError   the registry holds no such generator (also LookupError)
    `-- ServiceError              the generator or the tracking store cannot be started or reached

Each message says what was wrong, what was got, what was expected and what to do.
The classes take the message alone, so they survive pickling between processes.
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


def unknown_name(kind: str, got: object, valid: Iterable[object]) -> UnknownNameError:
    """Build the error for a misspelt name; `valid` holds the names that exist."""
    names = ", ".join(sorted(str(name) for name in valid))
    return UnknownNameError(f"unknown {kind} {got!r}; expected one of: {names}")
