"""The jobs that a pool of hosts has in hand: taken in order, done in any order, delivered in order."""

import heapq
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hyperfleet.errors import ServiceError

# A job whose host dies so often kills hosts; it would do so for ever.
MAX_DEATHS = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Job:
    """One call of a host's method; `key` tells the caller which, `args` are its arguments."""

    key: Hashable
    method: str
    args: tuple[Any, ...] = ()


class JobWindow:
    """Jobs of one run by number: which are taken, to be done again, or done and waiting for their turn.

    Args:
        jobs: read when one is taken.
        on_result: gets each job and its result once, in the order of `jobs`.
        num_held: jobs that may be taken and not yet delivered.
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
        """Whether the last job was read and every one is done."""
        return self._is_read and not self._unfinished

    def take(self, *, idle: bool) -> int | None:
        """Return the number of a job to hand out; None if there is none now.

        Args:
            idle: whether it goes to a host that does nothing else.
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
        """Hand these out again, before any new one."""
        for number in numbers:
            heapq.heappush(self._again, number)

    def runs_alone(self, number: int) -> bool:
        """Tell whether a host died that had this job: then it is done with no other, to see which it was.

        A host may die before what it did last is known here, so the order of its jobs does not tell.
        """
        return self._deaths[number] > 0

    def blame(self, numbers: list[int], death: Exception) -> None:
        """Count that a host died with these jobs.

        Raises:
            ServiceError: too many did with one of them.
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
        """Keep a result until those before it are there, then deliver them all."""
        self._unfinished.discard(number)
        self._done[number] = result
        while self._num_delivered in self._done:
            number = self._num_delivered
            self._num_delivered += 1
            self._deaths.pop(number, None)
            self._on_result(self.jobs.pop(number), self._done.pop(number))


def why(death: Exception) -> str:
    """Return the beginning of what Ray says of a death, in one line."""
    return str(death).strip().replace("\n", " ")[:300]
