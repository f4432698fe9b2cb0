import dataclasses
import math
import statistics
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.link.conditions import CONDITIONS, LinkConditions
from hyperfleet.link.device_link import PACKET_BYTES, DeviceLink
from hyperfleet.link.network import PAPER_NETWORKS, transfer_s
from hyperfleet.link.trace import RateTrace

# 1,000 bytes/s for two seconds, nothing for one, 4,000 bytes/s for one.
UNEVEN = RateTrace.of([0.0, 2.0, 3.0], [1e3, 0.0, 4e3], 4.0)
MIB = RateTrace.constant(1.0)


def plain(**changes):
    return LinkConditions(**{"name": "plain", "label": "Plain", "uplink": MIB, "downlink": MIB, **changes})


SIZES = st.integers(0, 600_000)
TIMES = st.floats(0, 5_000, allow_subnormal=False)
EVERYTHING = st.builds(
    plain,
    uplink=st.sampled_from([MIB, RateTrace.of([0.0, 0.2, 0.3], [2e6, 0.0, 1e5], 0.7)]),
    rtt_s=st.floats(0, 0.3, allow_subnormal=False),
    jitter_s=st.floats(0, 0.2, allow_subnormal=False),
    loss=st.sampled_from([0.0, 0.001, 0.1, 0.6]),
    handover_every_s=st.just(1.0),
    handover_gap_s=st.sampled_from([0.0, 0.2, 0.9]),
)


def paired(times):
    return list(zip(sorted(times)[::2], sorted(times)[1::2], strict=False))


PAUSES = st.lists(st.floats(0, 50, allow_subnormal=False), max_size=8, unique=True).map(paired)


@pytest.mark.parametrize("name", PAPER_NETWORKS)
@settings(deadline=None)
@given(start_s=TIMES, num_bytes=SIZES)
def test_links_of_the_papers_take_their_printed_time(name, start_s, num_bytes):
    profile = PAPER_NETWORKS[name]
    link = DeviceLink(CONDITIONS[name], 0, 7)
    assert link.trace_offset_s == 0
    for send, mib_per_s in ((link.up, profile.uplink_mib_per_s), (link.down, profile.downlink_mib_per_s)):
        time_s = transfer_s(num_bytes, mib_per_s)
        assert send(start_s, num_bytes) == (start_s + time_s, time_s, num_bytes, 0)


@settings(deadline=None)
@given(start_s=TIMES, num_bytes=SIZES, device_id=st.integers(0, 10**9))
def test_a_recorded_link_takes_exactly_the_time_of_its_trace(start_s, num_bytes, device_id):
    link = DeviceLink(plain(uplink=UNEVEN, downlink=UNEVEN), 5, device_id)
    assert 0 < link.trace_offset_s < 4
    expected_s = start_s + UNEVEN.duration_s(start_s + link.trace_offset_s, float(num_bytes))
    assert link.up(start_s, num_bytes).finish_s == expected_s
    assert link.down(start_s, num_bytes).finish_s == expected_s


def test_devices_enter_a_recording_at_points_of_their_own():
    offsets = [DeviceLink(CONDITIONS["lte_walk"], 0, i).trace_offset_s for i in range(400)]
    assert statistics.fmean(offsets) == pytest.approx(300, abs=30)
    assert statistics.stdev(offsets) == pytest.approx(600 / math.sqrt(12), rel=0.1)


@settings(deadline=None)
@given(
    conditions=EVERYTHING,
    start_s=st.floats(0, 60, allow_subnormal=False),
    sizes=st.tuples(SIZES, SIZES),
    pauses=PAUSES,
    device_id=st.integers(0, 50),
)
def test_a_longer_message_never_arrives_earlier(conditions, start_s, sizes, pauses, device_id):
    # An earlier message, so that the message number and the queue matter.
    arrivals = []
    for size in sorted(sizes):
        link = DeviceLink(conditions, 0, device_id)
        link.up(start_s, 1_000, pauses)
        transfer = link.up(start_s, size, pauses)
        arrivals.append(transfer)
        assert transfer.finish_s >= start_s + conditions.rtt_s / 2
        assert transfer.sent_bytes >= size
        assert 0 <= transfer.air_s <= transfer.finish_s - start_s + 1e-9
    shorter, longer = arrivals
    assert shorter.finish_s <= longer.finish_s
    assert shorter.sent_bytes <= longer.sent_bytes
    assert shorter.num_lost_packets <= longer.num_lost_packets


def test_messages_of_a_direction_queue_and_directions_do_not():
    link = DeviceLink(plain(rtt_s=0.1), 0, 0)
    assert link.up(0.0, 1 << 20).finish_s == 1.05
    assert link.up(0.5, 1 << 20).finish_s == 2.05  # waits for the bytes before it, not for their delay
    assert link.up(3.0, 1 << 20).finish_s == 4.05
    assert link.down(0.5, 1 << 20).finish_s == 1.55


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 0.2, allow_subnormal=False), st.integers(0, 20_000)), min_size=2, max_size=30
    )
)
def test_messages_arrive_in_the_order_of_sending_whatever_the_jitter(messages):
    link, now_s, arrived_s = DeviceLink(plain(jitter_s=0.5, loss=0.1, rtt_s=0.05), 0, 0), 0.0, 0.0
    for wait_s, num_bytes in messages:
        now_s += wait_s
        finish_s = link.up(now_s, num_bytes).finish_s
        assert finish_s >= arrived_s
        arrived_s = finish_s


def test_nothing_moves_in_a_pause():
    pauses = [(0.5, 2.5), (3.0, 3.5)]
    link = DeviceLink(plain(), 0, 0)
    assert link.up(0.0, 1 << 19, pauses) == (0.5, 0.5, 1 << 19, 0)  # through as the outage begins
    assert link.up(0.5, 1 << 19, pauses) == (3.0, 0.5, 1 << 19, 0)
    assert link.up(3.0, 0, pauses).finish_s == 3.5  # not even a message without bytes
    assert link.down(0.25, 1 << 20, pauses) == (3.75, 1.0, 1 << 20, 0)
    assert link.down(10.0, 1 << 20, pauses).finish_s == 11


def test_a_pause_does_not_stop_the_clock_of_the_trace():
    link = DeviceLink(plain(uplink=UNEVEN), 0, 0)
    offset_s = link.trace_offset_s
    begin_s = 4.0 - offset_s  # the beginning of a period
    # One second of 1,000 bytes, outage until 3.5 s into the period, then 4,000 bytes/s.
    pauses = [(begin_s + 1.0, begin_s + 3.5)]
    assert link.up(begin_s, 2_000, pauses).finish_s == pytest.approx(begin_s + 3.75)


def test_an_outage_for_good_keeps_the_message():
    link = DeviceLink(plain(), 0, 0)
    assert link.up(0.0, 1 << 20, [(0.5, math.inf)]) == (math.inf, 0.5, 1 << 20, 0)
    assert link.up(9.0, 1, [(0.5, math.inf)]).finish_s == math.inf


def test_a_device_with_handovers_waits_for_pauses_too():
    link = DeviceLink(plain(handover_every_s=100.0, handover_gap_s=0.5), 0, 0)
    transfer = link.up(1.0, 1 << 20, [(0.5, 30.0), (30.5, 40.0)])
    assert 40.5 <= transfer.finish_s <= 41.0 + 1e-9
    assert transfer.air_s == pytest.approx(1.0)


def naive_blocked(gaps, now_s):
    return any(from_s <= now_s < to_s for from_s, to_s in gaps)


@settings(deadline=None, max_examples=30)
@given(
    start_s=st.floats(0, 6, allow_subnormal=False),
    num_bytes=st.integers(1, 2_000_000),
    pauses=st.lists(st.floats(0, 5, allow_subnormal=False), max_size=4, unique=True).map(paired),
    device_id=st.integers(0, 9),
)
def test_outages_and_handovers_against_a_walk_in_small_steps(start_s, num_bytes, pauses, device_id):
    conditions = plain(handover_every_s=2.0, handover_gap_s=0.7)

    def finish_s(num_bytes):
        return DeviceLink(conditions, 0, device_id).up(start_s, num_bytes, pauses).finish_s

    # The arrival of a single byte shows where the device's handovers are.
    step_s, step_bytes, moved, now_s, edges = 2e-3, 2e-3 * 2**20, 0.0, start_s, 0
    probe, was_blocked = DeviceLink(conditions, 0, device_id), False
    while moved < num_bytes:
        blocked = probe.up(now_s, 0).finish_s > now_s or naive_blocked(pauses, now_s)
        moved += 0 if blocked else step_bytes
        edges += blocked != was_blocked
        now_s, was_blocked = now_s + step_s, blocked
    # At each end of a gap the walk may be a step off, and it misses gaps shorter than a step.
    slack = int((edges + 2 * len(pauses) + 2) * step_bytes)
    fewer = finish_s(num_bytes - slack) if num_bytes > slack else start_s
    assert fewer - step_s <= now_s <= finish_s(num_bytes + slack) + step_s


def test_handovers_come_as_often_as_said_and_differ_between_devices():
    conditions = plain(handover_every_s=10.0, handover_gap_s=0.5)

    def gaps(device_id):
        link = DeviceLink(conditions, 0, device_id)
        found = {link.up(now / 4, 0).finish_s for now in range(1_200)}
        return sorted(time_s for time_s in found if time_s * 4 != round(time_s * 4))

    ends = gaps(1)
    assert len(ends) == pytest.approx(30, abs=1)
    assert statistics.stdev(b - a for a, b in pairwise(ends)) > 2
    assert ends == gaps(1)
    assert ends != gaps(2)
    down = DeviceLink(conditions, 0, 1)
    assert down.down(ends[5] - 0.25, 0).finish_s == pytest.approx(ends[5])  # the same gap both ways


@pytest.mark.parametrize("loss", [0.01, 0.3])
def test_the_share_of_lost_packets_is_that_of_the_link(loss):
    link = DeviceLink(plain(loss=loss), 0, 0)
    num_packets, num_messages = 100, 300
    transfers = [link.up(0.0, num_packets * PACKET_BYTES) for _ in range(num_messages)]
    lost = sum(transfer.num_lost_packets for transfer in transfers)
    sent = num_packets * num_messages + lost
    # Each packet on the air is lost alike; five standard deviations.
    assert lost / sent == pytest.approx(loss, abs=5 * math.sqrt(loss * (1 - loss) / sent))
    for transfer in transfers:
        again = transfer.sent_bytes - num_packets * PACKET_BYTES
        assert again == transfer.num_lost_packets * PACKET_BYTES
        assert transfer.air_s == pytest.approx(transfer.sent_bytes / 2**20)


def test_the_last_packet_is_sent_again_as_short_as_it_is():
    conditions = plain(loss=0.5, rtt_s=0.1)
    again = set()
    for device_id in range(60):
        transfer = DeviceLink(conditions, 0, device_id).up(0.0, PACKET_BYTES + 100)
        again.add((transfer.sent_bytes - PACKET_BYTES - 100, transfer.num_lost_packets))
    assert {(0, 0), (PACKET_BYTES, 1), (100, 1), (PACKET_BYTES + 100, 2)} <= again
    for extra, lost in again:
        assert any(extra == full * PACKET_BYTES + (lost - full) * 100 for full in range(lost + 1))


def test_each_round_of_sending_again_costs_a_round_trip():
    rounds = set()
    for device_id in range(60):
        transfer = DeviceLink(plain(loss=0.5, rtt_s=0.2), 0, device_id).up(0.0, 100)
        # A message of one packet: as many rounds as losses.
        expected_s = transfer.sent_bytes / 2**20 + 0.2 * transfer.num_lost_packets + 0.1
        assert transfer.finish_s == pytest.approx(expected_s)
        assert transfer.sent_bytes == 100 * (1 + transfer.num_lost_packets)
        rounds.add(transfer.num_lost_packets)
    assert {0, 1, 2, 3} <= rounds


def test_jitter_is_exponential_around_its_mean():
    link = DeviceLink(plain(jitter_s=0.02, rtt_s=0.1), 0, 0)
    extra = [link.up(10.0 * i, 0).finish_s - 10.0 * i - 0.05 for i in range(4_000)]
    assert min(extra) > 0
    assert statistics.fmean(extra) == pytest.approx(0.02, rel=0.08)
    assert statistics.stdev(extra) == pytest.approx(0.02, rel=0.1)


def test_draws_of_a_device_depend_only_on_seed_device_and_message():
    lossy = dataclasses.replace(CONDITIONS["lte_drive"], loss=0.05)

    def run(seed, device_id):
        link = DeviceLink(lossy, seed, device_id)
        return [(link.up(i * 1.0, 768), link.down(i * 1.0, 500_000)) for i in range(20)]

    assert run(0, 3) == run(0, 3)
    assert run(0, 3) != run(1, 3)
    assert run(0, 3) != run(0, 4)
    assert run(-1, 3) == run(-1, 3)
    up, down = DeviceLink(lossy, 0, 0), DeviceLink(lossy, 0, 0)
    assert [up.up(0.0, 10**6).num_lost_packets for _ in range(9)] != [
        down.down(0.0, 10**6).num_lost_packets for _ in range(9)
    ]


def test_neighbouring_devices_and_seeds_draw_independently():
    jittery = plain(jitter_s=1.0)
    table = [[DeviceLink(jittery, seed, i).up(0.0, 0).finish_s for i in range(300)] for seed in range(3)]
    assert len({value for row in table for value in row}) == 900
    assert abs(statistics.correlation(table[0], table[1])) < 0.2
    assert abs(statistics.correlation(table[0][1:], table[0][:-1])) < 0.2
