import gc
import heapq
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.emulation.timeline.device_state import Request
from hyperfleet.emulation.timeline.garbage import no_cycle_search
from hyperfleet.emulation.timeline.timeouts import HeapEntry, Timeouts
from tests.worlds.made_up_device import device

STATE = device()


def request(number: int) -> Request:
    return Request(0, STATE, number, 0, 0.0)


def run(heap: list[HeapEntry]) -> None:
    while heap:
        now_s, _, handler, argument, number = heapq.heappop(heap)
        handler(now_s, argument, number)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=40), st.data())
def test_what_is_not_stopped_expires_in_order_of_time_and_then_of_starting(starts, data) -> None:
    heap: list[HeapEntry] = []
    seen: list[tuple[float, int]] = []
    order = itertools.count()
    timeouts = Timeouts(heap, order, lambda now_s, what: seen.append((now_s, what.number)))
    # Something else of the same time keeps its place between two time-outs.
    expected = []
    for place, (at_s, is_timeout) in enumerate(starts):
        if is_timeout:
            what = request(place)
            timeouts.start(float(at_s), what)
            if data.draw(st.booleans()):
                timeouts.stop(what)
                continue
        else:
            note = lambda now_s, _, number: seen.append((now_s, number))  # noqa: E731  # one line
            heapq.heappush(heap, (float(at_s), next(order), note, None, place))
        expected.append((float(at_s), place))
    run(heap)
    assert seen == sorted(expected)


def test_requests_that_were_answered_leave_the_heap_small_and_are_let_go() -> None:
    heap: list[HeapEntry] = []
    timeouts = Timeouts(heap, itertools.count(), lambda now_s, what: pytest.fail("nothing was to expire"))
    # Other tests leave requests behind, of other devices.
    own = device()
    for number in range(10_000):
        what = Request(0, own, number, 0, 0.0)
        timeouts.start(float(number), what)
        timeouts.stop(what)
    assert len(heap) == 1
    del what
    assert not [each for each in gc.get_objects() if type(each) is Request and each.state is own]
    run(heap)


def test_the_search_for_cycles_is_off_inside_and_as_it_was_afterwards() -> None:
    assert gc.isenabled()
    with no_cycle_search():
        with no_cycle_search():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), no_cycle_search():
        _ = 1 / 0
    assert gc.isenabled()
