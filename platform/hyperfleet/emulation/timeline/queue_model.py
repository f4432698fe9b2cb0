"""Queue model: the generator in virtual time, replicas that take batches from one queue."""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from hyperfleet.emulation.timeline.device_state import Request
from hyperfleet.scenario.cloud_model import CloudModel

Handler = Callable[[float, Any, int], None]
Schedule = Callable[[float, Handler, Any, int], None]


class Cloud(Protocol):
    """The generator: the queue model or the real service."""

    def submit(self, now_s: float, request: Request) -> float | None:
        """Accept a request and return None, or refuse it and return the seconds until a retry."""
        ...

    def kill_replica(self, now_s: float, restart_s: float) -> None:
        """Kill a replica, which is back `restart_s` later."""
        ...


class QueueModel:
    """Replicas of `model` that serve one queue.

    Args:
        model: their number and service times.
        schedule: schedules a handler.
        generated: called with the time, a request whose head is ready, its attempt and the batch's seconds.
        lost: called with the time, a request whose replica died and its attempt.
    """

    def __init__(
        self,
        model: CloudModel,
        schedule: Schedule,
        generated: Callable[[float, Request, int, float], None],
        lost: Callable[[float, Request, int], None],
    ) -> None:
        self._model = model
        self._schedule = schedule
        self._generated = generated
        self._lost = lost
        self._waiting: deque[tuple[Request, int]] = deque()
        self._busy: dict[int, list[tuple[Request, int]]] = {}
        self._num_free = model.replicas
        self._num_batches = 0

    def submit(self, now_s: float, request: Request) -> float | None:
        """Queue a request, or refuse it like the service, with the time the queue needs."""
        model = self._model
        if len(self._waiting) >= model.max_waiting:
            return len(self._waiting) / model.max_heads_per_s
        self._waiting.append((request, request.attempt))
        if self._num_free:
            self._start(now_s)
        return None

    def kill_replica(self, now_s: float, restart_s: float) -> None:
        """Kill the replica with the newest batch; its heads are lost."""
        if self._busy:
            batch = self._busy.pop(max(self._busy))
            for request, attempt in batch:
                self._lost(now_s, request, attempt)
        elif self._num_free:
            self._num_free -= 1
        else:
            return  # all replicas are down
        self._schedule(now_s + restart_s, self._restarted, None, 0)

    def _restarted(self, now_s: float, _: Any, __: int) -> None:
        self._num_free += 1
        self._start(now_s)

    def _start(self, now_s: float) -> None:
        batch: list[tuple[Request, int]] = []
        waiting = self._waiting
        while waiting and len(batch) < self._model.max_batch:
            request, attempt = waiting.popleft()
            # Skip requests that the device has given up.
            if request.attempt == attempt and now_s < request.limit_s:
                batch.append((request, attempt))
        if not batch:
            return
        self._num_free -= 1
        self._num_batches += 1
        self._busy[self._num_batches] = batch
        service_s = self._model.service_s(len(batch))
        self._schedule(now_s + service_s, self._done, service_s, self._num_batches)

    def _done(self, now_s: float, service_s: float, batch_number: int) -> None:
        batch = self._busy.pop(batch_number, None)
        if batch is None:
            return  # its replica died
        self._num_free += 1
        for request, attempt in batch:
            self._generated(now_s, request, attempt, service_s)
        self._start(now_s)
