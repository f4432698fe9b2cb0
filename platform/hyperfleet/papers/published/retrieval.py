"""Printed recalls of each method in retrieval (Table 3 of both papers)."""

from collections.abc import Mapping
from dataclasses import dataclass

from hyperfleet.papers.published.notes import CDC_RETRIEVAL, STABLE_RETRIEVAL
from hyperfleet.papers.published.papers import CDC_MMPG, RETRIEVAL_DATASET, STABLE_SYNTH_NET

# VR: from a video to its text; TR: from a text to its video.
RETRIEVAL_COLUMNS = ("VR@1", "VR@5", "VR@10", "TR@1", "TR@5", "TR@10")


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRetrieval:
    """One method's row in a paper's retrieval table; `recalls` are per cent, one per RETRIEVAL_COLUMNS."""

    paper: str
    table: int
    dataset: str
    method: str
    recalls: tuple[str, ...]
    note: str = ""


def _retrieval(paper: str, rows: str, notes: Mapping[str, str]) -> tuple[PublishedRetrieval, ...]:
    """Parse rows of 'method | recall ...', recalls in the order of RETRIEVAL_COLUMNS."""
    records = []
    for row in rows.strip().splitlines():
        method, recalls = (cell.strip() for cell in row.split("|"))
        records.append(
            PublishedRetrieval(
                paper=paper,
                table=3,
                dataset=RETRIEVAL_DATASET,
                method=method,
                recalls=tuple(recalls.split()),
                note=notes.get(method, ""),
            )
        )
    return tuple(records)


RETRIEVAL = (
    *_retrieval(CDC_MMPG, """
        F-linear    | 2.0  7.7 14.1  3.1 10.1 16.9
        Fine-tuning | 4.8 17.6 27.9  6.2 20.7 31.8
        F-hyper     | 2.6  8.6 14.7  2.7 11.4 17.6
        Ours        | 6.6 21.3 33.8  5.6 21.2 33.3
        """, {"Ours": CDC_RETRIEVAL}),
    *_retrieval(STABLE_SYNTH_NET, """
        F-linear    | 2.0  7.7 14.1  3.1 10.1 16.9
        Fine-tuning | 4.8 17.6 27.9  6.2 20.7 31.8
        F-hyper     | 2.6  8.6 14.7  2.7 11.4 17.6
        Ours        | 5.8 20.2 31.2  6.4 20.4 33.1
        """, {"Ours": STABLE_RETRIEVAL}),
)  # fmt: skip
