import dataclasses
import statistics

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.errors import DataError, EmptyStreamError
from hyperfleet.evaluation.metrics import EVENT_COLUMNS, NO_REPORT, AnswerKey, Roster, score
from hyperfleet.messages import DeviceReport


def report(example_id, device_id, answer, static_answer, fallback="", **changes):
    values = {
        "device_id": device_id,
        "example_id": example_id,
        "network": "4g-5",
        "model_version": "1",
        "answer": answer,
        "static_answer": static_answer,
        "uplink_bytes": 768,
        "downlink_bytes": 388,
        "uplink_s": 0.1,
        "queue_s": 0.2,
        "generate_s": 0.3,
        "downlink_s": 0.4,
        "apply_s": 0.5,
        "fallback": fallback,
    }
    return dataclasses.asdict(DeviceReport(**(values | changes)))


def key_of(labels):
    return AnswerKey(example_id=np.arange(len(labels)), label=np.array(labels))


def roster_of(**seen):
    return Roster(device_id=np.array([int(k[1:]) for k in seen]), seen=np.array(list(seen.values())))


def test_event_columns_are_the_fields_of_a_device_report():
    assert set(EVENT_COLUMNS) == {field.name for field in dataclasses.fields(DeviceReport)}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),  # device
            st.integers(-1, 3),  # label
            st.integers(0, 3),  # personalized answer
            st.integers(0, 3),  # static answer
            st.sampled_from(["", "", "timeout"]),
        ),
        min_size=1,
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_scores_equal_a_plain_loop_over_shuffled_rows(rows, random):
    events = [report(i, 7 * d, a, s, f) for i, (d, _, a, s, f) in enumerate(rows)]
    random.shuffle(events)
    labels = [row[1] for row in rows]
    roster = Roster(device_id=np.arange(5) * 7, seen=np.array([True, False, True, True, False]))

    got = score(pa.Table.from_pylist(events), key_of(labels), roster)

    by_device: dict[int, list[tuple[bool, bool]]] = {}
    for device, label, answer, static_answer, _ in rows:
        shown = answer
        right = (label >= 0 and static_answer == label, label >= 0 and shown == label)
        by_device.setdefault(device, []).append(right)
    devices = sorted(by_device)
    static = [statistics.fmean(s for s, _ in by_device[d]) for d in devices]
    personalized = [statistics.fmean(p for _, p in by_device[d]) for d in devices]
    assert got.devices.device_id.tolist() == [7 * d for d in devices]
    np.testing.assert_allclose(got.devices.static_accuracy, static)
    np.testing.assert_allclose(got.devices.personalized_accuracy, personalized)
    assert got.overall.personalized.device_mean == pytest.approx(statistics.fmean(personalized))
    assert got.overall.personalized.device_p10 == pytest.approx(np.quantile(personalized, 0.1))
    for group, wanted in ((got.seen, {0, 2, 3}), (got.held_out, {1, 4})):
        members = [a for d, a in zip(devices, personalized, strict=True) if d in wanted]
        assert (group is None) == (not members)
        if group is not None:
            assert group.personalized.device_mean == pytest.approx(statistics.fmean(members))
    num_right = sum(p for rights in by_device.values() for _, p in rights)
    num_known = sum(label >= 0 for label in labels)
    assert got.overall.personalized.sample == pytest.approx(num_right / len(rows))
    if num_known:
        assert got.overall.personalized.in_vocabulary == pytest.approx(num_right / num_known)
    assert got.num_fallbacks == sum(row[4] != "" for row in rows)
    assert set(got.skipped) == {7 * d for d in range(5)} - {7 * d for d in devices}


def test_an_answer_outside_the_vocabulary_counts_as_wrong_and_is_left_out_only_by_the_second_number():
    events = pa.Table.from_pylist([report(0, 1, 2, 2), report(1, 1, 3, 3)])

    got = score(events, key_of([2, -1]), roster_of(d1=True)).overall

    assert (got.personalized.sample, got.personalized.in_vocabulary) == (0.5, 1.0)
    assert (got.num_samples, got.num_in_vocabulary) == (2, 1)


def test_a_fallback_is_scored_as_the_device_answered_and_a_silent_device_is_named():
    events = pa.Table.from_pylist([report(0, 1, 7, 2, "timeout", queue_s=float("nan")), report(1, 1, 3, 0)])

    got = score(events, key_of([2, 3]), roster_of(d1=True, d4=False, d5=True), skipped={5: "no clip decodes"})

    assert got.overall.personalized.sample == 0.5
    assert got.overall.static.sample == 0.5
    assert got.fallbacks == {"timeout": 1}
    assert got.skipped == {4: NO_REPORT, 5: "no clip decodes"}
    assert got.latency[0].num_requests == 1


def test_latency_is_split_by_part_and_network_in_the_order_of_speed():
    events = pa.Table.from_pylist(
        [report(0, 1, 0, 0, network="4g-15", uplink_s=1.1), report(1, 2, 0, 0, network="4g-5")]
    )

    got = score(events, key_of([0, 0]), roster_of(d1=True, d2=True)).latency

    assert [(split.network, split.num_requests) for split in got] == [("all", 2), ("4g-5", 1), ("4g-15", 1)]
    assert got[1].parts["total"].p50_s == pytest.approx(1.5)
    assert got[0].parts["total"].p50_s == pytest.approx(2.0)
    assert got[0].parts["total"].p99_s == pytest.approx(1.5 + 0.99)
    means_s = {part: quantiles.mean_s for part, quantiles in got[0].parts.items()}
    assert sum(means_s.values()) == pytest.approx(2 * means_s["total"])
    assert (got[0].mean_uplink_bytes, got[0].mean_downlink_bytes) == (768, 388)


@pytest.mark.parametrize(
    ("events", "error", "message"),
    [
        ([], EmptyStreamError, "no event to score"),
        ([report(0, 1, 0, 0), report(0, 1, 0, 0)], DataError, r"answer 1 examples.*\[0\] more than once"),
        ([report(9, 1, 0, 0)], DataError, r"1 example ids of the events are unknown, first \[9\]"),
        ([report(0, 8, 0, 0)], DataError, r"1 device ids of the events are unknown, first \[8\]"),
        ([report(0, 1, 0, 0, queue_s=-1.0)], DataError, "queue_s must be finite and >= 0"),
        ([report(0, 1, 0, 0) | {"answer": None}], DataError, r"nulls in \['answer'\]"),
    ],
)
def test_events_that_cannot_be_scored_say_why(events, error, message):
    schema = pa.Table.from_pylist([report(0, 1, 0, 0)]).schema
    with pytest.raises(error, match=message):
        score(pa.Table.from_pylist(events, schema=schema), key_of([0, 0]), roster_of(d1=True))


def test_missing_columns_and_ambiguous_keys_are_refused():
    events = pa.Table.from_pylist([report(0, 1, 0, 0)]).drop_columns(["apply_s"])
    with pytest.raises(DataError, match=r"lack the columns \['apply_s'\]"):
        score(events, key_of([0]), roster_of(d1=True))
    with pytest.raises(DataError, match=r"answer key: example_id must be unique, got \[3\]"):
        AnswerKey(example_id=np.array([3, 3]), label=np.array([0, 1]))
    with pytest.raises(DataError, match="roster: one value a device_id expected"):
        Roster(device_id=np.array([3, 4]), seen=np.array([True]))


def test_a_fleet_scores_the_same_twice_and_flattens_to_finite_metrics(fleet):
    run = fleet(np.random.default_rng(0), num_devices=40, per_device=8, static=0.5, personalized=0.7)
    first, second = score(*run), score(*run)

    assert first.overall == second.overall
    metrics = first.as_metrics()
    assert metrics["fleet/devices"] == 40
    assert metrics["accuracy/held_out/difference"] == pytest.approx(first.held_out.device_mean.difference)
    assert np.isfinite(list(metrics.values())).all()
