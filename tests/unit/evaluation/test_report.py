import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from hyperfleet.emulation.timeline import rows
from hyperfleet.errors import ConfigError
from hyperfleet.evaluation.fleet_score import FleetScore, score_fleet
from hyperfleet.evaluation.rendering import to_rich
from hyperfleet.evaluation.report import (
    cost_sentence,
    fault_sentence,
    headline,
    held_out_sentence,
    write_report,
)
from hyperfleet.evaluation.tables import StepFact, fleet_tables
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.faults import Blackout
from tests.worlds.made_up_log import answer_key, answers, events

pytestmark = pytest.mark.heavy

NUM_DEVICES, PER_DEVICE = 12, 40


@dataclass(frozen=True)
class Death:
    at_s: float
    num_jobs_redone: int
    recovery_s: float | None


def made_up_score(
    *,
    personal: float = 0.8,
    with_fault: bool = True,
    fell_back: bool = True,
    held_out: tuple[int, ...] = (9, 10, 11),
) -> FleetScore:
    """Twelve devices, a sample each half second; the static model gets 40% right."""
    rng = np.random.default_rng(1)
    n = NUM_DEVICES * PER_DEVICE
    sampled_s = np.arange(n) / 2
    slow = (sampled_s >= 80) & (sampled_s < 95) & with_fault
    fallback = np.where(slow & fell_back, "timed out", "")
    table = answers(
        device_id=np.tile(np.arange(NUM_DEVICES), PER_DEVICE),
        sample=np.repeat(np.arange(PER_DEVICE), NUM_DEVICES),
        answer=(rng.random(n) < personal).astype(int),
        static_answer=(rng.random(n) < 0.4).astype(int),
        base_answer=(rng.random(n) < 0.3).astype(int),
        network=np.where(np.arange(n) % 2 == 0, "4g-5", "5g-100"),
        head=np.where(slow, rows.CACHED, rows.FRESH),
        fallback=fallback,
        sampled_s=sampled_s,
        answered_s=sampled_s + np.where(slow, 8.0, 0.1),
    )
    given = [(float(at_s), rows.SENT, {"num_bytes": 768}) for at_s in sampled_s]
    given += [(float(at_s) + 0.1, rows.DELIVERED, {"num_bytes": 20_000}) for at_s in sampled_s]
    if with_fault:
        given += [
            (80.0, rows.FAULT_BEGINS, {"detail": "blackout"}),
            (90.0, rows.FAULT_ENDS, {"detail": "blackout"}),
        ]
    key = answer_key(np.arange(n) % NUM_DEVICES, held_out=held_out)
    return score_fleet(events(*given), table, key)


@pytest.fixture
def scenario():
    return Scenario(
        name="made up",
        description="Twelve <devices> and a blackout.",
        duration_s=240.0,
        networks=("4g-5", "5g-100"),
        faults=(Blackout(from_s=80.0, to_s=90.0),),
    )


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("personal", "outcome", "opening"),
    [
        (0.8, "win", "The fleet answered better than the static model: "),
        (0.1, "lose", "The fleet answered worse than the static model: "),
        (0.4, "tie", "No significant difference between the fleet&#39;s answers and the static model: "),
    ],
)
def test_the_page_says_what_came_out_and_needs_no_network(tmp_path, scenario, personal, outcome, opening):
    score = made_up_score(personal=personal)
    deaths = (Death(at_s=3.0, num_jobs_redone=2, recovery_s=0.5), Death(4.0, 1, None))
    steps = (
        StepFact(name="train", wall_s=130.0, peak_memory_bytes=3 * 2**30),
        StepFact(name="run", wall_s=5.0),
    )
    path = write_report(
        tmp_path / "new" / "report.html",
        score,
        scenario,
        fleet_tables(score, deaths, steps),
        example_frames={"dome <1>": [np.full((4, 6, 3), 200, np.uint8)] * 8, "none": []},
        provenance=[("Model", "toy <1>")],
    )
    page = path.read_text(encoding="utf-8")
    assert f'<div class="outcome {outcome}">' in page
    assert opening in page
    assert "Twelve &lt;devices&gt;" in page
    assert "toy &lt;1&gt;" in page
    assert page.count("<svg") == 8
    assert page.count("<table") == 9
    assert page.count('src="data:image/jpeg;base64,') == 6
    assert "dome &lt;1&gt;" in page
    assert "none camera" not in page
    assert not re.search(r"https?://|<script|<link|@import", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)


@pytest.mark.heavy
def test_a_run_without_faults_has_no_table_and_no_plot_of_them(tmp_path, scenario):
    score = made_up_score(with_fault=False)
    path = write_report(tmp_path / "report.html", score, replace(scenario, faults=()), fleet_tables(score))
    page = path.read_text(encoding="utf-8")
    assert page.count("<svg") == 7
    assert "Shaded: a fault" not in page
    assert "table-faults" not in page
    assert fault_sentence(score) == ""
    assert [table.name for table in fleet_tables(score)] == [
        "accuracy",
        "comparison",
        "heads",
        "cost",
        "latency",
        "requests",
    ]


def cells(score, name, deaths=()):
    (table,) = (table for table in fleet_tables(score, deaths) if table.name == name)
    to_rich(table)
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


@pytest.mark.heavy
def test_the_tables_hold_the_score():
    score = made_up_score()
    heads = cells(score, "heads")
    assert heads["Fresh head"] == ["450", "93.8%"]
    assert heads["Cached head"] == ["30", "6.2%"]
    assert heads["fell back: timed out"] == ["30", "6.2%"]
    cost = cells(score, "cost")
    assert cost["Sent"][1] == "0.75 KiB"
    assert cost["Received"][1] == "19.53 KiB"
    assert cost["Energy of the devices"] == ["480 J", "1.00 J"]
    accuracy = cells(score, "accuracy")
    assert accuracy["Answers given"][0] == f"{100 * score.answers.sample:.1f}%"
    assert accuracy["Answers given"][2] == f"{100 * score.answers.device_mean:.1f}%"
    comparison = cells(score, "comparison")
    assert comparison["All devices, static model"][5] == "< 0.001"
    assert [line[0] for line in comparison.values()] == ["12", "12", "9", "9", "3", "3"]
    gain = score.sources.answers[9:].mean() - score.sources.static_head[9:].mean()
    assert comparison["Held-out devices, own static head"][3] == f"{100 * gain:+.1f}"
    latency = cells(score, "latency")
    assert latency["Fresh head"][0] == "450"
    assert latency["Cached head"][1] == "8,000 / 8,000 / 8,000"
    assert "4G (5MB/s)" in latency
    assert cells(score, "requests")["Requests sent"] == ["480"]


def test_samples_outside_the_vocabulary_count_in_a_column_of_their_own():
    key = answer_key([0, 0, 1, 1], label=[1, 1, 1, -1])
    score = score_fleet(events(), answers(device_id=[0, 0, 1, 1], answer=[1, 1, 0, 1]), key)
    assert cells(score, "accuracy")["Answers given"] == ["50.0%", "66.7%", "50.0%", "10.0%"]
    (table,) = (table for table in fleet_tables(score) if table.name == "accuracy")
    assert "1 of them have an answer outside the vocabulary" in table.footnotes[0]


def test_steps_have_their_total():
    steps = (StepFact(name="train", wall_s=130.0), StepFact(name="run", wall_s=5.0, peak_memory_bytes=2**30))
    *_, table = fleet_tables(made_up_score(), steps=steps)
    assert table.name == "steps"
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["train", "2 min 10 s", "-"],
        ["run", "5.0 s", "1,024"],
        ["All steps", "2 min 15 s", "1,024"],
    ]


@pytest.mark.parametrize("frame", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8)])
def test_frames_of_another_kind_are_refused(tmp_path, scenario, frame):
    with pytest.raises(ConfigError, match="must be uint8"):
        write_report(tmp_path / "r.html", made_up_score(), scenario, (), example_frames={"dome": [frame]})


@pytest.mark.heavy
def test_the_fault_table_tells_the_recovery():
    # Samples come every 0.5 s and are slow from 80 s to 95 s; the window from 94.5 s on holds one slow
    # sample, which is a fallback more than there were before.
    line = cells(made_up_score(), "faults")["blackout"]
    assert line == ["80.0", "90.0", "20", "20", "100", "8,000", "15.0", "5.00"]
    hosts = cells(made_up_score(), "hosts", (Death(at_s=3.0, num_jobs_redone=2, recovery_s=None),))
    assert hosts == {"3.0": ["2", "-"]}


@pytest.mark.heavy
def test_sentences_give_the_numbers():
    score = made_up_score()
    assert "of 480 samples right (" in headline(score)
    assert "93.8% by a fresh head, 6.2% by a cached head, 100 ms" in cost_sentence(score)
    assert "for 20.28 KiB and 1.00 J per sample" in cost_sentence(score)
    assert fault_sentence(score).startswith("30 samples asked for a head and got none in time")
    assert "Every sample that asked for a head got one" in fault_sentence(made_up_score(fell_back=False))


@pytest.mark.heavy
def test_the_sentence_on_held_out_devices_gives_the_verdict():
    # Three devices are too few for p < 0.05, six are not.
    assert held_out_sentence(made_up_score()).endswith("; the difference is not significant there.")
    assert held_out_sentence(made_up_score(held_out=tuple(range(6)))).endswith(
        "Wilcoxon p = 0.031, permutation p = 0.031); the gain holds there."
    )
    lost = made_up_score(personal=0.05, held_out=tuple(range(6)))
    assert held_out_sentence(lost).endswith("; the fleet did worse there.")
    assert held_out_sentence(made_up_score(held_out=())) == ""
