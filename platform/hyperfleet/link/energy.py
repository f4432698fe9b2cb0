"""Radio energy of a device's messages in joules: promotion, transfer and tail.

A sleeping radio is promoted before it can send. While bytes move it draws a base power plus a part that
grows with the throughput, and it stays awake for a tail after the last byte. The growing part is given in
mW per Mbit/s, which equals mJ per Mbit: it depends only on the bytes, the base only on the seconds.

Sources; none could be compared with the printed paper:
    lte: Huang, Qian, Gerber, Mao, Sen, Spatscheck, "A Close Examination of Performance and Power
        Characteristics of 4G LTE Networks", MobiSys 2012 (Tables 3 and 4), one phone of 2011. CHECKED: both
        slopes and their unit, the power and time of the promotion and the power of the tail are, the last
        three rounded, in the LTE profile of AT&T's Application Resource Optimizer (attdevsupport/ARO,
        ARODataAnalyzer/src/lte.conf), with the idle phone at 0; AT&T took part in the paper. The profile
        has a base of 1.2 W and 10.1 s until idle, so the base and the time of the tail come from others who
        quote the paper with these digits. Promotion and tail sum to 12.6 J here; the paper gives 12.76 J
        including the one packet between them.
    nr: Narayanan et al., "A Variegated Look at 5G in the Wild: Performance, Power, and QoE Implications",
        SIGCOMM 2021 (Tables 2, 7 and 8), non-standalone low-band 5G of Verizon on one phone of 2020. CHECKED:
        power of the tail and of the switch from 4G to 5G against others' copy of Table 2; 10.2 s until
        idle against the paper's own script (SIGCOMM21-5G/artifact, RRC-Probe/plot-section4-figure10.py); the
        uplink slope and its unit against a text that quotes it. NOT FOUND: 1.4 s of switching, and the
        downlink slope. The ratio of the slopes, 2.16, is close to the 2.2 to 5.9 times more energy per Mbit
        up than down that the same text quotes. The base is an ASSUMPTION: LTE's base plus the half watt by
        which the artifact's powers (Data-Transfer-Power/MN-Transfer, with screen and system) exceed LTE's at
        the lowest throughput.

Each source measured one phone on one network, nine years apart: compare methods on one radio, not radios.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from hyperfleet.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class RadioEnergy:
    """Powers above those of the idle phone in mW, slopes in mW per Mbit/s (10^6 bit), times in seconds.

    Raises:
        ConfigError: a value is negative or not finite.
    """

    uplink_mw_per_mbit_s: float
    downlink_mw_per_mbit_s: float
    base_mw: float
    promotion_mw: float
    promotion_s: float
    tail_mw: float
    tail_s: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise ConfigError(
                    f"RadioEnergy.{field.name} must be finite and >= 0, got {value}; "
                    "write 0.0 for a part that costs nothing"
                )


RADIOS: Mapping[str, RadioEnergy] = MappingProxyType(
    {
        "lte": RadioEnergy(
            uplink_mw_per_mbit_s=438.39,
            downlink_mw_per_mbit_s=51.97,
            base_mw=1288.04,
            promotion_mw=1210.7,
            promotion_s=0.2601,
            tail_mw=1060.0,
            tail_s=11.576,
        ),
        "nr": RadioEnergy(
            uplink_mw_per_mbit_s=29.15,
            downlink_mw_per_mbit_s=13.52,
            base_mw=1788.04,
            promotion_mw=799.0,
            promotion_s=1.4,
            tail_mw=249.0,
            tail_s=10.2,
        ),
    }
)


class DeviceRadio:
    """Radio of one device, asleep until its first use. Calls must be in the order of their start times."""

    __slots__ = ("_awake_s", "_energy")

    def __init__(self, energy: RadioEnergy) -> None:
        self._energy = energy
        # End of the last use; None before the first one.
        self._awake_s: float | None = None

    def use(self, start_s: float, finish_s: float, num_bytes: int, uplink: bool) -> float:
        """Return the joules that a transfer adds, including the tail after it.

        A transfer pays for its tail in advance; one that starts during a tail pays only for the extension.
        Sums over transfers equal the sums over the radio's states.

        Overlapping transfers share the base power. `num_bytes` includes retransmissions.
        """
        energy = self._energy
        before_s = self._awake_s
        if before_s is None:
            millijoules = energy.promotion_mw * energy.promotion_s + energy.tail_mw * energy.tail_s
            before_s = start_s
        else:
            gap_s = start_s - before_s
            if gap_s > energy.tail_s:
                millijoules = energy.tail_mw * energy.tail_s + energy.promotion_mw * energy.promotion_s
            else:
                millijoules = energy.tail_mw * gap_s if gap_s > 0 else 0.0
        # Time that an ongoing transfer has already paid for is not charged again.
        begin_s = start_s if start_s > before_s else before_s
        if finish_s > begin_s:
            millijoules += energy.base_mw * (finish_s - begin_s)
        slope = energy.uplink_mw_per_mbit_s if uplink else energy.downlink_mw_per_mbit_s
        millijoules += slope * num_bytes * 8e-6
        self._awake_s = finish_s if finish_s > before_s else before_s
        return millijoules / 1000
