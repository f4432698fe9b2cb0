"""Printed accuracy and time per epoch of Fine-tuning by number of frames (Table 4 of both papers)."""

from dataclasses import dataclass

from hyperfleet.papers.published.papers import (
    CDC_MMPG,
    MSRVTT_QA,
    MSVD_QA,
    STABLE_SYNTH_NET,
    TGIF_QA,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFrames:
    """One cell pair of a paper's table of frame numbers: accuracy in per cent, time in seconds ("740s")."""

    paper: str
    table: int
    dataset: str
    num_frames: int
    accuracy: str
    time_per_epoch: str


_DATASETS = (MSRVTT_QA, MSVD_QA, TGIF_QA)
# Frames, then accuracy and Time/Epoch of each data set. Both papers print the same cells.
_ROWS = """
    2 | 36.1  740s | 34.1 204s | 54.3 245s
    3 | 36.7  897s | 34.3 228s | 54.7 310s
    4 | 37.0 1309s | 34.3 318s | 54.7 448s
    5 | 37.1 2092s | 34.0 377s | 55.2 702s
    """


def _frames(paper: str) -> tuple[PublishedFrames, ...]:
    records = []
    for row in _ROWS.strip().splitlines():
        num_frames, *cells = row.split("|")
        for dataset, cell in zip(_DATASETS, cells, strict=True):
            accuracy, time_per_epoch = cell.split()
            records.append(
                PublishedFrames(
                    paper=paper,
                    table=4,
                    dataset=dataset,
                    num_frames=int(num_frames),
                    accuracy=accuracy,
                    time_per_epoch=time_per_epoch,
                )
            )
    return tuple(records)


FRAMES = (*_frames(CDC_MMPG), *_frames(STABLE_SYNTH_NET))
