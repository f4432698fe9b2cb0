import csv
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.emulation.timeline import rows
from hyperfleet.errors import ConfigError
from hyperfleet.evaluation.fleet_score import score_fleet
from hyperfleet.evaluation.policy_report import (
    FIGURES,
    MARKDOWN,
    PolicyRun,
    best_runs,
    compare_runs,
    policy_table,
    write_policy_report,
)
from tests.worlds.made_up_log import answer_key, answers, events

NUM_SOURCES, EACH = 16, 5
N = NUM_SOURCES * EACH


def run(
    name: str, num_right: int, num_bytes: int, joules: float, *, num_sources: int = NUM_SOURCES
) -> PolicyRun:
    """A run in which the first `num_right` of five samples of every device are answered right."""
    n = num_sources * EACH
    table = answers(
        device_id=np.repeat(np.arange(num_sources), EACH),
        answer=np.tile(np.arange(EACH) < num_right, num_sources).astype(int),
        head=rows.FRESH if num_bytes else rows.STATIC,
        uplink_bytes=0,
        downlink_bytes=num_bytes,
        joules=joules,
        sampled_s=np.arange(n) * 0.5,
    )
    key = answer_key(np.repeat(np.arange(num_sources), EACH))
    log = events((0.0, rows.SENT, {"num_bytes": num_bytes}))
    return PolicyRun(name=name, score=score_fleet(log, table, key))


RUNS = (
    run("every-sample", 4, 10_240, 5.0),
    run("every-n", 3, 2_048, 1.0),
    run("wasteful", 2, 20_480, 9.0),
    run("never", 1, 0, 0.25),
)


def test_the_table_sets_accuracy_against_cost_and_compares_with_the_first_run():
    lines = {row[0].text: [cell.text for cell in row[1:]] for row in policy_table(RUNS, title="t").rows}
    assert lines["every-sample"][:6] == ["100.0%", "0.00", "10.00", "5.00", "100 / 100", "80.0%"]
    assert lines["every-sample"][6:] == ["", "", "", ""]
    assert lines["never"][:4] == ["0.0%", "0.00", "0.00", "0.250"]
    assert lines["every-n"][5:] == ["60.0%", "-20.0", "-20.0 to -20.0", "< 0.001", "< 0.001"]


def test_runs_of_other_samples_are_not_compared():
    with pytest.raises(
        ConfigError, match="answered the same samples can be compared, got 75 samples of 15 devices"
    ):
        compare_runs(RUNS[0].score, run("other", 4, 1, 1.0, num_sources=15).score)
    with pytest.raises(ConfigError, match="at least one run and different names"):
        policy_table((), title="t")
    with pytest.raises(ConfigError, match="different names"):
        policy_table((RUNS[0], RUNS[0]), title="t")


def test_the_best_runs_are_those_that_no_other_beats():
    assert best_runs([10.0, 2.0, 20.0, 0.0], [80.0, 60.0, 40.0, 20.0]) == [3, 1, 0]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_best_runs_equal_the_definition(pairs):
    costs, accuracies = zip(*pairs, strict=True)
    best = best_runs([float(c) for c in costs], [float(a) for a in accuracies])
    for mine in best:
        assert not any(c <= costs[mine] and a > accuracies[mine] for c, a in pairs)
        assert not any(c < costs[mine] and a >= accuracies[mine] for c, a in pairs)
    for cost, accuracy in pairs:
        assert any(costs[i] <= cost and accuracies[i] >= accuracy for i in best)


def test_page_markdown_and_figures_are_written(tmp_path):
    path = write_policy_report(RUNS, tmp_path / "new", title="Policies <of a city>")
    page = path.read_text(encoding="utf-8")
    assert "Policies &lt;of a city&gt;" in page
    assert page.count("<svg") == 2
    assert page.count("<table") == 1
    assert not re.search(r"https?://|<script|<link|@import", page)
    # "wasteful" is beaten and not in the choice there is.
    assert (
        "never: 20.0% for 0.00 KiB; every-n: 60.0% for 2.00 KiB; every-sample: 80.0% for 10.00 KiB." in page
    )
    assert "| every-n |" in (path.parent / MARKDOWN).read_text(encoding="utf-8")
    with (path.parent / FIGURES).open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [line["run"] for line in table] == [each.name for each in RUNS]
    assert float(table[1]["downlink_bytes_per_sample"]) == 2048
    assert float(table[1]["accuracy"]) == pytest.approx(0.6)
