import math
import statistics
from itertools import pairwise

import pytest

from hyperfleet.errors import UnknownNameError
from hyperfleet.link.synthetic import PERIOD_S, SYNTHETIC, synthetic_trace


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_trace_depends_only_on_its_name_and_seed(name):
    assert synthetic_trace(name, 3) == synthetic_trace(name, 3)
    assert synthetic_trace(name, 3) != synthetic_trace(name, 4)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_speeds_are_those_of_the_states(name):
    movement = SYNTHETIC[name]
    uplink, downlink = synthetic_trace(name, 0)
    for trace, medians in (
        (uplink, [state.up_mbit_per_s for state in movement.states]),
        (downlink, [state.down_mbit_per_s for state in movement.states]),
    ):
        assert trace.period_s == PERIOD_S
        speeds = [rate * 8e-6 for rate in trace.bytes_per_s]
        assert min(medians) < statistics.fmean(speeds) < max(medians) * 1.3
        # No speed is further from the medians than five standard deviations of the noise.
        assert min(speeds) > min(medians) * math.exp(-5 * movement.log_spread)
        assert max(speeds) < max(medians) * math.exp(5 * movement.log_spread)


def test_states_are_shared_by_both_directions_and_last():
    uplink, downlink = synthetic_trace("nr_mmwave", 0)
    blocked = [rate * 8e-6 < 10 for rate in downlink.bytes_per_s]
    assert blocked == [rate * 8e-6 < 2 for rate in uplink.bytes_per_s]
    share = sum(blocked) / len(blocked)
    assert 0.02 < share < 0.2
    changes = sum(a != b for a, b in pairwise(blocked))
    stay_s = sum(blocked) * 0.1 / (changes / 2)
    assert 0.3 < stay_s < 1.2


def test_neighbouring_steps_are_alike_and_far_ones_are_not():
    rates = [math.log(rate) for rate in synthetic_trace("lte_walk", 0)[1].bytes_per_s]

    def mean_change(steps):
        return statistics.fmean(abs(a - b) for a, b in zip(rates, rates[steps:], strict=False))

    assert mean_change(1) < mean_change(20) / 2 < mean_change(600)


def test_unknown_movements_are_refused():
    with pytest.raises(UnknownNameError, match="unknown synthetic trace 'lte_fly'; expected one of: lte"):
        synthetic_trace("lte_fly", 0)
