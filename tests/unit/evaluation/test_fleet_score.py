import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hyperfleet.emulation.timeline import rows
from hyperfleet.errors import DataError, EmptyStreamError
from hyperfleet.evaluation.fault_scores import WINDOW, _window_p99, _window_sum, fault_scores
from hyperfleet.evaluation.fleet_score import (
    HELD_OUT,
    SEEN,
    STATIC_HEAD,
    STATIC_MODEL,
    score_fleet,
    total_latency,
)
from hyperfleet.evaluation.measures import PARTS, TOTAL, over_time
from tests.worlds.made_up_log import answer_key, answers, events

# Five samples of two emulated devices, which show material of two devices of the data set (11 and 12).
KEY = answer_key([12, 12, 11, 11], example_id=[50, 40, 30, 20], label=[-1, 4, 3, 2])


def five_answers():
    return answers(
        device_id=[7, 7, 7, 9, 9],
        sample=[0, 1, 2, 0, 1],
        example_id=[20, 30, 40, 20, 50],
        answer=[2, 3, 0, 2, -1],
        static_answer=[2, 0, 0, 0, -1],
        base_answer=[0, 0, 4, 0, 0],
        head=[rows.FRESH, rows.CACHED, rows.STATIC, rows.FRESH, rows.CACHED],
        fallback=["", "", "timed out", "", "HTTP 429"],
        uplink_bytes=[1000, 0, 2000, 1000, 1000],
        downlink_bytes=[5000, 0, 0, 5000, 300],
        joules=[2.0, 0.5, 1.5, 4.0, 1.0],
        network=["4g-5", "4g-5", "4g-5", "5g-100", "5g-100"],
        sampled_s=[0.0, 1.0, 2.0, 3.0, 9.0],
        answered_s=[1.0, 1.5, 4.0, 3.5, 10.0],
    )


def some_events():
    sent = {"device_id": 7, "sample": 0, "attempt": 1, "num_bytes": 1000}
    return events(
        (0.0, rows.SAMPLE, {"device_id": 7, "sample": 0}),
        (0.5, rows.SENT, sent),
        (0.7, rows.REFUSED, {"num_bytes": 300}),
        (0.7, rows.RETRY, {}),
        (1.0, rows.SENT, sent),
        (2.0, rows.TIMEOUT, {}),
        (3.0, rows.DELIVERED, {"num_bytes": 5000}),
        (4.0, rows.CORRUPT, {"num_bytes": 5000}),
        (5.0, rows.LOST, {}),
        (5.0, rows.LOST, {}),
        (6.0, rows.GAVE_UP, {}),
        *((7.0 + i, rows.SAMPLE, {"device_id": 1}) for i in range(5)),
    )


@pytest.fixture
def scored():
    return score_fleet(some_events(), five_answers(), KEY)


def test_accuracy_is_that_of_a_count_by_hand(scored):
    # Right: answers 1, 1, 0 | 1, 0 (a label outside the vocabulary is never right, not even for -1).
    assert scored.answers.sample == pytest.approx(3 / 5)
    assert scored.answers.device_mean == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scored.answers.device_p10 == pytest.approx(1 / 2 + 0.1 * (2 / 3 - 1 / 2))
    assert scored.static_model.sample == pytest.approx(1 / 5)
    # One of the five has an answer outside the vocabulary.
    assert scored.num_in_vocabulary == 4
    assert scored.answers.in_vocabulary == pytest.approx(3 / 4)
    assert scored.static_head.in_vocabulary == pytest.approx(1 / 4)
    assert scored.static_head.sample == pytest.approx(1 / 5)
    np.testing.assert_array_equal(scored.devices.device_id, [7, 9])
    np.testing.assert_array_equal(scored.devices.num_samples, [3, 2])
    np.testing.assert_allclose(scored.devices.static_head, [1 / 3, 0])
    # Device 11 filmed examples 20, 30, 20; device 12 examples 40 and 50.
    np.testing.assert_array_equal(scored.sources.device_id, [11, 12])
    np.testing.assert_allclose(scored.sources.answers, [1, 0])
    np.testing.assert_allclose(scored.sources.static_head, [0, 1 / 2])
    assert scored.against_static_model.difference == pytest.approx((2 / 3 + 0) / 2)
    assert scored.against(STATIC_HEAD).test.difference == pytest.approx((1 - 1 / 2) / 2)
    # The data set has no held-out device, so there is nothing to tell apart.
    assert len(scored.comparisons) == 2
    assert scored.against(STATIC_MODEL, HELD_OUT) is None


def test_held_out_devices_are_compared_apart():
    # Devices 0 to 3 with two samples each; training never saw 2 and 3. Right answers per device:
    # given 2, 1, 1, 0; static model 1, 1, 0, 0; static head 0, 1, 1, 1.
    key = answer_key([0, 0, 1, 1, 2, 2, 3, 3], held_out=(2, 3))
    table = answers(
        device_id=7,
        answer=[1, 1, 1, 0, 1, 0, 0, 0],
        static_answer=[1, 0, 1, 0, 0, 0, 0, 0],
        base_answer=[0, 0, 1, 0, 1, 0, 1, 0],
    )
    got = score_fleet(some_events(), table, key)
    np.testing.assert_array_equal(got.held_out, [False, False, True, True])
    found = {
        (each.group, each.baseline): (each.num_devices, each.answers, each.static, each.test.difference)
        for each in got.comparisons
    }
    assert found == {
        ("all", STATIC_MODEL): pytest.approx((4, 1 / 2, 1 / 4, 1 / 4)),
        ("all", STATIC_HEAD): pytest.approx((4, 1 / 2, 3 / 8, 1 / 8)),
        (SEEN, STATIC_MODEL): pytest.approx((2, 3 / 4, 1 / 2, 1 / 4)),
        (SEEN, STATIC_HEAD): pytest.approx((2, 3 / 4, 1 / 4, 1 / 2)),
        (HELD_OUT, STATIC_MODEL): pytest.approx((2, 1 / 4, 0, 1 / 4)),
        (HELD_OUT, STATIC_HEAD): pytest.approx((2, 1 / 4, 1 / 2, -1 / 4)),
    }
    metrics = got.as_metrics()
    assert metrics["accuracy/held_out/difference_to_static_head"] == pytest.approx(-1 / 4)
    # Differences 1/2, 0, 1/2, 0: one sign pattern of two in each tail.
    assert metrics["accuracy/all/difference_to_static_model_p_value"] == pytest.approx(0.5)


def test_held_out_devices_that_were_not_shown_make_no_group():
    got = score_fleet(some_events(), answers(example_id=[0, 1]), answer_key([0, 1, 2], held_out=(2,)))
    assert {each.group for each in got.comparisons} == {"all"}
    alone = score_fleet(some_events(), answers(example_id=[2]), answer_key([0, 1, 2], held_out=(2,)))
    assert [each.group for each in alone.comparisons] == ["all", "all", HELD_OUT, HELD_OUT]


@pytest.mark.heavy
def test_tests_are_over_the_devices_of_the_data_set():
    """A thousand emulated devices that show the same twelve devices' material make nothing more certain."""
    rng = np.random.default_rng(0)
    num_sources, copies = 12, 50
    right, static = rng.random(num_sources) < 0.8, rng.random(num_sources) < 0.3
    key = answer_key(np.arange(num_sources))
    table = answers(
        device_id=np.repeat(np.arange(copies), num_sources),
        example_id=np.tile(np.arange(num_sources), copies),
        answer=np.tile(right.astype(int), copies),
        static_answer=np.tile(static.astype(int), copies),
    )
    got = score_fleet(some_events(), table, key)
    expected = stats.wilcoxon(right.astype(float) - static, zero_method="wilcox").pvalue
    assert got.against_static_model.p_value == pytest.approx(expected)
    assert got.against_static_model.p_value > 0.01
    assert len(got.devices.device_id) == copies


def test_heads_bytes_and_joules_add_up(scored):
    assert scored.heads == {"fresh": 2, "cached": 2, "static": 1}
    assert [scored.share(name) for name in rows.HEADS] == pytest.approx([0.4, 0.4, 0.2])
    assert scored.fallbacks == {"timed out": 1, "HTTP 429": 1}
    assert scored.num_fallbacks == 2
    spent = scored.spending
    assert (spent.uplink_bytes, spent.downlink_bytes) == (5000, 10_300)
    assert (spent.uplink_bytes_per_sample, spent.downlink_bytes_per_sample) == (1000, 2060)
    assert spent.bytes_per_sample == 3060
    assert spent.joules_per_sample == pytest.approx(9 / 5)
    assert spent.joules_per_fresh_head == pytest.approx(3.0)


def test_requests_are_counted_by_what_became_of_them(scored):
    counts = scored.requests
    assert (counts.sent, counts.refused, counts.retried, counts.timed_out) == (2, 1, 1, 1)
    assert (counts.delivered, counts.corrupt, counts.lost, counts.gave_up) == (1, 1, 2, 1)
    # Six samples arrived, five were answered.
    assert counts.never_answered == 1


def test_latency_is_that_of_the_whole_and_of_each_part(scored):
    groups = {group.name: group for group in scored.latency}
    assert list(groups) == ["all", "fresh", "cached", "static", "4g-5", "5g-100"]
    seconds = np.array([1.0, 0.5, 2.0, 0.5, 1.0])
    total = groups["all"].parts[TOTAL]
    assert (total.p50_s, total.mean_s) == pytest.approx((1.0, seconds.mean()))
    assert (total.p90_s, total.p99_s) == pytest.approx(tuple(np.percentile(seconds, [90, 99])))
    assert total_latency(scored) == (total.p50_s, total.p99_s)
    assert groups["4g-5"].parts[TOTAL].p50_s == pytest.approx(1.0)
    assert groups["5g-100"].num_samples == 2
    assert [groups["fresh"].parts[part].p50_s for part in PARTS] == pytest.approx(
        [0.01, 0.02, 0.03, 0.015, 0.02, 0.005]
    )


def test_a_run_in_bins():
    correct = np.array([True, True, False, True, False])
    named = {"accuracy": correct, "static_model_accuracy": ~correct, "static_head_accuracy": correct}
    # Events last until 11 s, so a bin is 5.5 s.
    got = over_time(some_events(), five_answers(), named, num_bins=2)
    np.testing.assert_allclose(got.edges_s, [0, 5.5, 11])
    np.testing.assert_array_equal(got.num_samples, [4, 1])
    np.testing.assert_allclose(got.accuracy, [3 / 4, 0])
    np.testing.assert_allclose(got.static_model_accuracy, [1 / 4, 1])
    np.testing.assert_allclose(got.p50_s, [0.75, 1.0])
    np.testing.assert_allclose(got.requests_per_s, [2 / 5.5, 0])
    np.testing.assert_allclose(got.uplink_bytes_per_s, [2000 / 5.5, 0])
    np.testing.assert_allclose(got.downlink_bytes_per_s, [10_300 / 5.5, 0])
    empty = over_time(some_events(), five_answers(), named, num_bins=11)
    assert np.isnan(empty.accuracy[5])
    assert np.isnan(empty.p99_s[5])


def test_metrics_are_finite_numbers(scored):
    metrics = scored.as_metrics()
    assert metrics["accuracy/answers/sample"] == pytest.approx(0.6)
    assert metrics["requests/lost"] == 2
    assert metrics["share/cached"] == pytest.approx(0.4)
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())
    steps = dict(scored.metrics_over_time())
    assert sorted(steps) == list(range(1, 12))
    assert "over_time/accuracy" not in steps[7]
    assert all(np.isfinite(value) for step in steps.values() for value in step.values())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.slice(0, 0), EmptyStreamError, "no sample was answered"),
        (lambda t: t.drop_columns(["score"]), DataError, r"answers .* lack the columns \['score'\]"),
        (lambda t: t.take([0, 1, 1]), DataError, r"3 answers to 2 samples.*\[\(7, 1\)\]"),
    ],
)
def test_tables_that_are_no_run_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        score_fleet(some_events(), change(five_answers()), KEY)


def test_a_key_or_clock_of_another_run_is_refused():
    with pytest.raises(DataError, match=r"1 examples .* first \[50\]"):
        score_fleet(some_events(), five_answers(), answer_key([0, 0, 0], example_id=[20, 30, 40]))
    with pytest.raises(DataError, match=r"must be unique, got \[4\] more than once"):
        answer_key([0, 0, 0], example_id=[4, 5, 4])
    with pytest.raises(DataError, match="1 of 1 answers are dated before their sample"):
        score_fleet(some_events(), answers(sampled_s=[5.0], answered_s=[4.0]), KEY)


# Faults: a sample every 0.1 s takes 0.05 s, unless a fault says otherwise.


def stream(seconds: float, slow: dict[tuple[float, float], float], fell_back=()):
    sampled_s = np.arange(0, seconds, 0.1)
    latency_s = np.full(len(sampled_s), 0.05)
    fallback = np.full(len(sampled_s), "", dtype=object)
    for (from_s, to_s), value in slow.items():
        latency_s[(sampled_s >= from_s - 1e-9) & (sampled_s < to_s - 1e-9)] = value
    for from_s, to_s in fell_back:
        fallback[(sampled_s >= from_s - 1e-9) & (sampled_s < to_s - 1e-9)] = "timed out"
    return answers(sampled_s=sampled_s, answered_s=sampled_s + latency_s, fallback=fallback)


def fault(begin_s, end_s=None, kind="blackout"):
    made = [(begin_s, rows.FAULT_BEGINS, {"detail": kind})]
    return made if end_s is None else [*made, (end_s, rows.FAULT_ENDS, {"detail": kind})]


def test_recovery_is_dated_to_the_first_sample_that_was_served_as_before():
    table = stream(100, {(50, 64): 2.0})
    (got,) = fault_scores(events(*fault(50.0, 60.0)), table)
    # Under way: from 50.0 on, until 60; the sample at 49.9 + 0.05 was over.
    assert (got.num_samples, got.num_fallbacks) == (100, 0)
    assert got.p99_before_s == pytest.approx(0.05)
    assert got.p99_s == pytest.approx(2.0)
    assert got.effect == "recovered"
    # One of the hundred may be slow: the window that begins at 63.9 holds one slow sample.
    assert got.recovery_s == pytest.approx(13.9)
    assert got.recovery_after_end_s == pytest.approx(3.9)


def test_falling_back_alone_is_an_effect_and_is_counted():
    table = stream(100, {}, fell_back=[(50, 55)])
    (got,) = fault_scores(events(*fault(50.0, 60.0)), table)
    assert got.num_fallbacks == 50
    assert got.effect == "recovered"
    assert got.recovery_s == pytest.approx(5.0)
    assert got.recovery_after_end_s == 0.0


def test_a_fault_that_hits_now_and_then_is_over_after_its_last_effect():
    table = stream(100, {(42, 43): 2.0, (62, 63): 2.0})
    (got,) = fault_scores(events(*fault(40.0, 70.0)), table)
    assert got.recovery_s == pytest.approx(62.9 - 40)
    assert got.recovery_after_end_s == 0.0


def test_what_cannot_be_said_is_not_said():
    slow_for_ever = stream(100, {(50, 100): 2.0})
    (got,) = fault_scores(events(*fault(50.0)), slow_for_ever)
    assert (got.effect, got.recovery_s, got.end_s) == ("no recovery seen", None, None)
    assert got.recovery_after_end_s is None
    (early,) = fault_scores(events(*fault(5.0, 6.0)), stream(100, {(5, 7): 2.0}))
    assert (early.effect, early.p99_before_s) == ("nothing to compare with", None)
    (harmless,) = fault_scores(events(*fault(50.0, 60.0)), stream(100, {}))
    assert (harmless.effect, harmless.recovery_s) == ("none seen", 0.0)


def test_last_bits_of_a_constant_delay_are_no_effect():
    table = stream(100, {(50, 100): 0.05 + 1e-9})
    (got,) = fault_scores(events(*fault(50.0, 60.0)), table)
    assert got.effect == "none seen"


def test_what_an_earlier_fault_spoiled_is_no_measure_for_a_later_one():
    table = stream(200, {(50, 70): 2.0, (150, 160): 1.0})
    log = events(*fault(50.0, 60.0), *fault(150.0, 155.0, "kill-replica"))
    first, second = fault_scores(log, table)
    assert [each.kind for each in (first, second)] == ["blackout", "kill-replica"]
    assert second.p99_before_s == pytest.approx(0.05)
    assert second.recovery_s == pytest.approx(9.9)


def test_faults_of_one_kind_end_in_the_order_in_which_they_began():
    log = events(*fault(10.0, 30.0), *fault(20.0, 40.0))
    assert [(each.begin_s, each.end_s) for each in fault_scores(log, stream(50, {}))] == [(10, 30), (20, 40)]
    assert fault_scores(events(), stream(50, {})) == ()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(WINDOW, 3 * WINDOW))
def test_windows_equal_a_naive_loop(seed, length):
    rng = np.random.default_rng(seed)
    seconds, marks = rng.exponential(size=length), rng.random(length) < 0.3
    starts = range(length - WINDOW + 1)
    naive = [np.sort(seconds[i : i + WINDOW])[-2] for i in starts]
    np.testing.assert_array_equal(_window_p99(seconds), naive)
    np.testing.assert_array_equal(_window_sum(marks), [marks[i : i + WINDOW].sum() for i in starts])
