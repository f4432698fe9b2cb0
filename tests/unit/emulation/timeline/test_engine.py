import dataclasses
import gc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.client import RetryPolicy
from hyperfleet.emulation.timeline import rows
from hyperfleet.emulation.timeline.engine import AnsweredSample, EventRow, Timeline, Window, Work
from hyperfleet.emulation.timeline.plan import Material, Plan, draw_plan
from hyperfleet.link.network import transfer_s
from hyperfleet.scenario.arrivals import ClosedLoop, Poisson
from hyperfleet.scenario.cloud_model import CloudModel
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.faults import (
    Blackout,
    ClockSkew,
    CorruptReplies,
    Fault,
    KillHost,
    KillReplica,
    RefuseRequests,
    SlowDevices,
)
from hyperfleet.scenario.policies import EveryN, EverySample, Never, OncePerSession, RequestPolicy
from hyperfleet.scenario.profiles import DeviceProfile

MATERIAL = Material.of(np.repeat(np.arange(40), 5), {device: device < 30 for device in range(40)})
WORK = Work(encode_gmacs=0.2, apply_gmacs=0.002, uplink_bytes=768, downlink_bytes=100_000)


def calm(**changes: object) -> Scenario:
    """A scenario in which nothing waits for anything."""
    fields: dict[str, object] = {
        "name": "calm",
        "active_devices": 20,
        "registered_devices": 20,
        "duration_s": 60.0,
        "arrivals": Poisson(per_device_per_s=0.05),
        "networks": ("4g-5",),
        "cloud": CloudModel(replicas=50, batch_s=0.01, head_s=0.001),
    }
    return Scenario(**{**fields, **changes})  # type: ignore[arg-type]  # fields of any type


def run(
    scenario: Scenario, answers_per_window: int = 1000
) -> tuple[Plan, list[EventRow], list[AnsweredSample]]:
    plan = draw_plan(scenario, MATERIAL)
    windows: list[Window] = list(Timeline(scenario, plan, WORK).windows(answers_per_window))
    events = [event for window in windows for event in window.events]
    return plan, events, [answer for window in windows for answer in window.answers]


def count(events: list[EventRow]) -> Counter[str]:
    return Counter(rows.KINDS[event[1]] for event in events)


def check_invariants(scenario: Scenario) -> tuple[list[EventRow], list[AnsweredSample]]:
    plan, events, answers = run(scenario)
    off = sum(event[8] == "battery empty" for event in events)
    keys = [(answer.device, answer.number) for answer in answers]
    assert len(set(keys)) == len(keys) == len(plan.time_s) - off
    times = [event[0] for event in events]
    assert times == sorted(times)
    kinds = count(events)
    assert kinds["sent"] == sum(answer.attempts for answer in answers)
    assert kinds["delivered"] == sum(answer.head == rows.FRESH for answer in answers)
    assert kinds["gave-up"] == sum(answer.fallback != "" for answer in answers)
    uplink = sum(event[5] for event in events if rows.KINDS[event[1]] == "sent")
    assert uplink == sum(answer.uplink_bytes for answer in answers)
    downlink = sum(event[5] for event in events if rows.KINDS[event[1]] != "sent")
    assert downlink == sum(answer.downlink_bytes for answer in answers)
    joules = sum(event[7] for event in events)
    assert joules == pytest.approx(sum(answer.joules for answer in answers))
    for answer in answers:
        parts = (
            answer.encode_s
            + answer.uplink_s
            + answer.queue_s
            + answer.generate_s
            + answer.downlink_s
            + answer.apply_s
        )
        assert parts == pytest.approx(answer.answered_s - answer.sampled_s, abs=1e-9)
        assert answer.attempts <= scenario.retry.max_tries
        assert (answer.head == rows.STATIC) == (answer.head_row < 0) == (answer.head_age_s < 0)
        waited_s = answer.answered_s - answer.sampled_s - answer.encode_s - answer.apply_s
        assert waited_s <= scenario.retry.deadline_s + 1e-9
    return events, answers


def test_an_undisturbed_request_takes_what_the_papers_formula_says() -> None:
    scenario = calm(arrivals=Poisson(per_device_per_s=0.002))
    _, events, answers = run(scenario)
    assert answers
    speed = scenario.profiles[0].gmac_per_s
    for answer in answers:
        assert answer.uplink_s == pytest.approx(transfer_s(768, 5.0))
        assert answer.downlink_s == pytest.approx(transfer_s(100_000, 5.0))
        assert answer.encode_s == pytest.approx(0.2 / speed)
        assert answer.generate_s == pytest.approx(0.011)
        assert answer.queue_s == pytest.approx(0.0, abs=1e-9)
        assert answer.head_row == answer.row
    assert count(events) == dict.fromkeys(
        ("sample", "sent", "received", "generated", "delivered", "answered"), len(answers)
    )


def test_one_replica_without_batches_waits_as_lindley_says() -> None:
    scenario = calm(
        arrivals=Poisson(per_device_per_s=1.0),
        cloud=CloudModel(replicas=1, max_batch=1, batch_s=0.04, head_s=0.0, max_waiting=10_000),
        retry=RetryPolicy(try_timeout_s=500.0, deadline_s=1000.0),
    )
    _, events, answers = run(scenario)
    received = sorted(event[0] for event in events if event[1] == rows.RECEIVED)
    done, expected = 0.0, []
    for at_s in received:
        done = max(done, at_s) + 0.04
        expected.append(done)
    generated = [event[0] for event in events if event[1] == rows.GENERATED]
    np.testing.assert_allclose(generated, expected)
    assert max(answer.queue_s for answer in answers) > 0.1


def test_a_device_encodes_one_sample_after_the_other() -> None:
    slow = DeviceProfile(name="slow", gmac_per_s=0.1)
    scenario = calm(
        active_devices=1, arrivals=Poisson(per_device_per_s=1.0), profiles=(slow,), duration_s=20.0
    )
    plan, _, answers = run(scenario)
    done = 0.0
    for answer in sorted(answers, key=lambda answer: answer.number):
        done = max(done, plan.time_s[answer.number]) + 2.0
        assert answer.sampled_s + answer.encode_s == pytest.approx(done)


def test_windows_cut_a_run_and_change_nothing_of_it() -> None:
    scenario = calm(faults=(CorruptReplies(from_s=0.0, to_s=30.0, share=0.5),))
    whole, parts = run(scenario, 100_000), run(scenario, 7)
    assert whole[1] == parts[1]
    assert whole[2] == parts[2]


def test_dormant_devices_change_nothing_but_the_ids() -> None:
    few = run(calm())
    many = run(calm(registered_devices=1_000_000))
    assert len(np.unique(many[0].device_id)) == 20
    assert many[0].device_id.max() > 20
    assert len(few[1]) == len(many[1])


@pytest.mark.parametrize(
    ("policy", "fresh"),
    [
        (EverySample(), lambda streams: sum(map(len, streams))),
        (Never(), lambda streams: 0),
        (EveryN(n=3), lambda streams: sum(-(-len(times) // 3) for times in streams)),
        (
            OncePerSession(gap_s=20.0),
            lambda streams: sum(1 + sum(np.diff(times) >= 20.0) for times in streams if len(times)),
        ),
    ],
)
def test_policies_ask_as_often_as_they_say(policy: RequestPolicy, fresh: object) -> None:
    # So few samples that each head is there before the next sample comes.
    scenario = calm(policy=policy, arrivals=Poisson(per_device_per_s=0.1), duration_s=120.0)
    plan, _, answers = run(scenario)
    streams = [plan.time_s[plan.device == device] for device in range(20)]
    gaps = np.concatenate([np.diff(times) for times in streams])
    assert (gaps < 0.5).sum() < 30
    got = sum(answer.head == rows.FRESH for answer in answers)
    assert callable(fresh)
    assert abs(got - fresh(streams)) <= (gaps < 0.5).sum()
    if isinstance(policy, EverySample | Never):
        assert got == fresh(streams)


def test_a_cached_head_is_the_newest_one_and_has_its_age() -> None:
    _, _, answers = run(calm(policy=EveryN(n=4), arrivals=Poisson(per_device_per_s=0.05), duration_s=200.0))
    newest: dict[int, AnsweredSample] = {}
    checked = 0
    for answer in answers:
        if answer.head == rows.FRESH:
            newest[answer.device] = answer
        elif answer.device in newest and not answer.fallback:
            head = newest[answer.device]
            assert answer.head_row == head.row
            age_s = answer.answered_s - answer.apply_s - (head.answered_s - head.apply_s)
            assert answer.head_age_s == pytest.approx(age_s)
            checked += 1
    assert checked > 50


def test_no_device_is_lost_whatever_fails() -> None:
    faults = (
        Blackout(from_s=10.0, to_s=20.0),
        RefuseRequests(from_s=20.0, to_s=30.0, status=503),
        CorruptReplies(from_s=30.0, to_s=40.0, share=1.0),
        KillReplica(at_s=42.0),
        SlowDevices(from_s=44.0, to_s=50.0, share=0.5),
        KillHost(at_s=45.0),
        ClockSkew(),
    )
    scenario = calm(
        faults=faults,
        arrivals=Poisson(per_device_per_s=0.5),
        retry=RetryPolicy(try_timeout_s=1.0, deadline_s=4.0, max_tries=3),
    )
    events, answers = check_invariants(scenario)
    kinds = count(events)
    for kind in ("timeout", "refused", "corrupt", "retry", "gave-up"):
        assert kinds[kind] > 0, kind
    assert kinds["fault-begins"] == 5  # hosts and clocks are no events of the devices
    assert {answer.fallback for answer in answers} >= {"", "timed out", "HTTP 503", "checksum"}
    # Afterwards everything is as before.
    assert all(answer.head == rows.FRESH for answer in answers if answer.sampled_s > 50)


@pytest.mark.heavy
def test_pauses_of_many_tries_end_at_a_quarter_of_the_deadline() -> None:
    scenario = calm(
        arrivals=Poisson(per_device_per_s=0.5),
        faults=(RefuseRequests(from_s=0.0, to_s=60.0, status=503),),
        retry=RetryPolicy(try_timeout_s=1.0, deadline_s=20.0, max_tries=40),
    )
    _, events, _ = run(scenario)
    retries = [event for event in events if event[1] == rows.RETRY]
    assert max(event[6] for event in retries) <= 5.0
    assert max(event[4] for event in retries) > 7  # where doubling alone would have passed five seconds


def test_a_blackout_lets_nothing_through_on_its_network_alone() -> None:
    scenario = calm(
        networks=("4g-5", "5g-100"),
        arrivals=Poisson(per_device_per_s=0.5),
        faults=(Blackout(from_s=20.0, to_s=30.0, network="4g-5"),),
        retry=RetryPolicy(try_timeout_s=2.0, deadline_s=4.0),
    )
    plan, events, _ = run(scenario)
    during = {True: 0, False: 0}
    for time_s, kind, device, *_ in events:
        if kind == rows.DELIVERED and 20.0 < time_s < 30.0:
            during[bool(plan.network[device] == 0)] += 1
    assert during[True] == 0
    assert during[False] > 10


def test_a_killed_replica_loses_its_batch_and_comes_back() -> None:
    scenario = calm(
        arrivals=Poisson(per_device_per_s=2.0),
        cloud=CloudModel(replicas=1, batch_s=0.5, head_s=0.0),
        faults=(KillReplica(at_s=20.0, restart_s=3.0),),
    )
    events, answers = check_invariants(scenario)
    lost = [event for event in events if event[1] == rows.LOST]
    assert lost
    assert all(event[0] == 20.0 for event in lost)
    generated = [event[0] for event in events if event[1] == rows.GENERATED]
    assert not [at_s for at_s in generated if 20.0 <= at_s < 23.0]
    assert all(answer.head == rows.FRESH for answer in answers)


@pytest.mark.heavy
def test_a_full_queue_refuses_with_the_time_that_it_needs() -> None:
    scenario = calm(
        arrivals=Poisson(per_device_per_s=5.0),
        cloud=CloudModel(replicas=1, max_batch=2, batch_s=0.1, head_s=0.0, max_waiting=10),
        duration_s=20.0,
    )
    events, _ = check_invariants(scenario)
    pauses = [event[6] for event in events if event[1] == rows.RETRY and event[8] == "HTTP 429"]
    assert pauses
    assert min(pauses) >= 10 / scenario.cloud.max_heads_per_s


def test_an_empty_battery_answers_nothing_any_more() -> None:
    profile = DeviceProfile(name="small", battery_j=30.0)
    scenario = calm(profiles=(profile,), arrivals=Poisson(per_device_per_s=0.2), duration_s=300.0)
    events, answers = check_invariants(scenario)
    empty = {event[2]: event[0] for event in events if event[1] == rows.BATTERY_EMPTY}
    assert len(empty) == 20
    assert all(answer.sampled_s <= empty[answer.device] for answer in answers)
    joules = Counter[int]()
    for answer in answers:
        joules[answer.device] += answer.joules  # type: ignore[assignment]  # a Counter adds floats too
    assert min(joules.values()) >= 30.0


def faults(duration_s: float) -> st.SearchStrategy[Fault]:
    spans = st.tuples(st.floats(0, duration_s, allow_subnormal=False), st.floats(0.1, duration_s)).map(
        lambda span: {"from_s": span[0], "to_s": span[0] + span[1]}
    )
    shares = st.floats(0.05, 1.0)
    return st.one_of(
        st.builds(
            lambda at, down: KillReplica(at_s=at, restart_s=down),
            st.floats(0, duration_s, allow_subnormal=False),
            st.floats(0.1, 9),
        ),
        spans.map(lambda span: Blackout(**span)),
        st.builds(lambda span, share: CorruptReplies(share=share, **span), spans, shares),
        st.builds(lambda span, share: RefuseRequests(share=share, **span), spans, shares),
        st.builds(lambda span, share: SlowDevices(share=share, **span), spans, shares),
    )


@pytest.mark.heavy
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    policy=st.sampled_from([EverySample(), EveryN(n=2), OncePerSession(gap_s=5.0), Never()]),
    disturbed=st.lists(faults(30.0), max_size=4),
    replicas=st.integers(1, 3),
    max_waiting=st.integers(1, 50),
    networks=st.sampled_from([("4g-5",), ("lte_drive", "nr_mmwave")]),
)
def test_every_sample_is_answered_once_whatever_happens(
    seed: int,
    policy: RequestPolicy,
    disturbed: list[Fault],
    replicas: int,
    max_waiting: int,
    networks: tuple[str, ...],
) -> None:
    scenario = calm(
        seed=seed,
        policy=policy,
        faults=tuple(disturbed),
        networks=networks,
        duration_s=30.0,
        arrivals=Poisson(per_device_per_s=0.4),
        cloud=CloudModel(replicas=replicas, max_batch=4, batch_s=0.05, head_s=0.01, max_waiting=max_waiting),
        retry=RetryPolicy(try_timeout_s=1.5, deadline_s=5.0, max_tries=3),
    )
    first = check_invariants(scenario)
    assert first == check_invariants(dataclasses.replace(scenario, name="again"))


def test_windows_are_made_without_the_search_for_cycles_and_read_with_it(monkeypatch) -> None:
    searched = []
    advance = Timeline.advance

    def watched(timeline: Timeline, until_s: float, stop_after: int | None = None) -> None:
        searched.append(gc.isenabled())
        advance(timeline, until_s, stop_after)

    monkeypatch.setattr(Timeline, "advance", watched)
    for _ in Timeline(calm(), draw_plan(calm(), MATERIAL), WORK).windows(10):
        assert gc.isenabled()
    assert len(searched) > 1
    assert not any(searched)


@pytest.mark.heavy
def test_requests_that_were_answered_wait_for_no_time_out() -> None:
    scenario = calm(arrivals=Poisson(per_device_per_s=2.0))
    timeline = Timeline(scenario, draw_plan(scenario, MATERIAL), WORK)
    longest = max(len(timeline._heap) for _ in timeline.windows(100))
    # About 1,200 requests of half a minute's patience came and went.
    assert longest < 200


def check_closed_loop(scenario: Scenario, plan: Plan, answers: list[AnsweredSample]) -> None:
    by_device: dict[int, list[AnsweredSample]] = {}
    for each in answers:
        by_device.setdefault(each.device, []).append(each)
    starts = dict(zip(plan.device.tolist(), plan.time_s.tolist(), strict=True))
    assert set(by_device) == set(starts)
    for device, own in by_device.items():
        assert [each.number for each in own] == list(range(len(own)))
        assert own[0].sampled_s == starts[device]
        for before, after in pairwise(own):
            assert after.sampled_s == before.answered_s < scenario.duration_s
        # Rows of its own stream in their order, from the first again when they are over.
        own_rows = [each.row for each in own]
        assert own_rows == [own_rows[0] + number % 5 for number in range(len(own))]


def test_in_a_closed_loop_a_device_takes_its_next_sample_when_the_one_before_is_answered() -> None:
    scenario = calm(arrivals=ClosedLoop(ramp_s=2.0), duration_s=1000.0)
    plan, events, answers = run(scenario)
    check_closed_loop(scenario, plan, answers)
    assert len(answers) == count(events)["sample"] == plan.num_samples == 20 * 5
    # One replica, one head at a time: the queue is never longer than there are devices.
    slow = calm(
        arrivals=ClosedLoop(samples_per_device=12, ramp_s=0.0),
        duration_s=1000.0,
        cloud=CloudModel(replicas=1, max_batch=1, batch_s=0.1, head_s=0.1),
    )
    plan, _, answers = run(slow)
    check_closed_loop(slow, plan, answers)
    assert len(answers) == plan.num_samples == 20 * 12
    # Saturated: twenty devices share five heads per second.
    assert answers[-1].answered_s == pytest.approx(240 * 0.2, rel=0.05)


@pytest.mark.parametrize("at_once", [1, 3, 20, 50])
def test_so_many_devices_take_samples_at_a_time(at_once: int) -> None:
    scenario = calm(arrivals=ClosedLoop(devices_at_once=at_once, ramp_s=1.0), duration_s=1000.0)
    plan, events, answers = run(scenario)
    assert len(answers) == count(events)["sample"] == plan.num_samples == 20 * 5
    spans = [
        (min(each.sampled_s for each in own), max(each.answered_s for each in own))
        for own in ([each for each in answers if each.device == device] for device in range(20))
    ]
    at_work = [sum(begin <= at_s < end for begin, end in spans) for at_s, _ in spans]
    assert max(at_work) <= at_once
    if at_once <= 3:
        assert max(at_work) == at_once
    # In shares of three processes no device is left out.
    shares = [plan.share(index, 3) for index in range(3)]
    parts = [list(Timeline(scenario, share, WORK).windows(1000)) for share in shares]
    done = sorted((each.device, each.number) for part in parts for window in part for each in window.answers)
    assert done == sorted((each.device, each.number) for each in answers)


@pytest.mark.heavy
def test_a_closed_loop_ends_with_its_duration() -> None:
    scenario = calm(arrivals=ClosedLoop(samples_per_device=1_000_000, ramp_s=1.0), duration_s=5.0)
    plan, events, answers = run(scenario)
    check_closed_loop(scenario, plan, answers)
    assert 0 < len(answers) == count(events)["sample"] < plan.num_samples
    assert max(each.sampled_s for each in answers) < 5.0


def test_a_device_whose_battery_is_empty_leaves_the_closed_loop() -> None:
    profile = DeviceProfile(name="small", battery_j=0.5)
    scenario = calm(arrivals=ClosedLoop(samples_per_device=1000), duration_s=1e5, profiles=(profile,))
    plan, events, answers = run(scenario)
    check_closed_loop(scenario, plan, answers)
    assert count(events)["battery-empty"] == 20
    assert len(answers) < plan.num_samples
    # Those that wait for their turn get it all the same.
    scenario = dataclasses.replace(scenario, arrivals=ClosedLoop(samples_per_device=1000, devices_at_once=2))
    assert count(run(scenario)[1])["battery-empty"] == 20


@pytest.mark.parametrize("num_shares", [1, 3, 20])
@pytest.mark.parametrize("arrivals", [Poisson(per_device_per_s=0.05), ClosedLoop()])
def test_shares_of_a_plan_are_the_plan(num_shares: int, arrivals: Poisson | ClosedLoop) -> None:
    # The cloud is never busy, so that what one device does changes nothing for another.
    scenario = calm(arrivals=arrivals)
    plan, events, answers = run(scenario)
    shares = [plan.share(index, num_shares) for index in range(num_shares)]
    assert sum(share.num_samples for share in shares) == plan.num_samples
    parts = [list(Timeline(scenario, share, WORK).windows(1000)) for share in shares]
    joined = [answer for part in parts for window in part for answer in window.answers]
    assert sorted(joined) == sorted(answers)
    assert sorted(event for part in parts for window in part for event in window.events) == sorted(events)
