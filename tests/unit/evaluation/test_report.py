import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest

from hyperfleet.errors import ConfigError, DataError
from hyperfleet.evaluation import wording
from hyperfleet.evaluation.facts import RunFacts
from hyperfleet.evaluation.metrics import score
from hyperfleet.evaluation.report import write_report
from hyperfleet.evaluation.tables import demo_tables

FRAMES = {"phone": [np.full((12, 16, 3), 90, np.uint8)] * 9, "unused <family>": []}


@pytest.mark.parametrize(
    ("static", "personalized", "outcome", "opening"),
    [
        (0.5, 0.75, "win", "Personalized heads answered better than the static head: "),
        (0.75, 0.5, "lose", "Personalized heads answered worse than the static head: "),
        (0.6, 0.6, "tie", "No significant difference between personalized heads and the static head: "),
    ],
)
def test_the_page_says_what_came_out_and_needs_no_network(
    tmp_path, scored, facts, static, personalized, outcome, opening
):
    result = scored(static, personalized)
    path = write_report(tmp_path / "new" / "report.html", result, facts, demo_tables(result, facts), FRAMES)

    page = path.read_text(encoding="utf-8")
    assert opening in page
    assert f'<div class="outcome {outcome}">' in page
    assert "Made-up events" in page
    assert page.count("<svg") == 4
    assert page.count("data:image/jpeg;base64,") == 6
    assert page.count("<table") == 4
    assert not re.search(r"https?://|<script|<link|@import", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'(?:href="|url\()#([^")]+)', page))
    assert targets <= set(ids)


def test_text_from_outside_is_escaped_and_a_tracking_page_is_a_link(tmp_path, scored, facts):
    result = scored(0.5, 0.6)
    facts = dataclasses.replace(
        facts, mlflow_url="http://localhost:5000/#/runs/1", notes=("<b>bold</b>",), synthetic=False, steps=()
    )
    page = write_report(tmp_path / "report.html", result, facts, (), {}).read_text(encoding="utf-8")
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert '<a href="http://localhost:5000/#/runs/1"' in page
    assert "Made-up events" not in page


def test_the_headline_names_what_a_test_cannot_decide(fleet):
    lone = score(*fleet(np.random.default_rng(0), num_devices=1, per_device=5, static=0.2, personalized=0.9))
    assert wording.headline(lone).startswith("Too few devices for a test")
    assert "over 1 device " in wording.headline(lone)


def test_fallbacks_and_skipped_devices_are_said(fleet):
    rng = np.random.default_rng(0)
    heads = {"static": 0.5, "personalized": 0.5}
    events, key, roster = fleet(rng, num_devices=20, per_device=20, fallback_share=0.1, **heads)
    num_fallbacks = sum(text != "" for text in events["fallback"].to_pylist())
    got = wording.cost_sentence(score(events, key, roster, skipped={10_000: "stream is empty"}))
    assert f"For {num_fallbacks} of 400 samples no head arrived" in got
    assert "Skipped: 1 device (stream is empty: 1)." in got


def test_facts_survive_a_file_and_refuse_what_cannot_be(tmp_path, facts):
    facts.save(tmp_path / "facts.json")
    assert RunFacts.load(tmp_path / "facts.json") == facts
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="holds no facts of a run"):
        RunFacts.load(tmp_path / "other.json")
    with pytest.raises(DataError, match="run the fleet again"):
        RunFacts.load(tmp_path / "missing.json")


def test_a_frame_that_is_no_picture_is_refused(tmp_path, scored, facts):
    with pytest.raises(ConfigError, match=r"uint8 \(height, width, 3\), got float64"):
        write_report(tmp_path / "report.html", scored(0.5, 0.5), facts, (), {"phone": [np.zeros((4, 4, 3))]})


def test_importing_the_report_leaves_matplotlib_alone():
    code = (
        "import sys, hyperfleet.evaluation.report; "
        "assert 'matplotlib' in sys.modules; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (wording.percent(0.6125), "61.3%"),
        (wording.points(-0.0004), "0.0"),
        (wording.points(0.069), "+6.9"),
        (wording.p_value(0.0004), "< 0.001"),
        (wording.milliseconds(0.1234), "123"),
        (wording.milliseconds(0.09996), "100"),
        (wording.milliseconds(0.0000073), "0.007"),
        (wording.milliseconds(0.0), "0"),
        (wording.duration(171.3), "2 min 51 s"),
        (wording.millions(28_100_221), "28.1M"),
        (wording.millions(37_249), "37.2K"),
    ],
)
def test_numbers_read_well(text, wanted):
    assert text == wanted
