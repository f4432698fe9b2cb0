"""Window of jobs of a pool: taken in order, done in any order, delivered in order."""

import heapq
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hyperfleet.errors import ServiceError

# A job whose host died this often is assumed to kill hosts.
MAX_DEATHS = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Job:
    """One call of a host's method with `args`; `key` identifies the job to the caller."""

    key: Hashable
    method: str
    args: tuple[Any, ...] = ()


class JobWindow:
    """Jobs of one run by number: taken, to be repeated, or done and waiting for delivery.

    Args:
        jobs: read as jobs are taken.
        on_result: called with each job and its result once, in the order of `jobs`.
        num_held: most jobs that are taken and not delivered.
    """

    def __init__(self, jobs: Iterable[Job], on_result: Callable[[Job, Any], None], num_held: int) -> None:
        self.jobs: dict[int, Job] = {}
        self._unfinished: set[int] = set()
        self._is_read = False
        self._source: Iterator[Job] = iter(jobs)
        self._on_result = on_result
        self._num_held = num_held
        self._again: list[int] = []
        self._done: dict[int, Any] = {}
        self._num_taken = self._num_delivered = 0
        self._deaths: Counter[int] = Counter()

    @property
    def is_over(self) -> bool:
        """Whether all jobs are read and done."""
        return self._is_read and not self._unfinished

    def take(self, *, idle: bool) -> int | None:
        """Return the number of the next job, None if there is none now.

        Args:
            idle: whether the host has no other job.
        """
        if self._again:
            return heapq.heappop(self._again) if idle or not self.runs_alone(self._again[0]) else None
        if len(self.jobs) >= self._num_held:
            return None
        job = next(self._source, None)
        if job is None:
            self._is_read = True
            return None
        number = self._num_taken
        self._num_taken += 1
        self.jobs[number] = job
        self._unfinished.add(number)
        return number

    def redo(self, numbers: list[int]) -> None:
        """Repeat these jobs, before any new one."""
        for number in numbers:
            heapq.heappush(self._again, number)

    def runs_alone(self, number: int) -> bool:
        """Return whether a host died with this job: it then runs alone, which shows the job to blame.

        The order of a dead host's jobs does not show which one it was working on.
        """
        return self._deaths[number] > 0

    def blame(self, numbers: list[int], death: Exception) -> None:
        """Count the death of a host against its jobs.

        Raises:
            ServiceError: too many hosts died with one of them.
        """
        self._deaths.update(numbers)
        for number in numbers:
            if self._deaths[number] >= MAX_DEATHS:
                job = self.jobs[number]
                raise ServiceError(
                    f"{MAX_DEATHS} hosts died while they worked on {job.method} {job.key!r}: {why(death)}; "
                    "look for a lack of memory (fewer hosts, smaller jobs) or run this job alone"
                ) from death

    def finish(self, number: int, result: Any) -> None:
        """Store a result and deliver all results that are next in order."""
        self._unfinished.discard(number)
        self._done[number] = result
        while self._num_delivered in self._done:
            number = self._num_delivered
            self._num_delivered += 1
            self._deaths.pop(number, None)
            self._on_result(self.jobs.pop(number), self._done.pop(number))


def why(death: Exception) -> str:
    """Return the beginning of Ray's message about a death, in one line."""
    return str(death).strip().replace("\n", " ")[:300]
