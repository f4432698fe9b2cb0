"""Lookup of finished cells for the tables, and the format of their numbers."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyperfleet.evaluation.paired import PairedDifference, compare_mean
from hyperfleet.evaluation.rendering import Cell
from hyperfleet.papers.experiments.cell import CellHits, CellResult, read_hits
from hyperfleet.papers.experiments.plan import DEFAULT_FRAMES
from hyperfleet.seeding import numpy_generator

MISSING = "\u2013"


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Key of a number in a table: a method on a data set, over its seeds."""

    dataset: str
    task: str
    method: str
    num_frames: int | None = None

    @property
    def anchor(self) -> str:
        """Return the name of the group's row in the table of runs."""
        frames = f"-{self.num_frames}" if self.num_frames else ""
        return f"run-{self.dataset}-{self.task}-{self.method}{frames}".replace("_", "-")


class Measured:
    """Finished cells by group.

    Args:
        results: finished cells.
        folder: folder of the cells; their hits are read when a test needs them.
    """

    def __init__(self, results: Iterable[CellResult], folder: Path) -> None:
        self.folder = folder
        self.groups: dict[Group, list[CellResult]] = {}
        for result in results:
            train = result.spec.train
            group = Group(
                dataset=result.spec.dataset,
                task=train.task,
                method=train.method,
                num_frames=train.num_frames,
            )
            self.groups.setdefault(group, []).append(result)
        for cells in self.groups.values():
            cells.sort(key=lambda cell: cell.spec.train.seed)

    def of(self, dataset: str, task: str, method: str, num_frames: int | None = None) -> list[CellResult]:
        """Return a method's cells, one per seed; an empty list if it was not run."""
        frames = None if num_frames == DEFAULT_FRAMES else num_frames
        return self.groups.get(Group(dataset=dataset, task=task, method=method, num_frames=frames), [])

    def cell(
        self,
        cells: list[CellResult],
        value: Callable[[CellResult], float | None],
        write: Callable[[list[float]], str],
        *,
        printed: str = "",
        strong: bool = False,
    ) -> Cell:
        """Format `value` over the seeds as one cell that links to its runs, after the printed value."""
        values = [number for number in map(value, cells) if number is not None]
        text = write(values) if values else MISSING
        href = self._anchor(cells[0]) if values else ""
        return Cell(text=f"{printed} / {text}" if printed else text, strong=strong, href=href)

    def _anchor(self, result: CellResult) -> str:
        train = result.spec.train
        return Group(
            dataset=result.spec.dataset, task=train.task, method=train.method, num_frames=train.num_frames
        ).anchor

    def paired(self, base: list[CellResult], other: list[CellResult]) -> PairedDifference | None:
        """Compare two methods on the same samples: common seeds averaged, then devices paired.

        A device's value is the mean over its samples, the seeds and the task's measures. None if the methods
        share no seed.
        """
        seeds = {cell.spec.train.seed for cell in base} & {cell.spec.train.seed for cell in other}
        if not seeds:
            return None
        first, second = (self._by_device(cells, seeds) for cells in (base, other))
        rng = numpy_generator(0, "paired", base[0].spec.key, other[0].spec.key)
        return compare_mean(first, second, rng)

    def _by_device(self, cells: list[CellResult], seeds: set[int]) -> np.ndarray:
        kept = [read_hits(self.folder / cell.spec.key) for cell in cells if cell.spec.train.seed in seeds]
        means = [_device_means(hits) for hits in kept]
        average: np.ndarray = np.mean(means, axis=0)
        return average


def _device_means(hits: CellHits) -> np.ndarray:
    value = np.mean([right.astype(np.float64) for right in hits.right.values()], axis=0)
    _, place = np.unique(hits.device_id, return_inverse=True)
    means: np.ndarray = np.bincount(place, weights=value) / np.bincount(place)
    return means


def percent_spread(values: list[float]) -> str:
    """Format shares as per cent: mean, with the standard deviation if there are several seeds."""
    mean = f"{100 * statistics.fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} \u00b1 {100 * statistics.stdev(values):.1f}"


def seconds(values: list[float]) -> str:
    """Format seconds: mean over seeds."""
    mean = statistics.fmean(values)
    return f"{mean:.1f}s" if mean < 100 else f"{mean:.0f}s"


def milliseconds(values: list[float]) -> str:
    """Format seconds as milliseconds: mean over seeds."""
    return f"{1000 * statistics.fmean(values):.3g}ms"
