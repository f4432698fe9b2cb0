import io

import pytest
import rich.console

from hyperfleet.errors import ConfigError
from hyperfleet.evaluation import rendering, tables
from hyperfleet.evaluation.rendering import Cell, Table, row


def cells(table, head):
    (found,) = [line for line in table.rows if line[0].text == head]
    return [f"{cell.text} ({cell.printed})" if cell.printed else cell.text for cell in found[1:]]


def test_cost_table_stands_beside_the_printed_cells(facts):
    table = tables.cost_table(facts)

    assert cells(table, "Classes C") == ["1,501", "1,001", "1,541", "54"]
    assert cells(table, "D-Param: on the device")[0] == "11,595,421 (11.6M)"
    assert cells(table, "C-Param: generating layer alone (F-hyper)")[2] == "28,849,061 (18.7M)"
    assert cells(table, "C-Param: CDC-MMPG")[3] == "1,558,038"
    assert cells(table, "Download, KiB") == ["568.74 (568.5)", "379.29 (379.4)", "583.89 (583.8)", "20.46"]
    assert cells(table, "Upload at 5G (100MB/s), ms")[0] == "0.0073 (0.007)"
    assert cells(table, "Download at 4G (5MB/s), ms")[:3] == ["111.082 (111)", "74.079 (74)", "114.042 (114)"]
    assert cells(table, "Download at 5G (100MB/s), ms")[:3] == [
        "5.554 (5.55)",
        "3.704 (3.71)",
        "5.702 (5.70)",
    ]
    assert any("not legible in our copy" in note for note in table.footnotes)


def test_accuracy_and_latency_tables_show_what_was_scored(scored, facts):
    score = scored(0.5, 0.7, fallback_share=0.05)
    accuracy, _, latency = tables.demo_tables(score, facts)

    static, personalized, difference, interval, p = cells(accuracy, "Held-out devices, mean")[1:]
    assert static == f"{100 * score.held_out.static.device_mean:.1f}%"
    assert personalized == f"{100 * score.held_out.personalized.device_mean:.1f}%"
    assert difference.startswith("+")
    assert " to " in interval
    assert p
    assert cells(accuracy, "All devices, 10th percentile")[-1] == "-"
    assert [line[0].text for line in latency.rows] == [
        "All networks", "4G (5MB/s)", "4G (15MB/s)", "5G (50MB/s)", "5G (100MB/s)"
    ]  # fmt: skip
    total = score.latency[0].parts["total"]
    assert cells(latency, "All networks")[-1] == f"{1000 * total.p50_s:.1f} / {1000 * total.p99_s:.1f}"


def test_a_table_renders_in_three_forms():
    table = Table(
        name="example",
        title="A <title>",
        columns=("", "x|y"),
        rows=(row("head", Cell(text="1", printed="2")), row("sum", "3", strong=True)),
        footnotes=("A note.",),
    )
    assert rendering.to_markdown(table) == (
        "**A <title>**\n\n|  | x\\|y |\n| :-- | --: |\n| head | 1 (2) |\n| **sum** | **3** |\n\nA note.\n"
    )
    html = rendering.to_html(table)
    assert "A &lt;title&gt;" in html
    assert '<th scope="row">head</th><td>1 <span class="printed">(2)</span></td>' in html
    console = rich.console.Console(width=60, record=True, file=io.StringIO())
    console.print(rendering.to_rich(table))
    text = console.export_text()
    assert "1 (2)" in text
    assert "A note." in text


def test_a_ragged_table_is_refused():
    with pytest.raises(ConfigError, match="2 columns, got a row of 1"):
        Table(name="bad", title="", columns=("a", "b"), rows=(row("x"),))
