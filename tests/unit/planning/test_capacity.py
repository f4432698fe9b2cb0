import heapq
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.emulation.timeline import rows
from hyperfleet.emulation.timeline.device_state import Request
from hyperfleet.emulation.timeline.engine import Work
from hyperfleet.emulation.timeline.plan import Material, draw_plan
from hyperfleet.emulation.timeline.queue_model import QueueModel
from hyperfleet.errors import ConfigError, DataError, EmptyStreamError
from hyperfleet.planning.bandwidth import Traffic, bytes_by_second
from hyperfleet.planning.capacity import plan_capacity, predict
from hyperfleet.planning.cloud_fit import Latencies, check_prediction, fit_cloud
from hyperfleet.scenario.arrivals import ClosedLoop, Poisson
from hyperfleet.scenario.cloud_model import CloudModel
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.faults import Blackout
from hyperfleet.scenario.policies import Never
from tests.worlds.made_up_device import device
from tests.worlds.made_up_log import answers

MIB = 1 << 20
# Next to nothing but the cloud takes time.
WORK = Work(encode_gmacs=1e-6, apply_gmacs=1e-6, uplink_bytes=100, downlink_bytes=1000)
MATERIAL = Material.of(np.repeat(np.arange(5), 4), dict.fromkeys(range(5), True))


def scenario(heads_per_s: float, cloud: CloudModel, *, num_devices: int = 500, **options: object) -> Scenario:
    return Scenario(
        name="test",
        active_devices=num_devices,
        registered_devices=num_devices,
        arrivals=Poisson(per_device_per_s=heads_per_s / num_devices),
        networks=("5g-100",),
        cloud=cloud,
        **options,
    )


# The queue


def mean_waits_s(cloud: CloudModel, heads_per_s: float, num_heads: int, seed: int) -> np.ndarray:
    """Mean waits of 40 stretches of a run of the queue alone, whose heads arrive at random."""
    heap: list[tuple[float, int, object, object, int]] = []
    waits_s: list[float] = []

    def schedule(at_s, handler, argument=None, number=0):
        heapq.heappush(heap, (at_s, len(waits_s) + num_heads + len(heap), handler, argument, number))

    def generated(now_s, request, attempt, generate_s):
        waits_s.append(now_s - generate_s - request.sampled_s)

    queue = QueueModel(cloud, schedule, generated, lambda now_s, request, attempt: None)
    for at_s in np.cumsum(np.random.default_rng(seed).exponential(1 / heads_per_s, num_heads)).tolist():
        while heap and heap[0][0] <= at_s:
            now_s, _, handler, argument, number = heapq.heappop(heap)
            handler(now_s, argument, number)
        assert queue.submit(at_s, Request(0, device(), 0, 0, at_s)) is None
    # Samples that follow each other wait alike; stretches of many are nearly independent.
    return np.array([part.mean() for part in np.array_split(waits_s, 40)])


@pytest.mark.heavy
@pytest.mark.parametrize(("load", "seed"), [(0.3, 0), (0.5, 1), (0.8, 2)])
def test_one_head_at_a_time_waits_as_long_as_the_formula_of_md1_says(load, seed):
    """Pollaczek and Khinchine: at a constant service time D the mean wait is load * D / (2 * (1 - load))."""
    service_s = 0.02
    cloud = CloudModel(max_batch=1, batch_s=0.005, head_s=0.015, max_waiting=100_000)
    means_s = mean_waits_s(cloud, load / service_s, 20_000, seed)
    error_s = means_s.std(ddof=1) / math.sqrt(len(means_s))
    assert error_s < 0.1 * means_s.mean(), "too few heads to tell anything"
    assert means_s.mean() == pytest.approx(load * service_s / (2 * (1 - load)), abs=3.5 * error_s)


def test_the_timeline_adds_nothing_to_the_wait_of_the_queue():
    cloud = CloudModel(max_batch=1, batch_s=0.005, head_s=0.015, max_waiting=100_000)
    setting = scenario(25.0, cloud, duration_s=20.0)
    plan = draw_plan(setting, MATERIAL)
    # Lindley: a head waits for what is left of the work before it; links are alike for all of them.
    wait_s, waits_s = 0.0, [0.0]
    for gap_s in np.diff(plan.time_s):
        wait_s = max(wait_s + 0.02 - gap_s, 0.0)
        waits_s.append(wait_s)
    got = predict(setting, plan, WORK)
    np.testing.assert_allclose(np.sort(got.cloud_s), 0.02 + np.sort(waits_s), atol=1e-3)


def test_a_free_replica_answers_at_once():
    cloud = CloudModel(replicas=50, max_batch=1, batch_s=0.005, head_s=0.015)
    setting = scenario(20.0, cloud, duration_s=10.0)
    got = predict(setting, draw_plan(setting, MATERIAL), WORK)
    np.testing.assert_allclose(got.cloud_s, 0.02, atol=1e-9)


# The fit


@given(
    batch_s=st.floats(0.0005, 0.1),
    head_s=st.floats(0.0001, 0.02),
    sizes=st.lists(st.integers(1, 64), min_size=2, max_size=40).filter(lambda sizes: len(set(sizes)) > 1),
)
def test_exact_times_are_found_again(batch_s, head_s, sizes):
    seconds = batch_s + head_s * np.array(sizes)
    fit = fit_cloud(np.array(sizes), seconds, CloudModel(replicas=3, max_batch=32, max_waiting=7))
    assert (fit.model.batch_s, fit.model.head_s) == pytest.approx((batch_s, head_s), rel=1e-6)
    assert (fit.model.replicas, fit.model.max_batch, fit.model.max_waiting) == (3, 32, 7)
    assert fit.num_batches == len(sizes)
    assert fit.relative_error < 1e-6


def test_the_fit_is_the_least_squares_one_and_never_negative():
    sizes, seconds = np.array([1, 2, 3, 4]), np.array([0.011, 0.009, 0.021, 0.019])
    fit = fit_cloud(sizes, seconds, CloudModel())
    head_s, batch_s = np.polyfit(sizes, seconds, 1)
    assert (fit.model.batch_s, fit.model.head_s) == pytest.approx((batch_s, head_s))
    left = seconds - batch_s - head_s * sizes
    assert fit.relative_error == pytest.approx(np.sqrt((left**2).mean()) / seconds.mean())
    falling = fit_cloud(sizes, np.array([0.04, 0.03, 0.02, 0.01]), CloudModel())
    assert falling.model.head_s == 0.0
    assert falling.model.batch_s == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("sizes", "seconds", "message"),
    [
        ([4, 4], [0.1, 0.2], "batches of at least two sizes"),
        ([], [], "batches of at least two sizes"),
        ([1, 2], [0.1, 0.0], "no finite time above 0 s"),
        ([0, 2], [0.1, 0.2], "has no head"),
    ],
)
def test_batches_that_tell_nothing_are_refused(sizes, seconds, message):
    with pytest.raises(DataError, match=message):
        fit_cloud(np.array(sizes, dtype=int), np.array(seconds, dtype=float), CloudModel())


@pytest.mark.heavy
@pytest.mark.parametrize("target_p99_s", [0.03, 0.08])
def test_the_plan_is_the_fewest_replicas_that_a_search_one_by_one_finds(target_p99_s):
    cloud = CloudModel(max_batch=4, batch_s=0.01, head_s=0.005, max_waiting=50)
    setting = scenario(300.0, cloud, duration_s=1.0)
    got = plan_capacity(setting, MATERIAL, WORK, num_devices=500, target_p99_s=target_p99_s)
    plan = draw_plan(setting, MATERIAL)

    def p99_s(replicas):
        result = predict(replace(setting, cloud=replace(cloud, replicas=replicas)), plan, WORK)
        late = np.sort(result.total_s)
        return (
            math.inf if result.num_fallbacks > 0.01 * len(late) else late[math.ceil(0.99 * (len(late) - 1))]
        )

    fewest = next(replicas for replicas in range(1, 100) if p99_s(replicas) <= target_p99_s)
    assert got.replicas == fewest
    assert got.p99_s == pytest.approx(p99_s(fewest))
    assert got.p50_s <= got.p99_s <= target_p99_s
    assert got.least_p99_s <= got.p99_s
    assert got.heads_per_s == pytest.approx(len(plan.time_s))
    assert got.max_heads_per_s == pytest.approx(fewest * 4 / 0.03)
    assert {each.replicas for each in got.tried} >= {fewest} | ({fewest - 1} if fewest > 1 else set())
    # The last heads arrive in the second after.
    mean = len(plan.time_s) / 2 / MIB
    assert got.bandwidth.uplink_mean_mib_per_s == pytest.approx(100 * mean, rel=0.1)
    assert got.bandwidth.downlink_mean_mib_per_s == pytest.approx(1000 * mean, rel=0.1)
    assert got.bandwidth.downlink_peak_mib_per_s >= got.bandwidth.downlink_mean_mib_per_s
    assert "first come first served" in got.assumption


def test_more_devices_than_registered_may_be_planned_for():
    setting = scenario(50.0, CloudModel(), num_devices=100, duration_s=1.0)
    got = plan_capacity(setting, MATERIAL, WORK, num_devices=400, target_p99_s=1.0)
    assert got.num_devices == 400
    assert got.heads_per_s == pytest.approx(200, rel=0.25)


@pytest.mark.heavy
def test_a_closed_loop_needs_the_replicas_that_keep_its_devices_waiting_no_longer_than_wanted():
    # One head at a time, 0.1 s each: with r replicas the last of 20 devices waits 20 / r rounds.
    cloud = CloudModel(max_batch=1, batch_s=0.05, head_s=0.05)
    chosen = replace(
        scenario(0.0, cloud, num_devices=20, duration_s=1000.0),
        arrivals=ClosedLoop(samples_per_device=50, ramp_s=0.0),
    )
    plan = plan_capacity(chosen, MATERIAL, WORK, num_devices=20, target_p99_s=0.55)
    assert plan.replicas == 4
    assert plan.p99_s == pytest.approx(0.5, rel=0.02)
    # With a free replica for each, a device asks about ten times per second.
    assert plan.heads_per_s == pytest.approx(20 / 0.1, rel=0.05)


def test_samples_that_fall_back_do_not_meet_a_target():
    """Refused at once is answered early, by the wrong head."""
    setting = scenario(200.0, CloudModel(max_batch=1, max_waiting=1), duration_s=1.0)
    hasty = replace(setting, retry=replace(setting.retry, max_tries=1))
    got = plan_capacity(hasty, MATERIAL, WORK, num_devices=500, target_p99_s=5.0)
    alone = predict(hasty, draw_plan(hasty, MATERIAL), WORK)
    assert alone.num_fallbacks > 0
    assert np.percentile(alone.total_s, 99) < 5.0
    assert got.replicas > 1


def test_what_replicas_cannot_mend_is_refused():
    setting = scenario(100.0, CloudModel(), duration_s=2.0)
    with pytest.raises(ConfigError, match=r"target_p99_s is 0.001 s.* alone take 0.009"):
        plan_capacity(setting, MATERIAL, WORK, num_devices=500, target_p99_s=0.001)
    dark = replace(setting, faults=(Blackout(from_s=0.5, to_s=300.0),))
    with pytest.raises(ConfigError, match="alone take inf"):
        plan_capacity(dark, MATERIAL, WORK, num_devices=500, target_p99_s=100.0)
    with pytest.raises(ConfigError, match="target_p99_s must be finite and > 0"):
        plan_capacity(setting, MATERIAL, WORK, num_devices=500, target_p99_s=0.0)
    with pytest.raises(EmptyStreamError, match="no sample arrives at 3 devices"):
        plan_capacity(
            replace(setting, arrivals=Poisson(per_device_per_s=0.0)),
            MATERIAL,
            WORK,
            num_devices=3,
            target_p99_s=1.0,
        )


def test_a_fleet_that_never_asks_needs_one_replica():
    setting = scenario(100.0, CloudModel(), duration_s=2.0, policy=Never())
    got = plan_capacity(setting, MATERIAL, WORK, num_devices=500, target_p99_s=1.0)
    assert (got.replicas, got.heads_per_s, got.bandwidth.uplink_peak_mib_per_s) == (1, 0.0, 0.0)


# Bandwidth


def test_messages_are_spread_over_their_time():
    got = bytes_by_second([(0.5, 2.5, 200), (1.0, 1.0, 7), (2.9, 2.95, 10)])
    np.testing.assert_allclose(got, [50, 107, 60])
    assert len(bytes_by_second([])) == 0


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 100, allow_subnormal=False),
            st.floats(0, 10, allow_subnormal=False),
            st.integers(0, 10**6),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_no_byte_is_lost_or_doubled(messages):
    spread = bytes_by_second([(begin, begin + took, size) for begin, took, size in messages])
    assert spread.sum() == pytest.approx(sum(size for _, _, size in messages), rel=1e-6, abs=1e-6)
    assert (spread >= -1e-9).all()


def test_traffic_is_read_from_the_log():
    traffic = Traffic()
    traffic.add(
        [
            (0.0, rows.SENT, 1, 0, 1, MIB, 0.0, 0.0, ""),
            (0.5, rows.SENT, 2, 0, 1, 3 * MIB, 0.0, 0.0, ""),
            (2.0, rows.RECEIVED, 1, 0, 1, 0, 2.0, 0.0, ""),
            (2.0, rows.REFUSED, 1, 0, 1, MIB, 0.0, 0.0, ""),
            (4.0, rows.DELIVERED, 1, 0, 2, 4 * MIB, 2.0, 0.0, ""),
        ]
    )
    got = traffic.bandwidth(8.0)
    # The request that was never received counts when it was sent.
    assert traffic.num_sent == 2
    assert got.uplink_peak_mib_per_s == pytest.approx(3.5)
    assert got.uplink_mean_mib_per_s == pytest.approx(4 / 8)
    assert got.downlink_peak_mib_per_s == pytest.approx(3.0)
    assert got.downlink_mean_mib_per_s == pytest.approx(5 / 8)


# The check


def test_a_prediction_is_held_against_a_measured_run():
    measured = Latencies.of(
        answers(
            sampled_s=[0.0, 1.0, 2.0],
            answered_s=[1.0, 3.0, 5.0],
            head=[rows.FRESH, rows.FRESH, rows.STATIC],
            fallback=["", "", "timed out"],
            queue_s=[0.1, 0.2, 9.0],
            generate_s=[0.1, 0.2, 0.0],
        )
    )
    np.testing.assert_allclose(measured.total_s, [1, 2, 3])
    np.testing.assert_allclose(measured.cloud_s, [0.2, 0.4])
    assert measured.num_fallbacks == 1
    predicted = Latencies(total_s=1.1 * measured.total_s, cloud_s=np.array([0.3, 0.3, 0.3]), num_fallbacks=0)
    got = check_prediction(predicted, measured)
    assert (got.p50.predicted_s, got.p50.measured_s) == pytest.approx((2.2, 2.0))
    assert got.p50.relative_error == got.p99.relative_error == pytest.approx(0.1)
    assert got.cloud_p50.relative_error == pytest.approx(0.0)
    assert got.cloud_p99.relative_error == pytest.approx(0.3 / 0.398 - 1)
    assert (got.predicted_fallbacks, got.measured_fallbacks) == (0, 1)
    assert got.holds(0.11)
    assert not got.holds(0.09)


def test_runs_that_cannot_be_compared_are_refused():
    def some(num_total, num_cloud):
        return Latencies(total_s=np.ones(num_total), cloud_s=np.ones(num_cloud), num_fallbacks=0)

    with pytest.raises(DataError, match="got 2 predicted and 3 measured samples"):
        check_prediction(some(2, 2), some(3, 3))
    with pytest.raises(DataError, match="got 2 predicted and 0 measured"):
        check_prediction(some(2, 2), some(2, 0))
