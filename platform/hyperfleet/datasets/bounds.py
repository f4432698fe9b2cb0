"""Bounds of the numbers that configure a data set."""

from collections.abc import Mapping

from hyperfleet.errors import ConfigError

# Lower qualities blur what distinguishes the cameras.
MIN_JPEG_QUALITY = 90
# Of every configuration that a clip store is built from.
STORE_BOUNDS: Mapping[str, tuple[int, int]] = {
    "seed": (0, 2**63 - 1),
    "store_short_side": (16, 1080),
    "stored_frames": (1, 64),
    "store_quality": (MIN_JPEG_QUALITY, 100),
}


def check_bounds(config: object, bounds: Mapping[str, tuple[int, int]]) -> None:
    """Refuse numbers of a configuration that are out of their bounds.

    Raises:
        ConfigError: a field is below its lower or above its upper bound.
    """
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} must be in {low}..{high}, got {value}")
