"""The papers' own tables, one builder per kind; each cell is *paper / ours*."""

import statistics
from collections.abc import Callable

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.rendering import Cell, Table, row
from hyperfleet.link.network import PAPER_NETWORKS
from hyperfleet.messages import FEATURE_BYTES
from hyperfleet.papers import published
from hyperfleet.papers.experiments.cell import CellResult
from hyperfleet.papers.experiments.plan import FLEETQA
from hyperfleet.papers.tables import modules
from hyperfleet.papers.tables.measured import (
    MISSING,
    Measured,
    percent_spread,
    seconds,
)
from hyperfleet.tasks import MULTIPLE_CHOICE, OPEN_ENDED_QA, RETRIEVAL

OURS = {published.CDC_MMPG: "cdc_mmpg", published.STABLE_SYNTH_NET: "stable_synth_net"}
BASELINES = {"F-linear": "f_linear", "Fine-tuning": "fine_tuning", "F-hyper": "f_hyper", "DUET": "duet"}
# The data sets as `hyperfleet data prepare` names them.
PREPARED = {
    published.MSRVTT_QA: "msrvtt-qa",
    published.MSVD_QA: "msvd-qa",
    published.TGIF_QA: "tgif-frameqa",
    published.MULTIPLE_CHOICE: "msrvtt-mc",
    published.RETRIEVAL_DATASET: "msrvtt-retrieval",
}
FASTEST = list(PAPER_NETWORKS.values())[-1]
CELL_NOTE = (
    f"Cells read paper / ours; {MISSING}: the paper prints nothing, or the cell was not run here (the data "
    "set is not on disk). FleetQA is rendered, so no paper has numbers for it. Ours: "
    "mean \u00b1 standard deviation over seeds."
)
STATIC_NOTE = (
    "Time delay, ours: download of one head at 5G (100MB/s). The papers' 60000 ms of static methods mean "
    "fine-tuning again; static heads here are not adapted, so nothing is measured."
)
ANALYTIC_NOTE = (
    "D-Param and C-Param are counted in the modules at the data set's number of classes; the part of the "
    "papers' full C-Param beyond f_h is unknown, and ours is the generator that was run."
)
Values = Callable[[CellResult], float | None]


def accuracy(cell: CellResult) -> float | None:
    """Return the share of live samples answered right."""
    return cell.measures.get("accuracy")


def measure(name: str) -> Values:
    """Return a function that reads one measure."""
    return lambda cell: cell.measures.get(name)


def key_of(paper: str, name: str) -> str:
    """Return our name of a paper's method."""
    return OURS[paper] if name == "Ours" else BASELINES[name]


def paper_tables(measured: Measured) -> tuple[Table, ...]:
    """Build the tables of both papers in their order."""
    first, second = published.CDC_MMPG, published.STABLE_SYNTH_NET
    return (
        methods_table(measured, first, 1, OPEN_ENDED_QA),
        methods_table(measured, first, 2, OPEN_ENDED_QA),
        retrieval_table(measured, first),
        frames_table(measured, first),
        methods_table(measured, first, 5, MULTIPLE_CHOICE),
        network_table(measured, first, 6),
        methods_table(measured, second, 1, OPEN_ENDED_QA),
        duet_table(measured),
        retrieval_table(measured, second),
        frames_table(measured, second),
        network_table(measured, second, 5),
        methods_table(measured, second, 6, MULTIPLE_CHOICE),
    )


def methods_table(measured: Measured, paper: str, number: int, task: str) -> Table:
    """Accuracy, parameters and time delay by method, for both question answering tasks."""
    records = [r for r in published.METHODS if (r.paper, r.table) == (paper, number)]
    rows = [
        _row(record.dataset, record.method, paper, *_method_cells(measured, record, task))
        for record in records
    ]
    for name in dict.fromkeys(record.method for record in records):
        cells = measured.of(FLEETQA, task, key_of(paper, name))
        shown = measured.cell(cells, accuracy, percent_spread)
        rows.append(_row("FleetQA", name, paper, shown, *[Cell(text=MISSING)] * 3))
    notes = [record.note for record in records if record.note]
    columns = ["Data set, method", "Accuracy", "D-Param", "C-Param", "Time delay"]
    return _table(paper, number, columns, rows, (*notes, STATIC_NOTE, ANALYTIC_NOTE))


def _row(dataset: str, name: str, paper: str, *cells: Cell) -> tuple[Cell, ...]:
    ours = name == "Ours"
    return row(f"{dataset}, {f'Ours: {OURS[paper]}' if ours else name}", *cells, strong=ours)


def _method_cells(measured: Measured, record: published.PublishedMethod, task: str) -> list[Cell]:
    key = key_of(record.paper, record.method)
    ours = measured.of(PREPARED[record.dataset], task, key)
    cloud = modules.cloud_params(record.dataset, key)
    size = modules.download_bytes(record.dataset, key)
    device_params = wording.millions(modules.device_params(record.dataset))
    return [
        measured.cell(ours, accuracy, percent_spread, printed=record.accuracy),
        _beside(record.device_params, device_params),
        _beside(record.cloud_params, "/" if cloud is None else wording.millions(cloud)),
        _beside(record.time_delay, MISSING if size is None else _delay(size)),
    ]


def retrieval_table(measured: Measured, paper: str) -> Table:
    """Recall from video to text and from text to video."""
    records = [record for record in published.RETRIEVAL if record.paper == paper]
    names = published.RETRIEVAL_COLUMNS
    rows, rendered = [], []
    for record in records:
        key = key_of(paper, record.method)
        ours = measured.of(PREPARED[record.dataset], RETRIEVAL, key)
        cells = [
            measured.cell(ours, measure(name), percent_spread, printed=printed)
            for name, printed in zip(names, record.recalls, strict=True)
        ]
        rows.append(_row(record.dataset, record.method, paper, *cells))
        own = measured.of(FLEETQA, RETRIEVAL, key)
        shown = [measured.cell(own, measure(name), percent_spread) for name in names]
        rendered.append(_row("FleetQA", record.method, paper, *shown))
    notes = [record.note for record in records if record.note]
    return _table(paper, 3, ["Data set, method", *names], [*rows, *rendered], tuple(notes))


def frames_table(measured: Measured, paper: str) -> Table:
    """Accuracy and time per epoch of Fine-tuning by number of frames."""
    records = [record for record in published.FRAMES if record.paper == paper]
    rows = []
    for data in dict.fromkeys(record.dataset for record in records):
        for record in (each for each in records if each.dataset == data):
            ours = measured.of(PREPARED[data], OPEN_ENDED_QA, "fine_tuning", record.num_frames)
            cells = (
                measured.cell(ours, accuracy, percent_spread, printed=record.accuracy),
                measured.cell(ours, _epoch_s, seconds, printed=record.time_per_epoch),
            )
            rows.append(row(f"{data}, {record.num_frames} frames", *cells))
    for number in dict.fromkeys(record.num_frames for record in records):
        own = measured.of(FLEETQA, OPEN_ENDED_QA, "fine_tuning", number)
        shown = (measured.cell(own, accuracy, percent_spread), measured.cell(own, _epoch_s, seconds))
        rows.append(row(f"FleetQA, {number} frames", *shown))
    note = "Time per epoch, ours: one core per cell, all cores busy; the papers': one A100 GPU."
    return _table(paper, 4, ["Data set", "Accuracy", "Time/epoch"], rows, (note,))


def _epoch_s(cell: CellResult) -> float | None:
    return cell.epoch_s


def duet_table(measured: Measured) -> Table:
    """StableSynthNet beside DUET: accuracy, latency, multiplications and upload."""
    paper = published.STABLE_SYNTH_NET
    rows = []
    for record in published.LATENCIES:
        key = key_of(paper, record.method)
        ours = measured.of(PREPARED[record.dataset], OPEN_ENDED_QA, key)
        # The text prints the count once, without naming the data set.
        flops = next((each.flops for each in published.FLOPS if each.method == record.method), None)
        macs = modules.generator_macs(record.dataset, key) or ()
        counted = " + ".join(wording.millions(count) for count in macs)
        cells = (
            measured.cell(ours, accuracy, percent_spread, printed=record.accuracy),
            measured.cell(ours, latency_s, _latency, printed=record.latency),
            _beside(flops, counted),
            Cell(text=wording.kib(modules.upload_bytes(key))),
        )
        rows.append(_row(record.dataset, record.method, paper, *cells))
    for name in dict.fromkeys(record.method for record in published.LATENCIES):
        own = measured.of(FLEETQA, OPEN_ENDED_QA, key_of(paper, name))
        shown = (measured.cell(own, accuracy, percent_spread), measured.cell(own, latency_s, _latency))
        upload = Cell(text=wording.kib(modules.upload_bytes(key_of(paper, name))))
        rows.append(_row("FleetQA", name, paper, *shown, Cell(text=MISSING), upload))
    note = (
        "Latency, ours: median time to generate one head on one thread and apply it, without encoder and "
        "network; the paper does not define its latency. Multiply-accumulates, ours: before f_h + of f_h."
    )
    columns = ["Data set, method", "Accuracy", "Latency", "FLOPs / MACs", "Upload, KiB"]
    return _table(paper, 2, columns, rows, (note,))


def latency_s(cell: CellResult) -> float | None:
    """Return the seconds to generate one head and apply it."""
    return cell.cost.generate_s + cell.cost.apply_s or None


def _latency(values: list[float]) -> str:
    return f"{wording.significant(1000 * statistics.fmean(values))}ms"


_ARROWS = {"up": "\u2191", "down": "\u2193"}


def network_table(measured: Measured, paper: str, number: int) -> Table:
    """Sizes and delays by network; ours follow from the sizes alone."""
    records = [r for r in published.DELAYS if (r.paper, r.table) == (paper, number)]
    columns = ["Data set", "Size, KiB", *(network.label for network in PAPER_NETWORKS.values())]
    rows = []
    for data, direction in dict.fromkeys((r.dataset, r.direction) for r in records):
        own = FEATURE_BYTES if direction == "up" else (modules.download_bytes(data, "cdc_mmpg") or 0)
        group = [r for r in records if (r.dataset, r.direction) == (data, direction)]
        cells = []
        for r in group:
            printed = f"{r.printed_ms}ms" if r.printed_ms else MISSING
            cells.append(Cell(text=f"{printed} / {_exact_ms(published.delay_ms(r.network, direction, own))}"))
        size = Cell(text=f"{group[0].printed_kib} / {wording.kib(own)}")
        rows.append(row(f"{data} {_ARROWS[direction]}", size, *cells))
    for cell in measured.of(FLEETQA, OPEN_ENDED_QA, "cdc_mmpg")[:1]:
        own = cell.cost.download_bytes
        delays = (published.delay_ms(network, "down", own) for network in PAPER_NETWORKS.values())
        rows.append(row(f"FleetQA {_ARROWS['down']}", wording.kib(own), *map(_exact_ms, delays)))
    return _table(paper, number, columns, rows, (published.DOWNLOAD_ONLY_NOTE,))


def _exact_ms(delay_ms: float) -> str:
    return f"{delay_ms:.4f}ms" if delay_ms < 1 else f"{delay_ms:.3f}ms"


def _delay(num_bytes: int) -> str:
    return f"{wording.significant(published.delay_ms(FASTEST, 'down', num_bytes))}ms"


def _beside(printed: str | None, ours: str) -> Cell:
    return Cell(text=f"{printed if printed is not None else MISSING} / {ours}")


def _table(
    paper: str, number: int, columns: list[str], rows: list[tuple[Cell, ...]], notes: tuple[str, ...]
) -> Table:
    record = published.table(paper, number)
    lacks = (f"Not in the paper's table: {', '.join(record.lacks)}.",) if record.lacks else ()
    return Table(
        name=f"{paper.lower()}-table-{number}",
        title=f"{paper} Table {number}: {record.shows}",
        columns=tuple(columns),
        rows=tuple(rows),
        footnotes=tuple(dict.fromkeys((CELL_NOTE, *record.notes, *notes, *lacks))),
    )
