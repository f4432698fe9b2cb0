"""The timeline in real time: samples arrive when they are due, and heads come from the running service.

Delays of links and devices are waited for; only the cloud is asked for real. A request is due when the
timeline says so, however long the ones before take, so a slow service cannot slow down its own load. Several
processes can share the devices of a run; `join` puts together what they measured.
"""

import asyncio
import contextlib
import heapq
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter, itemgetter
from typing import cast

import numpy as np

from hyperfleet.client import GeneratorClient, ReceivedHead
from hyperfleet.emulation.feature_table import FeatureTable
from hyperfleet.emulation.timeline.device_state import Request
from hyperfleet.emulation.timeline.engine import AnsweredSample, EventRow, Timeline, Window, Work
from hyperfleet.emulation.timeline.plan import Plan
from hyperfleet.errors import HeadLayoutError, HyperFleetError, ServiceError
from hyperfleet.head_codecs import best_answer
from hyperfleet.messages import HeadRequest
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.policies import OnDrift

# Longest sleep at a time: an interrupted run ends soon.
_NAP_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FreshAnswers:
    """Answers from the service's heads, each to the sample that its head was made for.

    Attributes:
        row: rows of the feature table.
        answer: the answers.
        score: their scores; NaN where the head's scores were not finite and the device's own static head
            answered.
    """

    row: np.ndarray
    answer: np.ndarray
    score: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RealTimeRun:
    """A run in real time, or what was measured until it ended.

    Attributes:
        events: rows of the event log, in order of time.
        answers: answered samples, in the order in which they were answered.
        host_kills: times at which a host is to be killed.
        fresh: answers from the received heads.
        wall_s: duration of the run.
        max_lag_s: longest time by which a process was late with an event. Beyond some milliseconds the load
            was not that of the scenario.
        generate_s: seconds of generating its batch, as the service reports them, one value per head.
        ended_by: what ended the run early.
    """

    events: list[EventRow]
    answers: list[AnsweredSample]
    host_kills: tuple[float, ...]
    fresh: FreshAnswers
    wall_s: float
    max_lag_s: float
    generate_s: np.ndarray
    ended_by: BaseException | None = None

    def check(self) -> None:
        """Raise what ended the run early."""
        if self.ended_by is not None:
            raise self.ended_by

    def windows(self, answers_per_window: int) -> Iterator[Window]:
        """Yield the run in stretches of so many answers, the last one shorter."""
        first_event = 0
        for start in range(0, max(len(self.answers), 1), answers_per_window):
            answers = self.answers[start : start + answers_per_window]
            end_event = len(self.events)
            if start + answers_per_window < len(self.answers):
                until_s = answers[-1].answered_s
                while self.events[end_event - 1][0] > until_s:
                    end_event -= 1
            yield Window(
                events=self.events[first_event:end_event],
                answers=answers,
                host_kills=self.host_kills if start == 0 else (),
            )
            first_event = end_event


def join(shares: Sequence[RealTimeRun]) -> RealTimeRun:
    """Put together what several processes measured of one run."""
    fresh = [share.fresh for share in shares]
    return RealTimeRun(
        events=list(heapq.merge(*(share.events for share in shares), key=itemgetter(0))),
        answers=list(heapq.merge(*(share.answers for share in shares), key=attrgetter("answered_s"))),
        host_kills=tuple(chain.from_iterable(share.host_kills for share in shares)),
        fresh=FreshAnswers(
            row=np.concatenate([each.row for each in fresh]),
            answer=np.concatenate([each.answer for each in fresh]),
            score=np.concatenate([each.score for each in fresh]),
        ),
        wall_s=max(share.wall_s for share in shares),
        max_lag_s=max(share.max_lag_s for share in shares),
        generate_s=np.concatenate([share.generate_s for share in shares]),
        ended_by=next((share.ended_by for share in shares if share.ended_by is not None), None),
    )


class ServiceCloud:
    """The running service as the cloud of a timeline.

    Args:
        timeline: gets heads and refusals.
        client: sends requests; it must try only once, since the timeline decides about retries.
        table: features of the samples.
        clock: seconds since the run began.
        kill: kills a replica of the service, in a thread.
    """

    def __init__(
        self,
        timeline: Timeline,
        client: GeneratorClient,
        table: FeatureTable,
        clock: Callable[[], float],
        kill: Callable[[], object] | None,
    ) -> None:
        self._timeline = timeline
        self._client = client
        self._table = table
        self._clock = clock
        self._woken = asyncio.Event()
        self._kill = kill
        # The loop holds tasks weakly.
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._fresh: dict[int, tuple[int, float]] = {}
        self.generate_s: list[float] = []

    @property
    def fresh(self) -> FreshAnswers:
        """Answers from the received heads."""
        answers = list(self._fresh.values())
        return FreshAnswers(
            row=np.array(list(self._fresh), np.int64),
            answer=np.array([answer for answer, _ in answers], np.int32),
            score=np.array([score for _, score in answers], np.float32),
        )

    def submit(self, now_s: float, request: Request) -> float | None:
        """Send a request; its reply comes later."""
        self._start(asyncio.create_task(self._ask(request, request.attempt)))
        return None

    def kill_replica(self, now_s: float, restart_s: float) -> None:
        """Kill a replica; the service itself says when it is back."""
        if self._kill is not None:
            self._start(asyncio.create_task(_kill_one(self._kill)))

    def close(self) -> None:
        """Cancel the open requests."""
        for task in self._tasks:
            task.cancel()

    async def wait(self, pause_s: float) -> None:
        """Wait until a reply comes or the pause is over; other tasks run meanwhile in any case.

        Raises:
            BaseException: the error of a request or a kill that concerns no single device.
        """
        self._woken.clear()
        if pause_s <= 0:
            await asyncio.sleep(0)
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(pause_s, _NAP_S))
        if self._failure is not None:
            raise self._failure

    def _start(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._woken.set()

    async def _ask(self, request: Request, attempt: int) -> None:
        anchor = self._table.anchor[request.row : request.row + 1]
        timeline = self._timeline
        try:
            head = await self._client.request(HeadRequest(features=anchor))
        except HeadLayoutError:
            self._tell(partial(timeline.lost, reason="bad reply"), request, attempt)
        except ServiceError as error:
            status = error.status
            if status is None:
                self._tell(partial(timeline.lost, reason="no connection"), request, attempt)
            else:
                refused = partial(timeline.refused, status=status, retry_after_s=error.retry_after_s)
                self._tell(refused, request, attempt)
        else:
            self._apply(request.row, head)
            self.generate_s.append(head.generate_s)
            self._tell(partial(timeline.generated, generate_s=head.generate_s), request, attempt)

    def _apply(self, row: int, head: ReceivedHead) -> None:
        """Answer a sample with the head received for it."""
        if row in self._fresh:
            return  # a stream that repeats: the same sample with the same head has the same answer
        answer, score = best_answer(
            head.reply.heads, self._table.hidden[row : row + 1], self._table.base_answer[row : row + 1]
        )
        self._fresh[row] = int(answer[0]), float(score[0])

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
    begin_at_s: float | None = None,
    leads: bool = True,
    kill_replica: Callable[[], object] | None = None,
    on_progress: Callable[[float, int], None] = lambda _, __: None,
    interrupted: threading.Event | None = None,
) -> RealTimeRun:
    """Run a scenario, or a share of its devices, against a service by the wall clock.

    Args:
        scenario: see `Timeline`.
        plan: see `Timeline`.
        work: see `Timeline`.
        table: features of the samples.
        client: client of the service, already in `async with`, with one try.
        begin_at_s: time of day at which all shares of a run begin; None or a past time for now.
        leads: whether this share logs the faults and kills replicas; one of the shares does.
        kill_replica: function that `KillReplica` calls.
        on_progress: called from time to time with the time and the samples answered.
        interrupted: ends the run soon after another thread has set it.
    """
    started = time.perf_counter() + max((begin_at_s or 0.0) - time.time(), 0.0)

    def clock() -> float:
        return time.perf_counter() - started

    anchor = table.anchor if isinstance(scenario.policy, OnDrift) else None
    make = partial(ServiceCloud, client=client, table=table, clock=clock, kill=kill_replica)
    timeline = Timeline(scenario, plan, work, anchor=anchor, cloud=make, logs_faults=leads)
    cloud = cast(ServiceCloud, timeline.cloud)
    max_lag_s, ended_by = 0.0, None
    try:
        while not timeline.is_over and not (interrupted is not None and interrupted.is_set()):
            now_s = clock()
            max_lag_s = max(max_lag_s, now_s - timeline.next_s)
            timeline.advance(now_s)
            on_progress(now_s, timeline.num_answers)
            await cloud.wait(timeline.next_s - clock())
    except HyperFleetError as error:
        ended_by = error
    finally:
        cloud.close()
    window = timeline.take_window()
    return RealTimeRun(
        events=window.events,
        answers=window.answers,
        host_kills=window.host_kills,
        fresh=cloud.fresh,
        wall_s=clock(),
        max_lag_s=max_lag_s,
        generate_s=np.array(cloud.generate_s),
        ended_by=ended_by,
    )


async def _kill_one(kill: Callable[[], object]) -> None:
    await asyncio.to_thread(kill)
