import io

import pytest
import rich.console

from hyperfleet.errors import ConfigError
from hyperfleet.evaluation import rendering
from hyperfleet.evaluation.rendering import Cell, Table, row


def test_a_table_renders_in_three_forms():
    table = Table(
        name="example",
        title="A <title>",
        columns=("", "x|y"),
        rows=(row("head", Cell(text="1", href="runs")), row("sum", "3", strong=True)),
        footnotes=("A note.",),
    )
    assert rendering.to_markdown(table) == (
        "**A <title>**\n\n|  | x\\|y |\n| :-- | --: |\n| head | 1 |\n| **sum** | **3** |\n\nA note.\n"
    )
    html = rendering.to_html(table)
    assert "A &lt;title&gt;" in html
    assert '<th scope="row">head</th><td><a href="#runs">1</a></td>' in html
    console = rich.console.Console(width=60, record=True, file=io.StringIO())
    console.print(rendering.to_rich(table))
    text = console.export_text()
    assert "head" in text
    assert "A note." in text


def test_a_ragged_table_is_refused():
    with pytest.raises(ConfigError, match="2 columns, got a row of 1"):
        Table(name="bad", title="", columns=("a", "b"), rows=(row("x"),))
