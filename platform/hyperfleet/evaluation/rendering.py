"""Tables of finished text for the console, HTML and Markdown, and the HTML page of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import rich.table
import rich.text
from rich.console import Console

from hyperfleet.errors import ConfigError

WIDTH = 160
ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("hyperfleet.evaluation"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A cell of text; `anchor` names it and `href` links to the cell of that name, in HTML alone."""

    text: str
    strong: bool = False
    anchor: str = ""
    href: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of text.

    `name` identifies it (letters and hyphens). The first column holds row headers; the others hold numbers,
    aligned right.

    Raises:
        ConfigError: a row is not as long as the header.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ConfigError(
                    f"table {self.name!r} has {len(self.columns)} columns, got a row of {len(row)}: "
                    f"{[cell.text for cell in row]}"
                )


def row(head: str, *texts: str | Cell, strong: bool = False) -> tuple[Cell, ...]:
    """Build a row from texts and cells."""
    return tuple(
        item if isinstance(item, Cell) else Cell(text=item, strong=strong) for item in (head, *texts)
    )


def wide_console(console: Console) -> Console:
    """Return a console on which tables fit: files and pipes have no width, and 80 columns fold every cell."""
    return console if console.is_terminal else Console(width=WIDTH)


def to_rich(table: Table) -> rich.table.Table:
    """Render for the console."""
    shown = rich.table.Table(
        title=table.title,
        title_justify="left",
        title_style="bold",
        caption="\n".join(table.footnotes) or None,
        caption_justify="left",
    )
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if index else "left", overflow="fold")
    for cells in table.rows:
        shown.add_row(*(_rich_cell(cell) for cell in cells))
    return shown


def to_markdown(table: Table) -> str:
    """Render as a GitHub table with title and footnotes."""
    lines = [f"**{table.title}**", "", _markdown_row(table.columns)]
    lines.append(_markdown_row([":--", *("--:" for _ in table.columns[1:])]))
    for cells in table.rows:
        lines.append(_markdown_row([_markdown_cell(cell) for cell in cells]))
    for footnote in table.footnotes:
        lines += ["", footnote]
    return "\n".join(lines) + "\n"


def to_html(table: Table) -> str:
    """Render as an HTML figure whose table scrolls in its own box."""
    return ENVIRONMENT.get_template("table.html.j2").render(table=table)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyNumber:
    """A number at the top of the page."""

    value: str
    label: str


def write_page(
    path: Path,
    *,
    title: str,
    kind: str,
    headline: str,
    tables: Sequence[Table],
    plots: Sequence[tuple[str, str]],
    outcome: str = "tie",
    sentences: Sequence[str] = (),
    key_numbers: Sequence[KeyNumber] = (),
    frames: Mapping[str, Sequence[str]] | None = None,
    notes: Sequence[str] = (),
    provenance: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write the page of a report, which needs nothing but a browser, and return its path.

    Args:
        path: output file; its folder is created if missing.
        title: title of the browser's tab.
        kind: kind of report, above the headline.
        headline: the result in one sentence.
        tables: tables in order.
        plots: SVG elements with their captions.
        outcome: "win", "lose" or "tie"; colours the headline.
        sentences: text below the headline.
        key_numbers: numbers at the top.
        frames: image URIs by camera family.
        notes: remarks on how to read the page.
        provenance: names and values: model, data, commands, versions.
    """
    page = ENVIRONMENT.get_template("report.html.j2").render(
        title=title,
        kind=kind,
        headline=headline,
        tables=[to_html(table) for table in tables],
        plots=plots,
        outcome=outcome,
        sentences=sentences,
        key_numbers=key_numbers,
        frames=frames or {},
        notes=notes,
        provenance=provenance,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _rich_cell(cell: Cell) -> rich.text.Text:
    return rich.text.Text(cell.text, style="bold" if cell.strong else "")


def _markdown_cell(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.strong and cell.text else cell.text


def _markdown_row(texts: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(text.replace("|", r"\|") for text in texts) + " |"
