"""Printed numbers of StableSynthNet and DUET: accuracy, latency (Table 2), input, FLOPs (section 4.4)."""

from dataclasses import dataclass

from hyperfleet.papers.published.notes import FLOPS_NOT_ALIKE, LATENCY_AGAINST_PAYLOAD
from hyperfleet.papers.published.papers import MSRVTT_QA, MSVD_QA, STABLE_SYNTH_NET, TGIF_QA

DUET = "DUET"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedLatency:
    """One method's cells on one data set: accuracy in per cent, latency in seconds ("1.80s")."""

    paper: str
    table: int
    dataset: str
    method: str
    accuracy: str
    latency: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFlops:
    """Input (frames x feature) and FLOPs of a method, as the text states them."""

    paper: str
    section: str
    method: str
    input_shape: tuple[int, int]
    flops: str
    note: str = ""


_DATASETS = (MSRVTT_QA, MSVD_QA, TGIF_QA)


def _latencies(method: str, cells: str, notes: tuple[str, str, str]) -> tuple[PublishedLatency, ...]:
    """Parse 'accuracy latency' per data set, separated by '|'."""
    return tuple(
        PublishedLatency(
            paper=STABLE_SYNTH_NET,
            table=2,
            dataset=dataset,
            method=method,
            accuracy=pair.split()[0],
            latency=pair.split()[1],
            note=note,
        )
        for dataset, pair, note in zip(_DATASETS, cells.split("|"), notes, strict=True)
    )


LATENCIES = (
    *_latencies(DUET, "33.4 1.80s | 34.2 1.88s | 55.2 2.00s", ("", LATENCY_AGAINST_PAYLOAD, "")),
    *_latencies("Ours", "36.9 1.24s | 35.3 1.16s | 55.5 0.99s", ("", "", LATENCY_AGAINST_PAYLOAD)),
)

FLOPS = (
    PublishedFlops(
        paper=STABLE_SYNTH_NET,
        section="4.4",
        method=DUET,
        input_shape=(5, 192),
        flops="28.2M",
        note=FLOPS_NOT_ALIKE,
    ),
    PublishedFlops(
        paper=STABLE_SYNTH_NET,
        section="4.4",
        method="Ours",
        input_shape=(1, 192),
        flops="0.62M",
        note=FLOPS_NOT_ALIKE,
    ),
)
