import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.errors import ConfigError
from hyperfleet.link.energy import RADIOS, DeviceRadio, RadioEnergy

# Round figures, so that the expectations below can be computed by hand.
PLAIN = RadioEnergy(
    uplink_mw_per_mbit_s=400.0,
    downlink_mw_per_mbit_s=50.0,
    base_mw=1000.0,
    promotion_mw=1200.0,
    promotion_s=0.5,
    tail_mw=800.0,
    tail_s=10.0,
)
MBIT = 125_000  # bytes


def test_a_sleeping_radio_is_promoted_then_pays_for_seconds_and_bits():
    radio = DeviceRadio(PLAIN)
    # 0.6 J promotion + 2 s of 1 W + 3 Mbit of 0.4 J + 10 s of a tail of 0.8 W
    assert radio.use(5.0, 7.0, 3 * MBIT, uplink=True) == pytest.approx(0.6 + 2.0 + 1.2 + 8.0)
    # The tail is extended by 4 s, plus 1 s of 1 W + 2 Mbit of 0.05 J, no promotion.
    assert radio.use(11.0, 12.0, 2 * MBIT, uplink=False) == pytest.approx(3.2 + 1.0 + 0.1)
    # Asleep again: another promotion and tail.
    assert radio.use(30.0, 30.5, 0, uplink=False) == pytest.approx(8.0 + 0.6 + 0.5)


def test_a_use_at_the_very_end_of_the_tail_still_finds_the_radio_awake():
    radio = DeviceRadio(PLAIN)
    radio.use(0.0, 1.0, 0, uplink=True)
    assert radio.use(11.0, 11.0, 0, uplink=True) == pytest.approx(8.0)


def test_transfers_that_overlap_share_the_base_power():
    radio = DeviceRadio(PLAIN)
    first = radio.use(0.0, 4.0, MBIT, uplink=True)
    inside = radio.use(1.0, 3.0, MBIT, uplink=False)
    beyond = radio.use(2.0, 5.0, MBIT, uplink=False)
    assert first == pytest.approx(0.6 + 4.0 + 0.4 + 8.0)
    assert inside == pytest.approx(0.05)
    assert beyond == pytest.approx(0.05 + 1.0)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 40, allow_subnormal=False),
            st.floats(0, 3, allow_subnormal=False),
            st.integers(0, 10**6),
        ),
        max_size=12,
    )
)
def test_the_joules_of_a_run_are_those_of_its_timeline(uses):
    """Oracle: the union of the transfers, with a tail after each of its stretches."""
    radio, now_s, joules, spans, bits_j = DeviceRadio(PLAIN), 0.0, 0.0, [], 0.0
    for gap_s, length_s, num_bytes in uses:
        now_s += gap_s
        joules += radio.use(now_s, now_s + length_s, num_bytes, uplink=True)
        bits_j += 0.4 * num_bytes / MBIT
        if spans and now_s <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], now_s + length_s)
        else:
            spans.append([now_s, now_s + length_s])
    expected = bits_j + sum(end - begin for begin, end in spans)
    for i, (begin, end) in enumerate(spans):
        follows_s = spans[i + 1][0] - end if i + 1 < len(spans) else 1e9
        expected += 0.8 * min(follows_s, 10.0)
        if i == 0 or begin - spans[i - 1][1] > 10.0:
            expected += 0.6
    assert joules == pytest.approx(expected)


def test_one_feature_and_one_head_on_lte_by_hand():
    lte = RADIOS["lte"]
    radio = DeviceRadio(lte)
    # 768 bytes up in 0.01 s, 582,388 bytes down in 0.2 s after a wait of 0.1 s.
    up_j = radio.use(0.0, 0.01, 768, uplink=True)
    down_j = radio.use(0.11, 0.31, 582_388, uplink=False)
    assert up_j == pytest.approx(0.31490 + 0.01288 + 0.00269 + 12.27056, abs=1e-5)
    assert down_j == pytest.approx(0.106 + 0.25761 + 0.24213, abs=1e-5)


@pytest.mark.parametrize("name", RADIOS)
def test_known_radios_have_every_part(name):
    radio = RADIOS[name]
    assert radio.uplink_mw_per_mbit_s > radio.downlink_mw_per_mbit_s > 0
    assert radio.base_mw > radio.tail_mw > 0
    assert radio.promotion_mw * radio.promotion_s > 0


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_powers_and_times_are_finite_and_not_negative(value):
    with pytest.raises(ConfigError, match=r"RadioEnergy\.tail_mw must be finite and >= 0"):
        RadioEnergy(
            uplink_mw_per_mbit_s=1.0,
            downlink_mw_per_mbit_s=1.0,
            base_mw=1.0,
            promotion_mw=1.0,
            promotion_s=1.0,
            tail_mw=value,
            tail_s=1.0,
        )
