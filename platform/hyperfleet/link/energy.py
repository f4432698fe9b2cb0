"""Joules that a device's radio spends on its messages: promotion, transfer, tail.

A radio that sleeps is promoted before it can send, draws a base power and a part that grows with the
throughput while bytes move, and stays awake for a tail after the last one. The part that grows is given in
mW per Mbit/s, which is mJ per Mbit: it depends on the bytes alone, and the base on the seconds alone.

Sources; none was compared with the print itself, which was not at hand:
    lte: Huang, Qian, Gerber, Mao, Sen, Spatscheck, "A Close Examination of Performance and Power
        Characteristics of 4G LTE Networks", MobiSys 2012 (Tables 3 and 4), one phone of 2011. CHECKED: both
        slopes and their unit, power and time of the promotion and power of the tail stand, the last three
        rounded, in the LTE profile of AT&T's Application Resource Optimizer (attdevsupport/ARO,
        ARODataAnalyzer/src/lte.conf), whose company took part in the paper; an idle phone is 0 there. It
        has 1.2 W as base and 10.1 s until idle, so base and time of the tail rest on others who
        quote the paper with these very digits. Promotion and tail come to 12.6 J here; the paper says 12.76 J
        with the one packet between them.
    nr: Narayanan et al., "A Variegated Look at 5G in the Wild: Performance, Power, and QoE Implications",
        SIGCOMM 2021 (Tables 2, 7 and 8), non-standalone low-band 5G of Verizon on one phone of 2020. CHECKED:
        power of the tail and of the switch from 4G to 5G against a copy of Table 2 by others; 10.2 s until
        idle against the paper's own script (SIGCOMM21-5G/artifact, RRC-Probe/plot-section4-figure10.py); the
        uplink's slope and its unit against a text that quotes it. NOT FOUND: 1.4 s of switching, and the
        downlink's slope, which fits the 2.2 to 5.9 times as much a Mbit up as down that the same text
        quotes (2.16). The base is an ASSUMPTION: LTE's, plus the half watt by which the artifact's powers
        (Data-Transfer-Power/MN-Transfer, with screen and system) lie above LTE's at the lowest throughput.

One phone and one operator each, nine years apart: compare methods on one radio with it, not the radios.
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
        ConfigError: a value that is negative or not finite.
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
    """The radio of one device, asleep until its first use; uses come in the order of their start."""

    __slots__ = ("_awake_s", "_energy")

    def __init__(self, energy: RadioEnergy) -> None:
        self._energy = energy
        # End of the last use; None before the first one.
        self._awake_s: float | None = None

    def use(self, start_s: float, finish_s: float, num_bytes: int, uplink: bool) -> float:
        """Return the joules that a transfer adds, with the tail that will follow it.

        The tail is charged in advance to the transfer that causes it; one that comes before it is over pays
        for the time by which it is put off. Sums over transfers are those of the radio's states.

        Transfers that overlap share the base power. `num_bytes` are those on the air, sent again or not.
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
        # What a transfer that still goes on has been charged for is not charged again.
        begin_s = start_s if start_s > before_s else before_s
        if finish_s > begin_s:
            millijoules += energy.base_mw * (finish_s - begin_s)
        slope = energy.uplink_mw_per_mbit_s if uplink else energy.downlink_mw_per_mbit_s
        millijoules += slope * num_bytes * 8e-6
        self._awake_s = finish_s if finish_s > before_s else before_s
        return millijoules / 1000
