import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.job_window import MAX_DEATHS, Job, JobWindow
from hyperfleet.errors import ServiceError


def jobs(number: int, taken: list[int]):
    for i in range(number):
        taken.append(i)
        yield Job(key=i, method="double", args=(i,))


@pytest.mark.heavy
@given(number=st.integers(0, 30), num_held=st.integers(1, 9), data=st.data())
@settings(max_examples=80, deadline=None)
def test_every_job_is_delivered_once_in_order_whoever_dies_and_few_are_held(number, num_held, data) -> None:
    taken, delivered, held = [], [], []
    window = JobWindow(jobs(number, taken), lambda job, result: delivered.append((job.key, result)), num_held)
    under_way: list[int] = []
    while True:
        while (job := window.take(idle=True)) is not None:
            under_way.append(job)
        held.append(len(taken) - len(delivered))
        if not under_way:
            break
        index = data.draw(st.integers(0, len(under_way) - 1))
        if data.draw(st.booleans()):
            chosen = under_way.pop(index)
            window.finish(chosen, 2 * window.jobs[chosen].args[0])
        else:
            dead, under_way = under_way[index:], under_way[:index]
            window.redo(dead)
    assert delivered == [(i, 2 * i) for i in range(number)]
    assert max(held) <= num_held
    assert window.is_over
    assert not window.jobs


def test_a_job_that_is_done_again_goes_first() -> None:
    window = JobWindow(jobs(5, []), lambda job, result: None, 5)
    assert [window.take(idle=True), window.take(idle=True), window.take(idle=True)] == [0, 1, 2]
    window.redo([2, 1])
    assert [window.take(idle=True), window.take(idle=True), window.take(idle=True)] == [1, 2, 3]


def test_a_job_that_kills_hosts_is_named() -> None:
    window = JobWindow(jobs(2, []), lambda job, result: None, 5)
    window.take(idle=True)
    window.take(idle=True)
    for _ in range(MAX_DEATHS - 1):
        window.blame([0], RuntimeError("gone"))
    window.blame([1], RuntimeError("gone"))
    with pytest.raises(ServiceError, match="3 hosts died while they worked on double 0: gone; look for"):
        window.blame([1, 0], RuntimeError("gone"))


def test_jobs_that_a_host_died_with_are_done_alone() -> None:
    window = JobWindow(jobs(5, []), lambda job, result: None, 5)
    assert [window.take(idle=False) for _ in range(3)] == [0, 1, 2]
    window.redo([0, 1])
    window.blame([0, 1], RuntimeError("gone"))
    assert window.take(idle=False) is None
    assert window.take(idle=True) == 0
    assert [window.runs_alone(number) for number in range(3)] == [True, True, False]
