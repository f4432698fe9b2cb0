"""Time-outs of requests, nearly all of which are cancelled."""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from hyperfleet.emulation.timeline.device_state import Request
from hyperfleet.emulation.timeline.queue_model import Handler

# Time, order among equal times, handler and its arguments.
HeapEntry = tuple[float, int, Handler, Any, int]


class Timeouts:
    """Calls `expired(now_s, request)` at the end of each request's time-out unless it is stopped before.

    Time-outs are tens of seconds long: in the heap, a large fleet would hold tens of thousands, most of them
    of answered requests. Nearly all start in the order in which they expire, except those cut short by a
    deadline. So they wait in a queue, only its head is in the heap, and they keep no request alive.

    Args:
        heap: heap of the timeline.
        order: numbers of its entries.
        expired: called with the time and the request.
    """

    def __init__(
        self, heap: list[HeapEntry], order: Iterator[int], expired: Callable[[float, Request], None]
    ) -> None:
        self._heap = heap
        self._order = order
        self._expired = expired
        self._row: deque[tuple[float, int]] = deque()
        self._awaited: dict[int, Request] = {}

    def start(self, at_s: float, request: Request) -> None:
        """Let a request expire at `at_s` unless it is stopped."""
        number = request.timeout = next(self._order)
        self._awaited[number] = request
        row = self._row
        if row and at_s < row[-1][0]:
            heapq.heappush(self._heap, (at_s, number, self._due, None, number))
            return
        row.append((at_s, number))
        if len(row) == 1:
            self._arm()

    def stop(self, request: Request) -> None:
        """Cancel the time-out of a request."""
        self._awaited.pop(request.timeout, None)

    def _arm(self) -> None:
        at_s, number = self._row[0]
        heapq.heappush(self._heap, (at_s, number, self._due, None, number))

    def _due(self, now_s: float, _: Any, number: int) -> None:
        row, awaited = self._row, self._awaited
        request = awaited.pop(number, None)
        if row and row[0][1] == number:
            row.popleft()
            while row and row[0][1] not in awaited:
                row.popleft()
            if row:
                self._arm()
        if request is not None:
            self._expired(now_s, request)
