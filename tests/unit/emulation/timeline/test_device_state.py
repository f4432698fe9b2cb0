import numpy as np

from hyperfleet.scenario.policies import EverySample, OnDrift
from tests.worlds.made_up_device import device


def test_a_head_that_was_overtaken_is_not_kept() -> None:
    state = device(EverySample())
    assert not state.has_head
    state.got_head(1.0, row=5, number=3)
    state.got_head(2.0, row=2, number=1)
    assert (state.head_row, state.head_s) == (5, 1.0)
    state.got_head(3.0, row=7, number=4)
    assert (state.head_row, state.head_s) == (7, 3.0)


def test_idle_time_is_that_between_samples() -> None:
    state = device(EverySample())
    state.saw(4.0, row=0)
    assert state.idle_s == np.inf
    state.saw(9.5, row=1)
    assert state.idle_s == 5.5
    assert state.samples_since_head == 2


def test_windows_begin_anew_with_each_head() -> None:
    rng = np.random.default_rng(0)
    anchor = rng.standard_normal((40, 192), dtype=np.float32)
    anchor[20:] += 5.0
    policy = OnDrift(window=8)
    state = device(policy, anchor)
    state.saw(0.0, row=0)
    assert policy.asks(state)
    state.got_head(0.5, row=0, number=0)
    asked = []
    for number in range(1, 40):
        state.saw(float(number), row=number)
        if policy.asks(state):
            asked.append(number)
            state.got_head(number + 0.5, row=number, number=number)
    # Rows change at 20: the first window of 8 that holds only new ones is looked at after 32 samples.
    assert len(asked) == 1
    assert 20 < asked[0] <= 32
    assert state.samples_since_head == 39 - asked[0]


def test_a_battery_switches_the_device_off_once() -> None:
    state = device(EverySample(), battery_j=5.0)
    assert [state.drain(2.0) for _ in range(4)] == [False, False, True, False]
    assert (state.is_off, state.joules) == (True, 8.0)
    assert not device(EverySample()).drain(1e9)
