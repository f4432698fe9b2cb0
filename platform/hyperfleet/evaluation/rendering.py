"""A small table of finished text, and its three forms: console, HTML and Markdown."""

from dataclasses import dataclass

import jinja2
import rich.table
import rich.text

from hyperfleet.errors import ConfigError

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("hyperfleet.evaluation"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A cell: our text and, where a paper printed a value for it, that value as printed.

    `anchor` names the cell, `href` leads to the cell so named; both matter in HTML alone.
    """

    text: str
    printed: str = ""
    strong: bool = False
    anchor: str = ""
    href: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of text, ready to be shown.

    `name` identifies it (letters and hyphens); the first column heads each row, the others are
    numbers and are set flush right.

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
    """Build a row from texts, keeping those that are cells already."""
    return tuple(
        item if isinstance(item, Cell) else Cell(text=item, strong=strong) for item in (head, *texts)
    )


def to_rich(table: Table) -> rich.table.Table:
    """Render for the console; what a paper printed stands dimmed in parentheses."""
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
    """Render as a GitHub table under its title, footnotes below."""
    lines = [f"**{table.title}**", "", _markdown_row(table.columns)]
    lines.append(_markdown_row([":--", *("--:" for _ in table.columns[1:])]))
    for cells in table.rows:
        lines.append(_markdown_row([_markdown_cell(cell) for cell in cells]))
    for footnote in table.footnotes:
        lines += ["", footnote]
    return "\n".join(lines) + "\n"


def to_html(table: Table) -> str:
    """Render as an HTML figure whose table scrolls inside its own box."""
    return ENVIRONMENT.get_template("table.html.j2").render(table=table)


def _rich_cell(cell: Cell) -> rich.text.Text:
    text = rich.text.Text(cell.text, style="bold" if cell.strong else "")
    return text.append(f" ({cell.printed})", style="dim") if cell.printed else text


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.strong and cell.text else cell.text
    return f"{text} ({cell.printed})" if cell.printed else text


def _markdown_row(texts: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(text.replace("|", r"\|") for text in texts) + " |"
