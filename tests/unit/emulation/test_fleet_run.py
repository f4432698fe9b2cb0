import dataclasses
import errno
import itertools
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hyperfleet.emulation import run_log
from hyperfleet.emulation.answer_book import AnswerBook
from hyperfleet.emulation.answering import answer_pairs
from hyperfleet.emulation.fleet_run import FleetRun, run_serial, virtual_windows
from hyperfleet.emulation.run_log import RunLog, differences
from hyperfleet.emulation.timeline.plan import Material, draw_plan
from hyperfleet.errors import DataError
from hyperfleet.scenario.faults import KillHost
from hyperfleet.scenario.policies import OnDrift
from tests.worlds.small_disk import small_disk
from tests.worlds.toy_fleet_run import ORIGIN, PER_WINDOW, SCENARIO, SEEN, TABLE, WORK, run, scenario_run
from tests.worlds.toy_generators import generator_of

# Room for some of its parts.
DISK_BYTES = 64 << 10


def test_each_sample_has_the_answer_of_its_head(tmp_path: Path) -> None:
    log = run(tmp_path / "log")
    answers = log.answers().to_pylist()
    assert len(answers) > 300
    generator = generator_of("full")
    for row in answers[::7]:
        if row["head"] == "static":
            assert (row["head_row"], row["answer"]) == (-1, 77)
            assert np.isnan(row["score"])
        else:
            answer, score = answer_pairs(
                generator, TABLE, np.array([row["row"]]), np.array([row["head_row"]])
            )
            assert row["answer"] == answer[0]
            assert row["score"] == pytest.approx(score[0], rel=1e-5)
        assert row["example_id"] == TABLE.example_id[row["row"]]
        assert row["static_answer"] == 78
    assert {row["head"] for row in answers} == {"fresh", "cached", "static"}
    skews = {row["device_id"]: round(row["device_clock_s"] - row["answered_s"], 6) for row in answers}
    assert set(skews.values()) == {0.0, 7.0}


def test_a_device_films_what_its_device_of_the_data_set_filmed(tmp_path: Path) -> None:
    for row in run(tmp_path / "log").answers().to_pylist():
        assert TABLE.device_id[row["row"]] == row["device_id"] % 10


@pytest.mark.heavy
def test_the_same_seed_gives_the_same_log_and_another_one_another(tmp_path: Path) -> None:
    first, again = run(tmp_path / "a"), run(tmp_path / "b")
    assert differences(first, again) == []
    other = run(tmp_path / "c", dataclasses.replace(SCENARIO, seed=1))
    assert differences(first, other) != []


@pytest.mark.heavy
def test_a_killed_host_is_no_event_of_the_log(tmp_path: Path) -> None:
    killed = dataclasses.replace(SCENARIO, faults=(*SCENARIO.faults, KillHost(at_s=20.0)))
    log = RunLog.begin(tmp_path / "b", killed, ORIGIN)
    kills: list[float] = []
    own = scenario_run(killed, log)
    for pairs in own.pairs(kills.append):
        own.answered(pairs, *answer_pairs(generator_of("full"), TABLE, pairs.row, pairs.head_row))
    assert kills == [20.0]
    assert differences(run(tmp_path / "a"), log) == []


@pytest.mark.heavy
@pytest.mark.parametrize("left", [0, 1, 3])
def test_an_interrupted_run_goes_on_where_its_log_ends(tmp_path: Path, left: int) -> None:
    whole = run(tmp_path / "whole")
    log = RunLog.begin(tmp_path / "cut", SCENARIO, ORIGIN)
    own = scenario_run(SCENARIO, log)
    for pairs in itertools.takewhile(lambda pairs: pairs.window <= left, own.pairs()):
        own.answered(pairs, *answer_pairs(generator_of("full"), TABLE, pairs.row, pairs.head_row))
    # What a killed process leaves: a part that was being written, and one of two files.
    damaged = log.folder / "events" / f"part-{log.num_parts():05d}.parquet"
    damaged.write_bytes(b"PAR1 half of a file")
    assert 0 < log.num_parts() + 1 < whole.num_parts()
    again = RunLog.open(tmp_path / "cut")
    again.check_same(SCENARIO, ORIGIN)
    written, own = again.num_parts(), scenario_run(SCENARIO, again)
    for pairs in own.pairs():
        assert pairs.window >= written  # what is there is not computed again
        own.answered(pairs, *answer_pairs(generator_of("full"), TABLE, pairs.row, pairs.head_row))
    assert differences(whole, again) == []


def test_answers_are_computed_once(tmp_path: Path) -> None:
    log = RunLog.begin(tmp_path / "log", SCENARIO, ORIGIN)
    own = scenario_run(SCENARIO, log)
    asked: list[tuple[int, int]] = []
    for pairs in own.pairs():
        asked += zip(pairs.row.tolist(), pairs.head_row.tolist(), strict=True)
        own.answered(pairs, *answer_pairs(generator_of("full"), TABLE, pairs.row, pairs.head_row))
    assert len(asked) == len(set(asked))
    answers = log.answers()
    needed = zip(answers["row"].to_pylist(), answers["head_row"].to_pylist(), strict=True)
    assert set(asked) == {pair for pair in needed if pair[1] >= 0}


def test_a_log_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    log = run(tmp_path / "log")
    with pytest.raises(DataError, match="seed"):
        log.check_same(dataclasses.replace(SCENARIO, seed=5), ORIGIN)
    with pytest.raises(DataError, match="features"):
        log.check_same(SCENARIO, {**ORIGIN, "features": "def"})
    log.check_same(dataclasses.replace(SCENARIO, description="reworded"), ORIGIN)
    with pytest.raises(DataError, match="holds the log of a run"):
        RunLog.begin(tmp_path / "log", SCENARIO, ORIGIN)
    with pytest.raises(DataError, match="no log"):
        RunLog.open(tmp_path / "nowhere")


def test_a_full_disk_says_so_and_leaves_what_was_written(tmp_path: Path, monkeypatch) -> None:
    log = RunLog.begin(tmp_path / "log", SCENARIO, ORIGIN)
    written = 0
    write_table = pq.write_table

    def full(table, path, **options):
        nonlocal written
        written += 1
        if written > 4:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write_table(table, path, **options)

    monkeypatch.setattr(run_log.pq, "write_table", full)
    with pytest.raises(DataError, match=r"No space left.*--resume"):
        run_serial(scenario_run(SCENARIO, log), generator_of("full"), "fp32", TABLE)
    assert RunLog.open(tmp_path / "log").num_parts() == 2
    assert not list((tmp_path / "log").rglob("*.partial"))


@pytest.mark.heavy
def test_a_disk_that_is_really_full_leaves_a_log_to_go_on_with(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with small_disk(tmp_path / "disk", DISK_BYTES) as disk:
        log = RunLog.begin(disk / "log", SCENARIO, ORIGIN)
        with pytest.raises(DataError, match=r"No space left.*free some space.*--resume"):
            run_serial(scenario_run(SCENARIO, log), generator_of("full"), "fp32", TABLE)
        again = RunLog.open(disk / "log")
        assert 0 < again.num_parts() < whole.num_parts()
        assert not list(disk.rglob("*.partial"))
        shutil.copytree(disk / "log", tmp_path / "roomy")
    again = RunLog.open(tmp_path / "roomy")
    run_serial(scenario_run(SCENARIO, again), generator_of("full"), "fp32", TABLE)
    assert differences(whole, again) == []


def test_drift_is_noticed_from_features(tmp_path: Path) -> None:
    # Rows of the odd devices of the data set lie elsewhere, and from the middle on everybody films there.
    anchor = TABLE.anchor + 4.0 * (TABLE.device_id[:, None] % 2)
    table = dataclasses.replace(TABLE, anchor=anchor.astype(np.float32))
    scenario = dataclasses.replace(
        SCENARIO, policy=OnDrift(window=8), faults=(), duration_s=200.0, active_devices=5
    )
    scenario = dataclasses.replace(
        scenario, drift=dataclasses.replace(scenario.drift, kind="abrupt", at_s=100.0)
    )
    plan = draw_plan(scenario, Material.of(table.device_id, SEEN))
    log = RunLog.begin(tmp_path / "log", scenario, ORIGIN)
    windows = virtual_windows(scenario, plan, WORK, table, answers_per_window=PER_WINDOW)
    own = FleetRun(scenario, plan, windows, table, log)
    run_serial(own, generator_of("full"), "fp32", table)
    answers = log.answers().to_pandas()
    fresh = answers[(answers["head"] == "fresh") & (answers["sampled_s"] > 1.0)]
    moved = {
        device
        for device, own in answers.groupby("device_id")
        if len(set(table.device_id[own["row"]] % 2)) == 2
    }
    assert moved
    late = fresh[fresh["sampled_s"] > 100.0]
    assert moved <= set(late["device_id"])
    assert len(fresh) < 40 < len(answers)


def test_a_book_returns_what_it_learnt() -> None:
    book = AnswerBook(TABLE)
    rows, heads = np.array([1, 2, 1, 5]), np.array([4, -1, 4, 3])
    sample, head = book.ask(rows, heads)
    assert sorted(zip(sample.tolist(), head.tolist(), strict=True)) == [(1, 4), (5, 3)]
    assert [len(part) for part in book.ask(rows, heads)] == [0, 0]
    book.learn(sample, head, sample.astype(np.int32) * 10, sample.astype(np.float32))
    answer, score = book.look_up(rows, heads)
    assert answer.tolist() == [10, 77, 10, 50]
    np.testing.assert_array_equal(score, np.array([1, np.nan, 1, 5], np.float32))
