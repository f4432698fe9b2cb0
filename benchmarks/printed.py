"""Output of the benchmarks: tables in the terminal and, with `--markdown PATH`, in a Markdown file."""

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


class Parser(argparse.ArgumentParser):
    """Argument parser of a benchmark, with `--markdown`."""

    markdown: Path | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_argument("--markdown", type=Path, help="also write the tables to this file, as Markdown")

    def parse_args(self, *args: Any, **options: Any) -> Any:
        """Parse, and begin the Markdown file with command, machine, date and commit."""
        parsed = super().parse_args(*args, **options)
        if parsed.markdown is not None:
            Parser.markdown = parsed.markdown
            parsed.markdown.parent.mkdir(parents=True, exist_ok=True)
            parsed.markdown.write_text(origin() + "\n")
        return parsed


class TableConsole(Console):
    """Console that appends every table it prints to the Markdown file, if one was named."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, and write tables as Markdown."""
        super().print(*objects, **options)
        if Parser.markdown is not None:
            with Parser.markdown.open("a") as file:
                for table in objects:
                    if isinstance(table, Table):
                        file.write("\n" + to_markdown(table) + "\n")


def to_markdown(table: Table) -> str:
    """Return a table as Markdown, its title as a line above."""

    def line(cells: list[Any]) -> str:
        texts = (
            cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain for cell in cells
        )
        return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"

    heads = line([column.header for column in table.columns])
    rows = [line(list(cells)) for cells in zip(*(column.cells for column in table.columns), strict=True)]
    title = [f"{table.title}:", ""] if table.title else []
    return "\n".join([*title, heads, "|" + "---|" * len(table.columns), *rows])


def origin() -> str:
    """Return a line with the command, the machine, the date and the commit."""
    command = " ".join(["python", *sys.argv])
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "no commit"
    return f"`{command}`; {machine()}; {datetime.now(UTC):%Y-%m-%d}, {commit}."


def machine() -> str:
    """Return the processor, its threads and the vector instructions that decide the arithmetic."""
    facts = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    named = {name.strip(): value.strip() for name, value in facts}
    threads = sum(name.strip() == "processor" for name, _ in facts)
    flags = [flag for flag in _CPU_FLAGS if flag in named.get("flags", "").split()]
    return (
        f"{named.get('model name', 'unknown processor')}, {threads} threads, {', '.join(flags) or 'no AVX2'}"
    )
