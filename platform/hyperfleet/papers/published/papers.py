"""The two papers, their data sets, and the contents of their tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hyperfleet.papers.published import notes

CDC_MMPG = "CDC-MMPG"
STABLE_SYNTH_NET = "StableSynthNet"
PAPER_TITLES: Mapping[str, str] = MappingProxyType(
    {
        CDC_MMPG: "Backpropogation-Free Multi-modal On-Device Model Adaptation via Cloud-Device "
        "Collaboration",
        STABLE_SYNTH_NET: "StableSynthNet: Disentangled HyperNetworks for Enhanced On-device Multi-modal "
        "Model Generalization",
    }
)

MSRVTT_QA = "MSRVTT-QA"
MSVD_QA = "MSVD-QA"
TGIF_QA = "TGIF-QA"
MULTIPLE_CHOICE = "MSRVTT-MC"
RETRIEVAL_DATASET = "MSRVTT"
# Labels of the open-ended tasks, plus one class that is never a target.
NUM_CLASSES: Mapping[str, int] = MappingProxyType({MSRVTT_QA: 1501, MSVD_QA: 1001, TGIF_QA: 1541})


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable:
    """Contents of a paper's table, its gaps, and caveats of a comparison.

    `lacks` names quantities of the comparison that the table does not print. `notes` apply to the full table;
    notes on single cells are in their records.
    """

    paper: str
    number: int
    shows: str
    lacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_COUNTS = ("D-Param", "C-Param")
_RETRIEVAL = ("D-Param", "C-Param", "time delay", "size of the gallery")
_FRAMES = ("accuracy of the generated heads", "parameters", "number of runs")
_RETRIEVAL_NOTES = (notes.RECALL_RANKS, notes.SEPARATE_TARGETS, notes.RETRIEVAL_PROTOCOL)
_FRAME_NOTES = (notes.FRAMES_ARE_FINE_TUNING, notes.FRAMES_PEAK, notes.SAME_IN_BOTH_PAPERS)

TABLES = (
    PublishedTable(
        paper=CDC_MMPG,
        number=1,
        shows="open-ended QA on MSRVTT-QA and MSVD-QA",
        notes=(
            notes.DATASET_NAMES,
            notes.LEARNABLE_MEANS_TOTAL,
            notes.FULL_METHOD_PARAMS,
            notes.DOWNLOAD_ONLY_NOTE,
            notes.MINUTE_OF_FINE_TUNING,
            notes.SEPARATE_TARGETS,
        ),
    ),
    PublishedTable(
        paper=CDC_MMPG,
        number=2,
        shows="open-ended QA on TGIF-QA",
        notes=(
            notes.TGIF_NOTE,
            notes.F_LINEAR_TGIF_NOTE,
            notes.LEARNABLE_MEANS_TOTAL,
            notes.DOWNLOAD_ONLY_NOTE,
            notes.MINUTE_OF_FINE_TUNING,
            notes.SEPARATE_TARGETS,
        ),
    ),
    PublishedTable(
        paper=CDC_MMPG,
        number=3,
        shows="retrieval on MSRVTT",
        lacks=_RETRIEVAL,
        notes=(*_RETRIEVAL_NOTES, notes.CDC_RETRIEVAL),
    ),
    PublishedTable(
        paper=CDC_MMPG, number=4, shows="Fine-tuning by number of frames", lacks=_FRAMES, notes=_FRAME_NOTES
    ),
    PublishedTable(
        paper=CDC_MMPG,
        number=5,
        shows="multiple choice on MSRVTT",
        notes=(
            notes.MULTIPLE_CHOICE_TITLE,
            notes.MC_DELAY_NOTE,
            notes.MC_CHANCE_NOTE,
            notes.FULL_METHOD_PARAMS,
            notes.SEPARATE_TARGETS,
        ),
    ),
    PublishedTable(
        paper=CDC_MMPG,
        number=6,
        shows="sizes and delays by network",
        lacks=("round trip", "generator time", "multiple choice", "retrieval"),
        notes=(notes.CDC_DELAY_TABLE_NOTE, notes.SIZE_NOTE),
    ),
    PublishedTable(
        paper=STABLE_SYNTH_NET,
        number=1,
        shows="open-ended QA on MSRVTT-QA, MSVD-QA and TGIF-QA",
        lacks=_COUNTS,
        notes=(
            notes.DATASET_NAMES,
            notes.COUNTS_NOT_PRINTED,
            notes.F_LINEAR_TGIF_NOTE,
            notes.DOWNLOAD_ONLY_NOTE,
            notes.MINUTE_OF_FINE_TUNING,
            notes.SEPARATE_TARGETS,
        ),
    ),
    PublishedTable(
        paper=STABLE_SYNTH_NET,
        number=2,
        shows="accuracy and latency beside DUET on MSRVTT-QA, MSVD-QA and TGIF-QA",
        lacks=(*_COUNTS, "payload", "network", "hardware", "parts of the latency"),
        notes=(notes.LATENCY_AGAINST_PAYLOAD, notes.FLOPS_NOT_ALIKE),
    ),
    PublishedTable(
        paper=STABLE_SYNTH_NET,
        number=3,
        shows="retrieval on MSRVTT",
        lacks=_RETRIEVAL,
        notes=(*_RETRIEVAL_NOTES, notes.STABLE_RETRIEVAL),
    ),
    PublishedTable(
        paper=STABLE_SYNTH_NET,
        number=4,
        shows="Fine-tuning by number of frames",
        lacks=_FRAMES,
        notes=_FRAME_NOTES,
    ),
    PublishedTable(
        paper=STABLE_SYNTH_NET,
        number=5,
        shows="sizes and delays by network",
        lacks=("round trip", "generator time", "multiple choice", "retrieval"),
        notes=(notes.SIZE_NOTE,),
    ),
    PublishedTable(
        paper=STABLE_SYNTH_NET,
        number=6,
        shows="multiple choice on MSRVTT",
        lacks=_COUNTS,
        notes=(
            notes.MULTIPLE_CHOICE_TITLE,
            notes.MC_DELAY_NOTE,
            notes.MC_CHANCE_NOTE,
            notes.SEPARATE_TARGETS,
        ),
    ),
)


def table(paper: str, number: int) -> PublishedTable:
    """Return the record of a paper's table; KeyError if the paper prints no such table of results."""
    for record in TABLES:
        if (record.paper, record.number) == (paper, number):
            return record
    raise KeyError((paper, number))
