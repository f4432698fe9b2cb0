import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.errors import ConfigError
from hyperfleet.link.network import PAPER_NETWORKS, transfer_s
from hyperfleet.link.trace import RateTrace

# Segments on whole milliseconds, so that a loop over milliseconds is exact up to rounding.
SEGMENTS = st.lists(
    st.tuples(st.integers(1, 400), st.sampled_from([0.0, 1_000.0, 64_000.0, 1_000_000.0])),
    min_size=1,
    max_size=6,
).filter(lambda segments: any(rate for _, rate in segments))


def trace_of(segments):
    starts, now_ms = [], 0
    for length_ms, _ in segments:
        starts.append(now_ms / 1000)
        now_ms += length_ms
    return RateTrace.of(starts, [rate for _, rate in segments], now_ms / 1000)


def rate_at_ms(segments, ms):
    ms %= sum(length for length, _ in segments)
    for length, rate in segments:
        if ms < length:
            return rate
        ms -= length
    raise AssertionError


def naive_finish_s(segments, start_ms, num_bytes):
    """Walk through the milliseconds."""
    ms, left = start_ms, num_bytes
    while True:
        moved = rate_at_ms(segments, ms) / 1000
        if moved >= left - 1e-9:
            return (ms + left / moved) / 1000
        left -= moved
        ms += 1


def finish_s(trace: RateTrace, start_s: float, num_bytes: float) -> float:
    return start_s + trace.duration_s(start_s, num_bytes)


@settings(deadline=None)
@given(segments=SEGMENTS, start_ms=st.integers(0, 5_000), num_bytes=st.integers(1, 3_000))
def test_a_message_is_through_when_a_walk_over_milliseconds_says(segments, start_ms, num_bytes):
    end_s = finish_s(trace_of(segments), start_ms / 1000, float(num_bytes))
    assert end_s == pytest.approx(naive_finish_s(segments, start_ms, num_bytes), abs=1e-6)


@settings(deadline=None)
@given(segments=SEGMENTS, start_s=st.floats(0, 1e4, allow_subnormal=False), num_bytes=st.integers(1, 10**8))
def test_what_gets_through_until_then_is_the_message(segments, start_s, num_bytes):
    trace = trace_of(segments)
    end_s = finish_s(trace, start_s, float(num_bytes))
    assert trace.bytes_between(start_s, end_s) == pytest.approx(num_bytes, rel=1e-6, abs=0.1)


@settings(deadline=None)
@given(
    segments=SEGMENTS,
    start_s=st.floats(0, 1e3, allow_subnormal=False),
    sizes=st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)),
)
def test_a_longer_message_never_takes_less(segments, start_s, sizes):
    trace = trace_of(segments)
    shorter, longer = sorted(sizes)
    assert 0 <= trace.duration_s(start_s, float(shorter)) <= trace.duration_s(start_s, float(longer))


@settings(deadline=None)
@given(segments=SEGMENTS, sizes=st.tuples(st.integers(1, 10**5), st.integers(1, 10**5)))
def test_two_messages_one_after_the_other_take_as_long_as_both_in_one(segments, sizes):
    trace = trace_of(segments)
    first_s = finish_s(trace, 0.123, float(sizes[0]))
    both_s = finish_s(trace, 0.123, float(sum(sizes)))
    # Times may differ by a silent stretch if a byte ends at its bound; the bytes may not.
    moved = trace.bytes_between(0.123, finish_s(trace, first_s, float(sizes[1])))
    assert moved == pytest.approx(sum(sizes), abs=0.01)
    assert both_s >= first_s


def test_hand_computed_times_over_silence_and_periods():
    # 100 bytes/s for a second, nothing for a second, 50 bytes/s for two: 200 bytes in 4 s.
    trace = RateTrace.of([0.0, 1.0, 2.0], [100.0, 0.0, 50.0], 4.0)
    assert trace.bytes_between(0.0, trace.period_s) / trace.period_s == 50
    assert finish_s(trace, 0.0, 0.0) == 0
    assert finish_s(trace, 0.0, 100.0) == 1  # at the end of what moves, not of the silence after it
    assert finish_s(trace, 0.0, 101.0) == pytest.approx(2.02)
    assert finish_s(trace, 1.5, 50.0) == 3
    assert finish_s(trace, 0.0, 200.0) == 4
    assert finish_s(trace, 3.0, 100.0) == pytest.approx(4.5)
    assert finish_s(trace, 0.5, 1_000_000.0) == 0.5 + 5_000 * 4
    assert trace.bytes_between(0.5, 9.0) == pytest.approx(450)
    silent_end = RateTrace.of([0.0, 1.0], [100.0, 0.0], 10.0)
    assert finish_s(silent_end, 0.0, 300.0) == 21


@pytest.mark.parametrize("profile", PAPER_NETWORKS.values(), ids=lambda profile: profile.name)
@settings(deadline=None)
@given(num_bytes=st.integers(0, 2**40), start_s=st.floats(0, 1e5, allow_subnormal=False))
def test_a_steady_link_has_the_times_of_the_papers_bit_for_bit(profile, num_bytes, start_s):
    trace = RateTrace.constant(profile.uplink_mib_per_s)
    expected_s = transfer_s(num_bytes, profile.uplink_mib_per_s)
    assert trace.duration_s(start_s, float(num_bytes)) == expected_s
    assert finish_s(trace, start_s, float(num_bytes)) == start_s + expected_s
    assert finish_s(trace, 0.0, float(num_bytes)) == expected_s
    assert trace.bytes_between(0.0, trace.period_s) / trace.period_s == profile.uplink_mib_per_s * 2**20
    assert trace.bytes_between(1.0, 3.0) == 2 * trace.bytes_between(0.0, trace.period_s) / trace.period_s


@pytest.mark.parametrize(
    ("starts", "rates", "period_s", "message"),
    [
        ([0.0], [1.0], 0.0, "period_s must be finite and > 0, got 0"),
        ([0.0], [1.0], float("nan"), "period_s must be finite"),
        ([], [], 1.0, "at least one, got 0 times for 0 rates"),
        ([0.0, 1.0], [1.0], 2.0, "got 2 times for 1 rates"),
        ([0.5], [1.0], 2.0, "must begin at 0"),
        ([0.0, 1.0, 1.0], [1.0, 1.0, 1.0], 2.0, "must begin at 0 and rise"),
        ([0.0, 2.0], [1.0, 1.0], 2.0, "all below period_s"),
        ([0.0, 1.0], [1.0, -2.0], 2.0, r"must be finite and >= 0, got -2.0 at index 1"),
        ([0.0], [float("nan")], 2.0, "got nan at index 0"),
        ([0.0], [0.0], 2.0, "must move some bytes"),
    ],
)
def test_invalid_traces_are_refused(starts, rates, period_s, message):
    with pytest.raises(ConfigError, match=message):
        RateTrace.of(starts, rates, period_s)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_a_steady_link_needs_a_speed(speed):
    with pytest.raises(ConfigError, match="finite mib_per_s > 0"):
        RateTrace.constant(speed)
