"""Time-outs of requests, nearly all of which never come."""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from hyperfleet.emulation.timeline.device_state import Request
from hyperfleet.emulation.timeline.queue_model import Handler

# When, which of those of one time, and what is called with what.
HeapEntry = tuple[float, int, Handler, Any, int]


class Timeouts:
    """What calls `expired(now_s, request)` unless the request is stopped before.

    Each request has one, tens of seconds ahead: a large fleet would hold tens of thousands in its heap, with
    requests that were answered long ago. They come in the order of their time but for those that a deadline
    cuts short. So they wait in a row, of which the heap holds the first one, and keep no request alive.

    Args:
        heap: of the timeline.
        order: numbers of its entries.
        expired: called at the time.
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
        """Let a request expire at a time."""
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
        """Let a request expire no more."""
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
