import asyncio
import dataclasses
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from hyperfleet.client import AsyncHttpClient, GeneratorClient, RetryPolicy
from hyperfleet.emulation.fleet_run import virtual_windows
from hyperfleet.emulation.real_time import RealTimeRun
from hyperfleet.emulation.timeline import rows
from hyperfleet.errors import HeadLayoutError, ServiceError
from hyperfleet.scenario.arrival_files import write_trace
from hyperfleet.scenario.arrivals import Poisson, Trace
from hyperfleet.scenario.faults import KillReplica
from hyperfleet.scenario.policies import EveryN
from tests.worlds.devices_in_memory import LABEL, LAYOUT, Traffic, generate, generator_server, reply_of
from tests.worlds.real_time import (
    REPLY,
    SAID_S,
    TABLE,
    WORK,
    Service,
    at_once,
    check_log,
    hang,
    measure,
    no_task_is_left,
    plan_of,
    run,
    scenario,
    times,
)

pytestmark = pytest.mark.heavy


def test_the_fake_is_a_client() -> None:
    assert isinstance(Service(at_once), GeneratorClient)


def test_the_same_samples_are_answered_as_in_virtual_time_and_waited_for() -> None:
    async def slowly(row: int, before: int) -> None:
        await asyncio.sleep(0.2)

    chosen, service = scenario(), Service(slowly)
    result = run(chosen, service)
    check_log(chosen, result)
    virtual = [
        answer
        for window in virtual_windows(chosen, plan_of(chosen), WORK, TABLE)
        for answer in window.answers
    ]
    keys = {(each.device, each.number): each for each in virtual}
    measured = result.answers
    assert len(measured) == len(virtual) == len(service.asked) > 10
    for each in measured:
        computed = keys[each.device, each.number]
        for name in ("row", "sampled_s", "head", "head_row", "attempts", "uplink_bytes", "downlink_bytes"):
            assert getattr(each, name) == getattr(computed, name), name
        for name in ("encode_s", "uplink_s", "apply_s"):
            assert getattr(each, name) == pytest.approx(getattr(computed, name)), name
        assert (each.head, each.fallback, each.generate_s) == (rows.FRESH, "", SAID_S)
        # The computed cloud is far faster than the one that was asked.
        assert computed.queue_s + computed.generate_s < 0.2 <= each.queue_s + each.generate_s + 1e-9
    assert result.generate_s.tolist() == [SAID_S] * len(measured)


def test_requests_go_out_when_they_are_due_however_long_the_ones_before_take() -> None:
    chosen = scenario(arrivals=Poisson(per_device_per_s=2.0))
    num_samples = len(plan_of(chosen).time_s)
    everybody_is_there = asyncio.Event()

    async def wait_for_all(row: int, before: int) -> None:
        # Whoever waits for an answer before it asks the next time would wait for ever.
        if service.num_open == num_samples:
            everybody_is_there.set()
        await everybody_is_there.wait()

    service = Service(wait_for_all)
    result = run(chosen, service)
    check_log(chosen, result)
    assert service.most_open == num_samples > 25
    assert {each.head for each in result.answers} == {rows.FRESH}
    # The log says when each was due, the service when it came: in that order, and never too early.
    due = times(result.events, rows.RECEIVED)
    plan = plan_of(chosen)
    row_of = dict(
        zip(zip(plan.device.tolist(), plan.number.tolist(), strict=True), plan.row.tolist(), strict=True)
    )
    assert [row for _, row in service.asked] == [row_of[key[:2]] for key in sorted(due, key=due.__getitem__)]
    for asked_s, due_s in zip([at_s for at_s, _ in service.asked], sorted(due.values()), strict=True):
        assert asked_s >= due_s
    # The lag of late events is reported.
    assert result.max_lag_s > 0


def test_a_loop_that_is_held_up_says_by_how_much() -> None:
    held_up: list[float] = []

    def hold_up(now_s: float, num_answered: int) -> None:
        if now_s > 0.4 and not held_up:
            held_up.append(now_s)
            time.sleep(0.5)

    chosen = scenario(arrivals=Poisson(per_device_per_s=5.0))
    result = run(chosen, Service(at_once), on_progress=hold_up)
    check_log(chosen, result)
    # Samples come every 10 ms: the first of them was due just after it stopped.
    assert result.max_lag_s > 0.3


def test_a_refusal_is_honoured() -> None:
    refused_s: dict[int, float] = {}
    again_s: dict[int, float] = {}

    async def refuse_once(row: int, before: int) -> None:
        if before == 0:
            refused_s[row] = time.perf_counter()
            wait_s = 0.5 if row % 2 else 0.0
            raise ServiceError("it is too busy", status=429, retry_after_s=wait_s, transient=True)
        again_s.setdefault(row, time.perf_counter())

    # One sample per device, so that the service can distinguish them by row.
    chosen = scenario(arrivals=Poisson(per_device_per_s=0.5))
    result = run(chosen, Service(refuse_once))
    check_log(chosen, result)
    events = result.events
    answers = result.answers
    assert refused_s
    assert set(again_s) == set(refused_s)
    assert all(again_s[row] - refused_s[row] >= 0.5 for row in refused_s if row % 2)
    first = [each for each in answers if each.attempts == 2]
    assert {each.row for each in first} == set(refused_s)
    assert {each.head for each in answers} == {rows.FRESH}
    refusals = [event for event in events if event[1] == rows.REFUSED]
    assert len(refusals) == len(refused_s)
    assert {event[8] for event in refusals} == {"HTTP 429"}
    plan = plan_of(chosen)
    row_of = {
        (device, number): row
        for device, number, row in zip(
            plan.device.tolist(), plan.number.tolist(), plan.row.tolist(), strict=True
        )
    }
    for _, what, device, number, _, _, pause_s, _, detail in events:
        if what == rows.RETRY:
            assert detail == "HTTP 429"
            assert (pause_s >= 0.5) == bool(row_of[device, number] % 2)
    assert all(each.queue_s >= 0.5 for each in first if each.row % 2)


def test_the_real_client_s_refusals_are_read() -> None:
    asked: list[bytes] = []

    def refuse_once(body: bytes) -> int | None:
        asked.append(body)
        return 429 if asked.count(body) == 1 else None

    chosen = scenario(arrivals=Poisson(per_device_per_s=0.5))
    num_rows = len(set(plan_of(chosen).row.tolist()))

    async def over_http(url: str) -> RealTimeRun:
        retry = dataclasses.replace(chosen.retry, max_tries=1, max_hangs=1_000_000)
        async with AsyncHttpClient(url=url, layout=LAYOUT, task=LABEL.task, retry=retry) as client:
            return await measure(chosen, client)

    with generator_server(Traffic(refuse=refuse_once)) as url:
        result = asyncio.run(over_http(url))
    check_log(chosen, result)
    kinds = [event[1] for event in result.events]
    assert kinds.count(rows.REFUSED) == kinds.count(rows.RETRY) == num_rows > 3
    assert {event[8] for event in result.events if event[1] == rows.REFUSED} == {"HTTP 429"}
    assert {each.head for each in result.answers} == {rows.FRESH}


@pytest.mark.parametrize("error", ["connection", "damaged", "layout"])
def test_a_broken_answer_is_asked_for_again(error: str) -> None:
    async def break_once(row: int, before: int) -> None:
        if before == 0:
            if error == "layout":
                raise HeadLayoutError("a head of another model")
            raise ServiceError("the server went away", transient=error == "damaged")

    chosen = scenario(arrivals=Poisson(per_device_per_s=0.5))
    result = run(chosen, Service(break_once))
    check_log(chosen, result)
    assert {each.head for each in result.answers} == {rows.FRESH}
    num_rows = len({each.row for each in result.answers})
    assert [event[1] for event in result.events].count(rows.LOST) == num_rows > 3


def test_a_service_that_hangs_costs_each_sample_its_deadline_and_no_more() -> None:
    chosen = scenario(retry=RetryPolicy(try_timeout_s=0.4, deadline_s=0.7, max_tries=2, backoff_s=0.01))
    service = Service(hang)
    result = run(chosen, service)
    check_log(chosen, result)
    for each in result.answers:
        assert (each.head, each.head_row, each.fallback) == (rows.STATIC, -1, "timed out")
        waited_s = each.answered_s - each.sampled_s - each.encode_s - each.apply_s
        assert waited_s == pytest.approx(0.7, abs=1e-6)
        assert each.attempts == 2
    # What nobody waits for any more is given up when the run is over.
    assert service.num_open == 0
    assert service.num_cancelled == len(service.asked) > 10


@pytest.mark.heavy
def test_a_device_without_a_new_head_goes_on_with_its_last(tmp_path) -> None:
    async def answer_first(row: int, before: int) -> None:
        if len(service.asked) > 1:
            await hang(row, before)

    time_s = np.array([0.0, 2.6, 2.7, 2.8])
    arrivals = Trace(path=write_trace(tmp_path / "trace.csv", time_s, np.zeros(4, np.int64)))
    chosen = scenario(
        arrivals=arrivals,
        duration_s=5.0,
        active_devices=1,
        policy=EveryN(n=2),
        retry=RetryPolicy(try_timeout_s=2.5, deadline_s=2.5, max_tries=1),
    )
    service = Service(answer_first)
    result = run(chosen, service)
    check_log(chosen, result)
    answers = sorted(result.answers, key=lambda each: each.number)
    assert [each.head for each in answers] == [rows.FRESH, rows.CACHED, rows.CACHED, rows.CACHED]
    assert {each.head_row for each in answers} == {answers[0].row}
    assert [each.fallback for each in answers] == ["", "", "timed out", ""]
    got_s = answers[0].answered_s - answers[0].apply_s
    assert answers[2].head_age_s == pytest.approx(answers[2].answered_s - answers[2].apply_s - got_s)


@pytest.mark.heavy
def test_a_replica_is_killed_beside_the_run() -> None:
    threads: list[int] = []
    goes_on = threading.Event()

    def kill() -> None:
        threads.append(threading.get_ident())
        # It takes as long as the service needs for one more request.
        assert goes_on.wait(60)

    async def notice(row: int, before: int) -> None:
        if threads:
            goes_on.set()

    chosen = scenario(faults=(KillReplica(at_s=0.3, restart_s=0.2),))
    result = run(chosen, Service(notice), kill_replica=kill)
    check_log(chosen, result)
    assert goes_on.is_set()
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    faults = [(event[0], rows.KINDS[event[1]]) for event in result.events if event[2] == -1]
    assert faults == [(0.3, "fault-begins"), (0.5, "fault-ends")]
    check_log(chosen, run(chosen, Service(at_once)))  # nothing to kill with: the log tells of it all the same


def test_a_kill_that_fails_ends_the_run_and_what_was_answered_is_kept() -> None:
    failure = ServiceError("no replica runs on this cluster")

    def kill() -> None:
        raise failure

    chosen = scenario(arrivals=Poisson(per_device_per_s=3.0), faults=(KillReplica(at_s=0.5, restart_s=0.2),))
    result = run(chosen, Service(at_once), kill_replica=kill)
    assert result.ended_by is failure
    assert 0 < len(result.answers) < len(plan_of(chosen).time_s)


def test_a_run_that_is_stopped_from_another_thread_keeps_what_was_answered() -> None:
    stop = threading.Event()

    def progress(now_s: float, num_answered: int) -> None:
        if num_answered >= 5:
            threading.Thread(target=stop.set).start()

    chosen = scenario(arrivals=Poisson(per_device_per_s=3.0))
    service = Service(at_once)
    result = run(chosen, service, on_progress=progress, interrupted=stop)
    assert service.num_open == 0
    assert 5 <= len(result.answers) < len(plan_of(chosen).time_s)


@pytest.mark.parametrize("how", ["cancelled", "broken"])
def test_an_interrupted_run_leaves_no_task_behind(how: str) -> None:
    def stop(now_s: float, num_answered: int) -> None:
        if how == "broken" and len(service.asked) >= 5:
            raise KeyError("on purpose")

    async def interrupt() -> None:
        running = asyncio.create_task(measure(scenario(), service, on_progress=stop))
        while len(service.asked) < 5 and not running.done():
            await asyncio.sleep(0.01)
        if how == "cancelled":
            running.cancel()
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else KeyError):
            await running
        await no_task_is_left()

    service = Service(hang)
    asyncio.run(interrupt())
    assert service.num_open == 0
    assert service.num_cancelled == len(service.asked) >= 5


def test_windows_cut_the_run_and_change_nothing_of_it() -> None:
    chosen = scenario(arrivals=Poisson(per_device_per_s=3.0))
    result = run(chosen, Service(at_once))
    windows = list(result.windows(10))
    assert [answer for window in windows for answer in window.answers] == result.answers
    assert [event for window in windows for event in window.events] == result.events
    sizes = [len(window.answers) for window in windows]
    assert len(sizes) > 3
    assert set(sizes[:-1]) == {10}
    assert 0 < sizes[-1] <= 10
    for window, after in pairwise(windows):
        # What happened up to the last answer of a window is in it, and nothing later.
        assert window.events[-1][0] <= window.answers[-1].answered_s < after.events[0][0]


def test_a_head_that_came_answers_its_sample_as_it_is() -> None:
    chosen = scenario()
    result = run(chosen, Service(at_once))
    weight, bias = LAYOUT.split(REPLY.heads.dense().numpy())
    scores = TABLE.hidden @ weight[0].T + bias[0]
    assert sorted(result.fresh.row.tolist()) == sorted({each.row for each in result.answers})
    np.testing.assert_array_equal(result.fresh.answer, scores[result.fresh.row].argmax(axis=1))
    np.testing.assert_allclose(result.fresh.score, scores[result.fresh.row].max(axis=1), rtol=1e-5)


def test_a_head_without_finite_scores_leaves_the_answer_to_the_static_head() -> None:
    generated = generate(TABLE.anchor[:1])
    generated.numbers[:] = np.nan
    service = Service(at_once)
    service.reply = reply_of(generated)
    result = run(scenario(), service)
    assert len(result.fresh.row) > 3
    np.testing.assert_array_equal(result.fresh.answer, TABLE.base_answer[result.fresh.row])
    assert np.isnan(result.fresh.score).all()
