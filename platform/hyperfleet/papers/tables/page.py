"""Output files of the tables: an HTML page, a Markdown file, one CSV per table, and one CSV of all cells."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from hyperfleet.evaluation import wording
from hyperfleet.evaluation.rendering import ENVIRONMENT, Table, to_html, to_markdown
from hyperfleet.papers import published
from hyperfleet.papers.experiments.cell import CellResult
from hyperfleet.papers.tables.measured import Measured
from hyperfleet.papers.tables.of_papers import paper_tables
from hyperfleet.papers.tables.own import corrected_tests, methods_of, own_tables
from hyperfleet.papers.tables.plots import plots
from hyperfleet.tasks import OPEN_ENDED_QA

PAGE, MARKDOWN, CELLS = "tables.html", "tables.md", "cells.csv"


def build_tables(results: Iterable[CellResult], cells_dir: Path) -> tuple[Measured, tuple[Table, ...]]:
    """Build every table from the finished cells below `cells_dir`; the last table lists the runs."""
    measured = Measured(results, cells_dir)
    *own, runs = own_tables(measured)
    return measured, (*own, *paper_tables(measured), runs)


def write_tables(measured: Measured, tables: Sequence[Table], folder: Path, *, size: str) -> Path:
    """Write the tables into `folder` in every form and return the HTML page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKDOWN).write_text("\n".join(to_markdown(table) for table in tables), encoding="utf-8")
    for table in tables:
        _write_csv(folder / f"{table.name}.csv", table)
    _write_cells(folder / CELLS, measured)
    num_papers = sum(each.name.split("-table-")[0] in _PAPER_NAMES for each in tables)
    own, papers, runs = tables[: -num_papers - 1], tables[-num_papers - 1 : -1], tables[-1]
    page = ENVIRONMENT.get_template("tables.html.j2").render(
        size=size,
        num_cells=sum(map(len, measured.groups.values())),
        headline=headline(measured),
        contents=tables,
        plots=plots(measured),
        own=[to_html(table) for table in own],
        papers=published.PAPER_TITLES.values(),
        paper_tables=[to_html(table) for table in papers],
        runs=to_html(runs),
    )
    path = folder / PAGE
    path.write_text(page, encoding="utf-8")
    return path


_PAPER_NAMES = {name.lower() for name in published.PAPER_TITLES}


def headline(measured: Measured) -> str:
    """Return one sentence that compares the papers' methods with Fine-tuning on FleetQA."""
    # Corrected as in the table below, over all of its methods.
    tests = corrected_tests(measured, OPEN_ENDED_QA, methods_of(OPEN_ENDED_QA))
    said = []
    for name in ("cdc_mmpg", "stable_synth_net"):
        test = tests[name]
        if test is not None:
            verdict = {"win": "better than", "lose": "worse than", "tie": "not significantly different from"}
            gain = f"{wording.points(test.difference)} points"
            said.append(f"{name} is {verdict[wording.outcome(test)]} Fine-tuning ({gain})")
    return (
        "On FleetQA " + ", ".join(said)
        if said
        else "The papers' tables; CDC-MMPG and StableSynthNet were not run here yet"
    )


def _write_csv(path: Path, table: Table) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table.columns)
        writer.writerows([cell.text for cell in cells] for cells in table.rows)


def _write_cells(path: Path, measured: Measured) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["dataset", "task", "method", "frames", "seed", "measure", "value", "samples", "run_id"]
        )
        for group, cells in measured.groups.items():
            for cell in cells:
                for name, value in cell.measures.items():
                    writer.writerow(
                        [
                            group.dataset,
                            group.task,
                            group.method,
                            group.num_frames or "",
                            cell.spec.train.seed,
                            name,
                            value,
                            cell.num_samples,
                            cell.run_id,
                        ]
                    )
