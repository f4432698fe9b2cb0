"""Device profiles: the kinds of devices in a fleet."""

from dataclasses import dataclass
from typing import Literal

from hyperfleet.errors import ConfigError

Cameras = Literal["all", "seen", "held-out"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceProfile:
    """A kind of device.

    Attributes:
        name: shown in tables.
        share: relative frequency among the profiles of a fleet.
        gmac_per_s: speed on these models, in billions of multiply-accumulates per second.
        compute_w: power of computing above idle, in watts.
        memory_mib: memory for models and heads; a device that cannot hold them is refused.
        battery_j: energy available in a run, in joules; None is mains. A device with an empty battery
            answers nothing.
        cameras: devices of the data set whose material it films: all, those seen in training, or those held
            out.

    Raises:
        ConfigError: a value out of range.
    """

    name: str
    share: float = 1.0
    gmac_per_s: float = 20.0
    compute_w: float = 2.0
    memory_mib: float = 512.0
    battery_j: float | None = None
    cameras: Cameras = "all"

    def __post_init__(self) -> None:
        for name in ("share", "gmac_per_s", "memory_mib"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"DeviceProfile.{name} must be finite and > 0, got {getattr(self, name)} ({self.name!r})"
                )
        if not 0 <= self.compute_w < float("inf"):
            raise ConfigError(f"DeviceProfile.compute_w must be finite and >= 0, got {self.compute_w}")
        if self.battery_j is not None and not self.battery_j > 0:
            raise ConfigError(
                f"DeviceProfile.battery_j must be > 0 joules, or None for mains, got {self.battery_j}"
            )
        if self.cameras not in ("all", "seen", "held-out"):
            raise ConfigError(
                f"DeviceProfile.cameras must be 'all', 'seen' or 'held-out', got {self.cameras!r}"
            )


# Round figures of the order that mobile benchmarks report in float32: 10 to 40 GMAC/s for a phone core, less
# for microcontroller-class camera chips. Replace them with those of your devices.
PHONE = DeviceProfile(name="phone", gmac_per_s=20.0, compute_w=2.0, memory_mib=512.0)
OLD_PHONE = DeviceProfile(name="old phone", gmac_per_s=5.0, compute_w=1.5, memory_mib=256.0)
CAMERA = DeviceProfile(name="camera", gmac_per_s=2.0, compute_w=0.8, memory_mib=128.0)
