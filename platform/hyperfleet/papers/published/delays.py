"""Printed sizes and delays by network, and the delays that follow from the sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hyperfleet.link.network import PAPER_NETWORKS, NetworkProfile, transfer_s
from hyperfleet.papers.published.papers import (
    CDC_MMPG,
    MSRVTT_QA,
    MSVD_QA,
    NUM_CLASSES,
    STABLE_SYNTH_NET,
    TGIF_QA,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedDelay:
    """One cell of a paper's network table; `printed_ms` is None if it is not legible in our copy."""

    paper: str
    table: int
    dataset: str
    direction: str
    printed_kib: str
    network: NetworkProfile
    printed_ms: str | None


UPLOAD_KIB = "0.75"
DOWNLOAD_KIB: Mapping[str, str] = MappingProxyType({MSRVTT_QA: "568.5", MSVD_QA: "379.4", TGIF_QA: "583.8"})
_UPLOAD_MS = ("0.15", "0.05", "0.01", "0.007")
_DOWNLOAD_MS = {
    MSRVTT_QA: ("111", "37.0", "11.1", "5.55"),
    MSVD_QA: ("74", "24.7", "7.41", "3.71"),
    TGIF_QA: ("114", "38.0", "11.4", "5.70"),
}


def _delays(paper: str, table: int, *, legible: bool) -> tuple[PublishedDelay, ...]:
    return tuple(
        PublishedDelay(
            paper=paper,
            table=table,
            dataset=dataset,
            direction=direction,
            printed_kib=kib,
            network=network,
            printed_ms=printed if legible else None,
        )
        for dataset in NUM_CLASSES
        for direction, kib, cells in (
            ("up", UPLOAD_KIB, _UPLOAD_MS),
            ("down", DOWNLOAD_KIB[dataset], _DOWNLOAD_MS[dataset]),
        )
        for network, printed in zip(PAPER_NETWORKS.values(), cells, strict=True)
    )


DELAYS = (*_delays(CDC_MMPG, 6, legible=False), *_delays(STABLE_SYNTH_NET, 5, legible=True))


def delay_ms(network: NetworkProfile, direction: str, num_bytes: int) -> float:
    """Return the milliseconds that `num_bytes` take "up" or "down": size over rate, as in the papers."""
    mib_per_s = network.uplink_mib_per_s if direction == "up" else network.downlink_mib_per_s
    return 1000 * transfer_s(num_bytes, mib_per_s)
