"""Personalization latency of a fleet run: p50, p99 and mean of each part, overall and by network."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hyperfleet.errors import DataError

PARTS = ("uplink", "queue", "generate", "downlink", "apply")
TOTAL = "total"
ALL_NETWORKS = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantiles:
    """Where a latency lies, in seconds."""

    p50_s: float
    p99_s: float
    mean_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencySplit:
    """Latency of the requests of one network that got a head.

    `parts` maps each of `PARTS` and `TOTAL` to its quantiles. Means add up to the mean total;
    quantiles do not, for the slowest upload is not the slowest generation.
    """

    network: str
    num_requests: int
    parts: Mapping[str, Quantiles]
    mean_uplink_bytes: float
    mean_downlink_bytes: float


def latency_splits(events: pa.Table) -> tuple[LatencySplit, ...]:
    """Summarise latency over all networks first, then network by network.

    Rows with a `fallback` are left out: no head arrived, so there is no latency of one.

    Raises:
        DataError: a latency that is negative or not finite.
    """
    events = events.filter(pc.equal(pc.fill_null(events["fallback"].cast(pa.string()), ""), ""))
    parts_s = {part: events[f"{part}_s"].cast(pa.float64()).to_numpy() for part in PARTS}
    for part, seconds in parts_s.items():
        num_bad = int((~(np.isfinite(seconds) & (seconds >= 0))).sum())
        if num_bad:
            raise DataError(
                f"column {part}_s must be finite and >= 0 where a head arrived, got {num_bad} other values "
                f"of {len(seconds)}; a request that failed must name its reason in 'fallback'"
            )
    parts_s[TOTAL] = np.sum(list(parts_s.values()), axis=0)
    sizes = [events[name].cast(pa.float64()).to_numpy() for name in ("uplink_bytes", "downlink_bytes")]
    network = np.asarray(events["network"].cast(pa.string()).to_numpy(zero_copy_only=False), dtype=object)
    names = sorted(set(network.tolist()), key=_natural_order)
    masks = {ALL_NETWORKS: np.ones(len(network), dtype=bool)} | {name: network == name for name in names}
    return tuple(_split(name, mask, parts_s, sizes) for name, mask in masks.items() if mask.any())


def _split(
    network: str, mask: np.ndarray, parts_s: Mapping[str, np.ndarray], sizes: list[np.ndarray]
) -> LatencySplit:
    parts = {}
    for part, seconds in parts_s.items():
        p50_s, p99_s = np.percentile(seconds[mask], [50, 99])
        parts[part] = Quantiles(p50_s=float(p50_s), p99_s=float(p99_s), mean_s=float(seconds[mask].mean()))
    uplink_bytes, downlink_bytes = (float(size[mask].mean()) for size in sizes)
    return LatencySplit(
        network=network,
        num_requests=int(mask.sum()),
        parts=parts,
        mean_uplink_bytes=uplink_bytes,
        mean_downlink_bytes=downlink_bytes,
    )


def _natural_order(name: str) -> list[tuple[int, float, str]]:
    """Sort key under which "4G 15" follows "4G 5"."""
    words = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(0, float(word), "") if index % 2 else (1, 0.0, word) for index, word in enumerate(words)]
