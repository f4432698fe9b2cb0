import threading

import pytest

from hyperfleet.emulation.ahead import ahead


def test_items_come_in_order_and_no_more_than_asked_for_are_made_ahead():
    made = []
    two_more = threading.Semaphore(0)

    def items():
        for number in range(10):
            made.append(number)
            two_more.release()
            yield number

    read = []
    for item in ahead(items(), num=2):
        if item == 0:
            # The next two are made while this one is looked at, and nothing further.
            for _ in range(3):
                assert two_more.acquire(timeout=10)
            assert not two_more.acquire(timeout=0.1)
            assert made == [0, 1, 2]
        read.append(item)
    assert read == list(range(10))


def test_an_error_comes_in_its_place_and_ends_the_thread():
    def items():
        yield 1
        yield 2
        raise ZeroDivisionError("at three")

    read = []
    with pytest.raises(ZeroDivisionError, match="at three"):
        read.extend(ahead(items()))
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_a_reader_that_stops_early_leaves_no_thread():
    reader = ahead(iter(int, 1))
    next(reader)
    reader.close()
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())
