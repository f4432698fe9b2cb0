"""The papers' own tables, one builder a kind: each cell is *paper / ours*."""

import statistics
from collections.abc import Callable

from hyperfleet.evaluation import published, wording
from hyperfleet.evaluation.paper_tables import modules
from hyperfleet.evaluation.paper_tables.measured import (
    MISSING,
    Measured,
    percent_spread,
    seconds,
)
from hyperfleet.evaluation.rendering import Cell, Table, row
from hyperfleet.experiments.cell import CellResult
from hyperfleet.experiments.plan import FLEETQA
from hyperfleet.link.network import PAPER_NETWORKS
from hyperfleet.messages import FEATURE_BYTES
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
    f"Cells read paper / ours; {MISSING} stands where the paper prints nothing or the cell was not run "
    "here (the data set does not lie on disk). FleetQA is rendered, so no paper has numbers for it. Ours: "
    "mean \u00b1 standard deviation over seeds."
)
STATIC_NOTE = (
    "Time delay, ours: download of one head at 5G (100MB/s). The papers' 60000 ms of static methods stand "
    "for fine-tuning anew; a static head here is not adapted at all, so nothing is measured."
)
ANALYTIC_NOTE = (
    "D-Param and C-Param are counted in the modules at the data set's number of classes; the part of the "
    "papers' full C-Param beyond f_h cannot be identified, and ours is the generator that was run."
)
Values = Callable[[CellResult], float | None]


def accuracy(cell: CellResult) -> float | None:
    """Return the share of live samples answered right."""
    return cell.measures.get("accuracy")


def measure(name: str) -> Values:
    """Return the reader of one measure."""
    return lambda cell: cell.measures.get(name)


def key_of(paper: str, name: str) -> str:
    """Return our name of a row of a paper."""
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
        network_table(first, 6),
        methods_table(measured, second, 1, OPEN_ENDED_QA),
        duet_table(measured),
        retrieval_table(measured, second),
        frames_table(measured, second),
        network_table(second, 5),
        methods_table(measured, second, 6, MULTIPLE_CHOICE),
    )


def methods_table(measured: Measured, paper: str, number: int, task: str) -> Table:
    """Accuracy, parameters and time delay by method, of both question answering tasks."""
    records = [r for r in published.METHODS if (r.paper, r.table) == (paper, number)]
    datasets = list(dict.fromkeys(record.dataset for record in records))
    columns = ["Method", *(f"{data} {what}" for data in datasets for what in _COLUMNS), "FleetQA Acc."]
    rows = []
    for name in dict.fromkeys(record.method for record in records):
        key = key_of(paper, name)
        cells: list[Cell] = []
        for data in datasets:
            record = published.method(paper, data, name)
            cells += _method_cells(measured, record, key, task)
        cells.append(measured.cell(measured.of(FLEETQA, task, key), accuracy, percent_spread))
        rows.append(row(f"{name} ({key})" if name == "Ours" else name, *cells, strong=name == "Ours"))
    notes = [record.note for record in records if record.note]
    return _table(paper, number, columns, rows, (*notes, STATIC_NOTE, ANALYTIC_NOTE))


_COLUMNS = ("Acc.", "D-Param", "C-Param", "Time delay")


def _method_cells(measured: Measured, record: published.PublishedMethod, key: str, task: str) -> list[Cell]:
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
    data = records[0].dataset
    columns = ["Method", *(f"{data} {name}" for name in names), *(f"FleetQA {name}" for name in names)]
    rows = []
    for record in records:
        key = key_of(paper, record.method)
        ours = measured.of(PREPARED[data], RETRIEVAL, key)
        rendered = measured.of(FLEETQA, RETRIEVAL, key)
        cells = [
            measured.cell(ours, measure(name), percent_spread, printed=printed)
            for name, printed in zip(names, record.recalls, strict=True)
        ] + [measured.cell(rendered, measure(name), percent_spread) for name in names]
        head = f"{record.method} ({key})" if record.method == "Ours" else record.method
        rows.append(row(head, *cells, strong=record.method == "Ours"))
    notes = [record.note for record in records if record.note]
    return _table(paper, 3, columns, rows, tuple(notes))


def frames_table(measured: Measured, paper: str) -> Table:
    """Fine-tuning by number of frames: accuracy and time of an epoch."""
    records = [record for record in published.FRAMES if record.paper == paper]
    datasets = list(dict.fromkeys(record.dataset for record in records))
    columns = ["Frames", *(f"{data} {what}" for data in datasets for what in ("Acc.", "Time/epoch"))]
    columns += ["FleetQA Acc.", "FleetQA Time/epoch"]
    rows = []
    for number in dict.fromkeys(record.num_frames for record in records):
        cells: list[Cell] = []
        for record in (each for each in records if each.num_frames == number):
            ours = measured.of(PREPARED[record.dataset], OPEN_ENDED_QA, "fine_tuning", number)
            cells.append(measured.cell(ours, accuracy, percent_spread, printed=record.accuracy))
            cells.append(measured.cell(ours, _epoch_s, seconds, printed=record.time_per_epoch))
        rendered = measured.of(FLEETQA, OPEN_ENDED_QA, "fine_tuning", number)
        cells.append(measured.cell(rendered, accuracy, percent_spread))
        cells.append(measured.cell(rendered, _epoch_s, seconds))
        rows.append(row(str(number), *cells))
    note = (
        "Time of an epoch, ours: with as many cells at once as the machine had cores; the papers': one A100."
    )
    return _table(paper, 4, columns, rows, (note,))


def _epoch_s(cell: CellResult) -> float | None:
    return cell.epoch_s


def duet_table(measured: Measured) -> Table:
    """StableSynthNet beside DUET: accuracy, latency, and multiplications."""
    records = published.LATENCIES
    datasets = list(dict.fromkeys(record.dataset for record in records))
    columns = ["Method", *(f"{data} {what}" for data in datasets for what in ("Acc.", "Latency"))]
    columns += ["FleetQA Acc.", "FleetQA generate + apply", "MACs before f_h, f_h (MSRVTT-QA)", "Upload, KiB"]
    rows = []
    for name in dict.fromkeys(record.method for record in records):
        key = key_of(published.STABLE_SYNTH_NET, name)
        cells: list[Cell] = []
        for record in (each for each in records if each.method == name):
            ours = measured.of(PREPARED[record.dataset], OPEN_ENDED_QA, key)
            cells.append(measured.cell(ours, accuracy, percent_spread, printed=record.accuracy))
            cells.append(measured.cell(ours, latency_s, _latency, printed=record.latency))
        rendered = measured.of(FLEETQA, OPEN_ENDED_QA, key)
        flops = next((each.flops for each in published.FLOPS if each.method == name), MISSING)
        macs = modules.generator_macs(published.MSRVTT_QA, key)
        counted = MISSING if macs is None else " + ".join(wording.millions(count) for count in macs)
        uploads = METHOD_UPLOADS[key]
        cells += [
            measured.cell(rendered, accuracy, percent_spread),
            measured.cell(rendered, latency_s, _latency),
            Cell(text=f"{flops} / {counted}"),
            Cell(text=wording.kib(uploads * FEATURE_BYTES)),
        ]
        rows.append(row(f"{name} ({key})" if name == "Ours" else name, *cells, strong=name == "Ours"))
    note = (
        "Latency, ours: median time of generating one head alone on one thread and applying it, without "
        "encoder and network; the paper does not say what its latency contains."
    )
    return _table(published.STABLE_SYNTH_NET, 2, columns, rows, (note,))


METHOD_UPLOADS = {"duet": 5, "stable_synth_net": 1}


def latency_s(cell: CellResult) -> float | None:
    """Seconds to generate one head and apply it."""
    return cell.cost.generate_s + cell.cost.apply_s or None


def _latency(values: list[float]) -> str:
    return f"{wording.significant(1000 * statistics.fmean(values))}ms"


_ARROWS = {"up": "\u2191", "down": "\u2193"}


def network_table(paper: str, number: int) -> Table:
    """Sizes and delays by network; delays follow from the sizes alone."""
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
