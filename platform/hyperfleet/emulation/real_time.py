"""The timeline in real time: samples arrive when they are due, and heads come from the running service.

Delays of links and devices are waited for; only the cloud is asked for real. A request is due when the
timeline says so, however long the ones before take, so a slow service cannot slow down its own load.
"""

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hyperfleet.client import GeneratorClient
from hyperfleet.client.retry import asked_to_wait_s
from hyperfleet.emulation.feature_table import FeatureTable
from hyperfleet.emulation.timeline.device_state import Request
from hyperfleet.emulation.timeline.engine import Timeline, Window, Work
from hyperfleet.emulation.timeline.plan import Plan
from hyperfleet.errors import HeadLayoutError, HyperFleetError, ServiceError
from hyperfleet.messages import HeadRequest
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.policies import OnDrift

_STATUS = re.compile(r"HTTP (\d{3})")
# Longest sleep at a time: an interrupted run ends soon.
_NAP_S = 0.5


@dataclass(kw_only=True, slots=True, eq=False)
class RealTimeRun:
    """What a run in real time brought, or has brought so far.

    Attributes:
        windows: its stretches, to be answered and written as those of a virtual run.
        wall_s: how long it took.
        max_lag_s: longest time by which this process was behind with an event: where it is more than some
            milliseconds, the load was not what the scenario says.
        generate_s: for each head, the seconds that the service says its batch took.
        ended_by: what ended it before its time; what came until then is in `windows`.
    """

    windows: list[Window] = field(default_factory=list)
    wall_s: float = 0.0
    max_lag_s: float = 0.0
    generate_s: np.ndarray = field(default_factory=lambda: np.empty(0))
    ended_by: BaseException | None = None

    def check(self) -> None:
        """Raise what ended it before its time."""
        if self.ended_by is not None:
            raise self.ended_by


class ServiceCloud:
    """The running service as the cloud of a timeline.

    Args:
        timeline: gets heads and refusals.
        client: asks; it must try once only, since the timeline decides about more.
        table: features of the samples.
        clock: seconds since the run began.
        woken: set when something came.
        kill: kills a replica of the service, in a thread.
    """

    def __init__(
        self,
        timeline: Timeline,
        client: GeneratorClient,
        table: FeatureTable,
        clock: Callable[[], float],
        woken: asyncio.Event,
        kill: Callable[[], object] | None,
    ) -> None:
        self._timeline = timeline
        self._client = client
        self._table = table
        self._clock = clock
        self._woken = woken
        self._kill = kill
        # The loop holds tasks weakly.
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self.generate_s: list[float] = []

    def submit(self, now_s: float, request: Request) -> float | None:
        """Send a request; its answer comes later."""
        self._start(asyncio.create_task(self._ask(request, request.attempt)))
        return None

    def kill_replica(self, now_s: float, restart_s: float) -> None:
        """Kill a replica of the service; Serve brings it back when it can."""
        if self._kill is not None:
            self._start(asyncio.create_task(self._kill_one(self._kill)))

    def close(self) -> None:
        """Give up what is still under way."""
        for task in self._tasks:
            task.cancel()

    def _start(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._woken.set()

    def check(self) -> None:
        """Raise what a request or a kill failed of and no device could be told."""
        if self._failure is not None:
            raise self._failure

    async def _kill_one(self, kill: Callable[[], object]) -> None:
        await asyncio.to_thread(kill)

    async def _ask(self, request: Request, attempt: int) -> None:
        anchor = self._table.anchor[request.row : request.row + 1]
        timeline = self._timeline
        try:
            head = await self._client.request(HeadRequest(features=anchor))
        except (ServiceError, HeadLayoutError) as error:
            status = _STATUS.search(str(error))
            wait_s = asked_to_wait_s(error) if isinstance(error, ServiceError) else 0.0
            if status is not None:
                self._tell(
                    lambda now_s, what, number: timeline.refused(now_s, what, number, int(status[1]), wait_s),
                    request,
                    attempt,
                )
            else:
                reason = "bad reply" if isinstance(error, HeadLayoutError) else "no connection"
                self._tell(
                    lambda now_s, what, number: timeline.lost(now_s, what, number, reason), request, attempt
                )
            return
        self.generate_s.append(head.generate_s)
        self._tell(
            lambda now_s, what, number: timeline.generated(now_s, what, number, head.generate_s),
            request,
            attempt,
        )

    def _tell(self, handler: Callable[[float, Request, int], None], request: Request, attempt: int) -> None:
        self._timeline.schedule(max(self._clock(), self._timeline.now_s), handler, request, attempt)
        self._woken.set()


async def run_in_real_time(
    scenario: Scenario,
    plan: Plan,
    work: Work,
    table: FeatureTable,
    client: GeneratorClient,
    *,
    answers_per_window: int,
    kill_replica: Callable[[], object] | None = None,
    on_progress: Callable[[float, int], None] | None = None,
    interrupted: threading.Event | None = None,
) -> RealTimeRun:
    """Run a scenario against a service by the wall clock.

    Args:
        scenario: what happens.
        plan: its devices and samples.
        work: what a sample costs a device.
        table: features of the samples.
        client: asks the service; in `async with` already, of one try.
        answers_per_window: answers a stretch.
        kill_replica: what `KillReplica` calls.
        on_progress: called now and then with the time and the samples answered.
        interrupted: ends the run soon after another thread has set it.
    """
    woken = asyncio.Event()
    started = time.perf_counter()
    clouds: list[ServiceCloud] = []

    def clock() -> float:
        return time.perf_counter() - started

    def make(timeline: Timeline) -> ServiceCloud:
        clouds.append(ServiceCloud(timeline, client, table, clock, woken, kill_replica))
        return clouds[0]

    anchor = table.anchor if isinstance(scenario.policy, OnDrift) else None
    timeline = Timeline(scenario, plan, work, anchor=anchor, cloud=make)
    run, num_answered = RealTimeRun(), 0
    try:
        while not timeline.is_over and not (interrupted is not None and interrupted.is_set()):
            clouds[0].check()
            now_s = clock()
            run.max_lag_s = max(run.max_lag_s, now_s - timeline.next_s)
            timeline.advance(now_s, stop_after=answers_per_window)
            if timeline.num_answers >= answers_per_window:
                run.windows.append(timeline.take_window())
                num_answered += len(run.windows[-1].answers)
            if on_progress is not None:
                on_progress(now_s, num_answered + timeline.num_answers)
            woken.clear()
            await _until(woken, timeline.next_s - clock())
    except HyperFleetError as error:
        run.ended_by = error
    finally:
        clouds[0].close()
    run.windows.append(timeline.take_window())
    run.wall_s, run.generate_s = clock(), np.array(clouds[0].generate_s)
    return run


async def _until(woken: asyncio.Event, pause_s: float) -> None:
    """Wait until something comes, or the pause is over; others run meanwhile in any case."""
    if pause_s <= 0:
        await asyncio.sleep(0)
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(woken.wait(), min(pause_s, _NAP_S))
