"""Mobile networks of the papers, and the transfer time of a message.

Link time is computed from the message size. Virtual time does not wait for it: thousands of devices run as
fast as the machine allows, and the report still shows how long their users would have waited.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hyperfleet.errors import ConfigError

# The papers write "MB/s" and divide KiB by 1024: only this unit reproduces their printed cells.
BYTES_PER_MIB = 1 << 20
BYTES_PER_MBIT = 1e6 / 8


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkProfile:
    """Speed of a link in each direction, in MiB/s.

    Raises:
        ConfigError: a speed is not finite or not above zero.
    """

    name: str
    label: str
    uplink_mib_per_s: float
    downlink_mib_per_s: float

    def __post_init__(self) -> None:
        for direction in ("uplink_mib_per_s", "downlink_mib_per_s"):
            speed = getattr(self, direction)
            if not 0 < speed < float("inf"):
                raise ConfigError(
                    f"NetworkProfile.{direction} must be finite and > 0, got {speed}; "
                    "an offline device has no link"
                )

    def downlink_s(self, num_bytes: int) -> float:
        """Return the seconds that `num_bytes` take from the cloud to the device."""
        return transfer_s(num_bytes, self.downlink_mib_per_s)


def transfer_s(num_bytes: int, mib_per_s: float) -> float:
    """Return the seconds that `num_bytes` take at `mib_per_s`: size over bandwidth, as in the papers.

    Raises:
        ConfigError: the size is negative, or the speed is not above zero.
    """
    if num_bytes < 0 or not mib_per_s > 0:
        raise ConfigError(
            f"a transfer needs num_bytes >= 0 and a speed > 0, got {num_bytes} bytes at {mib_per_s} MiB/s"
        )
    return num_bytes / BYTES_PER_MIB / mib_per_s


def _symmetric(name: str, label: str, mib_per_s: float) -> NetworkProfile:
    return NetworkProfile(name=name, label=label, uplink_mib_per_s=mib_per_s, downlink_mib_per_s=mib_per_s)


# CDC-MMPG, Tab. 6, and StableSynthNet, Tab. 5, which print one speed for both directions.
PAPER_NETWORKS: Mapping[str, NetworkProfile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            _symmetric("4g-5", "4G (5MB/s)", 5.0),
            _symmetric("4g-15", "4G (15MB/s)", 15.0),
            _symmetric("5g-50", "5G (50MB/s)", 50.0),
            _symmetric("5g-100", "5G (100MB/s)", 100.0),
        )
    }
)
