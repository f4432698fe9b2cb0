"""The timeline of a scenario: one discrete-event loop for virtual and real time.

All times are seconds since the start of the run. In virtual time the loop jumps from event to event. In real
time `advance` is called as the clock goes on, and the cloud is the running service.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float32

from hyperfleet.emulation.timeline import rows
from hyperfleet.emulation.timeline.active_devices import ActiveDevices
from hyperfleet.emulation.timeline.device_state import Request
from hyperfleet.emulation.timeline.disturbances import Disturbances
from hyperfleet.emulation.timeline.garbage import no_cycle_search
from hyperfleet.emulation.timeline.plan import Plan, Streams
from hyperfleet.emulation.timeline.queue_model import Cloud, Handler, QueueModel
from hyperfleet.emulation.timeline.records import AnsweredSample as AnsweredSample
from hyperfleet.emulation.timeline.records import EventRow as EventRow
from hyperfleet.emulation.timeline.records import Window as Window
from hyperfleet.emulation.timeline.records import Work as Work
from hyperfleet.emulation.timeline.timeouts import HeapEntry, Timeouts
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.faults import Fault, KillHost, KillReplica
from hyperfleet.scenario.policies import EverySample
from hyperfleet.seeding import uniform

_RETRY_PAUSES = 1
# Problem details and the headers with Retry-After.
REFUSAL_BYTES = 300


class Timeline:
    """Runs one scenario once.

    Args:
        scenario: the scenario to run.
        plan: its devices and samples.
        work: the cost of a sample.
        anchor: features of all rows, for policies that look at them; else None.
        cloud: makes the cloud from this timeline; None takes the queue model of the scenario.
        logs_faults: whether it logs faults and kills hosts and replicas; of several timelines that share the
            devices of a run only one does.
    """

    def __init__(
        self,
        scenario: Scenario,
        plan: Plan,
        work: Work,
        *,
        anchor: Float32[np.ndarray, "row 192"] | None = None,
        cloud: "Callable[[Timeline], Cloud] | None" = None,
        logs_faults: bool = True,
    ) -> None:
        self.scenario = scenario
        self.work = work
        self._device_id = plan.device_id.tolist()
        self._streams = plan.streams
        self._policy = scenario.policy
        self._one_at_a_time = not isinstance(scenario.policy, EverySample)
        self._disturbances = Disturbances(scenario)
        self._devices = ActiveDevices(scenario, plan, work, self._disturbances.pauses, anchor)
        self._heap: list[HeapEntry] = []
        self._order = itertools.count()
        self._timeouts = Timeouts(self._heap, self._order, self._timeout)
        self._events: list[EventRow] = []
        self._answers: list[AnsweredSample] = []
        self._host_kills: list[float] = []
        self._num_open = 0
        self._samples = plan.samples()
        # In a closed loop the rest begin as others end.
        self._planned = islice(self._samples, plan.streams.devices_at_once if plan.streams else None)
        self._next_sample = next(self._planned, None)
        self.now_s = 0.0
        self.cloud: Cloud = (
            cloud(self)
            if cloud is not None
            else QueueModel(scenario.cloud, self.schedule, self.generated, self.lost)
        )
        if logs_faults:
            for fault, begin_s, end_s in self._disturbances.spans():
                self.schedule(begin_s, self._fault_begins, fault)
                if end_s is not None:
                    self.schedule(end_s, self._fault_ends, fault)

    # Running

    def windows(self, answers_per_window: int) -> Iterator[Window]:
        """Run once in virtual time; yield windows of so many answers, the last one shorter."""
        if self.is_over:
            return
        try:
            while not self.is_over:
                with no_cycle_search():
                    self.advance(float("inf"), stop_after=answers_per_window)
                yield self.take_window()
        finally:
            # They refer to this timeline: a cycle would keep plan and devices until the next collection.
            self._heap.clear()
            del self.cloud, self._timeouts

    @property
    def is_over(self) -> bool:
        """Whether every sample has arrived and is answered."""
        return self._next_sample is None and self._num_open == 0

    @property
    def num_answers(self) -> int:
        """Answers since the last window."""
        return len(self._answers)

    @property
    def next_s(self) -> float:
        """Time of the next event."""
        sample_s = self._next_sample[0] if self._next_sample is not None else float("inf")
        return min(sample_s, self._heap[0][0]) if self._heap else sample_s

    def advance(self, until_s: float, stop_after: int | None = None) -> None:
        """Process everything up to `until_s`, or until there are so many answers."""
        heap, answers = self._heap, self._answers
        limit = float("inf") if stop_after is None else stop_after
        while not self.is_over and len(answers) < limit:
            sample = self._next_sample
            if heap and (sample is None or heap[0][0] <= sample[0]):
                if heap[0][0] > until_s:
                    return
                now_s, _, handler, argument, number = heapq.heappop(heap)
                self.now_s = now_s
                handler(now_s, argument, number)
            elif sample is not None:
                if sample[0] > until_s:
                    return
                self.now_s = sample[0]
                self._sample(*sample)
                self._next_sample = next(self._planned, None)
            else:
                return

    def take_window(self) -> Window:
        """Return everything since the last window."""
        window = Window(
            events=self._events,
            answers=self._answers,
            host_kills=tuple(self._host_kills),
        )
        self._events, self._answers, self._host_kills = [], [], []
        return window

    def schedule(self, at_s: float, handler: Handler, argument: Any = None, number: int = 0) -> None:
        """Call `handler(at_s, argument, number)` at a time; equal times keep the order of scheduling."""
        heapq.heappush(self._heap, (at_s, next(self._order), handler, argument, number))

    # A sample, from its arrival to its answer

    def _sample(self, now_s: float, index: int, number: int, row: int) -> None:
        device = self._devices[index]
        if device.is_off:
            self.log(now_s, rows.SAMPLE, index, number, detail="battery empty")
            self._begin_next(now_s)
            return
        self.log(now_s, rows.SAMPLE, index, number)
        encode_s = device.compute.encode_s * self._disturbances.slowdown(index, now_s)
        # One sample at a time: a busy device makes this one wait.
        done_s = max(now_s, device.busy_until_s) + encode_s
        device.busy_until_s = done_s
        request = Request(index, device, number, row, now_s)
        request.encode_s = done_s - now_s
        request.compute_joules = encode_s * device.compute.watts
        self._use(request, request.compute_joules)
        self._num_open += 1
        self.schedule(done_s, self._encoded, request)

    def _encoded(self, now_s: float, request: Request, _: int) -> None:
        device = request.state
        device.saw(request.sampled_s, request.row)
        waits = self._one_at_a_time and device.pending
        if waits or not self._policy.asks(device):
            self._answer_with_own(now_s, request, "")
            return
        device.pending += 1
        request.deadline_s = now_s + self.scenario.retry.deadline_s
        self._send(now_s, request, 0)

    def _send(self, now_s: float, request: Request, _: int) -> None:
        request.tries += 1
        request.sent_s = now_s
        request.limit_s = min(now_s + self.scenario.retry.try_timeout_s, request.deadline_s)
        finish_s, num_bytes, joules = request.state.up(now_s, self.work.uplink_bytes)
        request.uplink_bytes += num_bytes
        self._use(request, joules)
        self.log(
            now_s,
            rows.SENT,
            request.device,
            request.number,
            request.tries,
            num_bytes,
            request.encode_s,
            joules,
        )
        if finish_s < request.limit_s:
            self.schedule(finish_s, self._received, request, request.attempt)
        self._timeouts.start(request.limit_s, request)

    def _received(self, now_s: float, request: Request, attempt: int) -> None:
        if request.attempt != attempt:
            return
        request.received_s = now_s
        request.uplink_s = now_s - request.sent_s
        device, number, tries = request.device, request.number, request.tries
        self.log(now_s, rows.RECEIVED, device, number, tries, duration_s=request.uplink_s)
        refusal = self._disturbances.refuses(device, number, tries, now_s)
        if refusal is not None:
            self.refused(now_s, request, attempt, *refusal)
            return
        retry_after_s = self.cloud.submit(now_s, request)
        if retry_after_s is not None:
            self.refused(now_s, request, attempt, 429, retry_after_s)

    def refused(
        self, now_s: float, request: Request, attempt: int, status: int, retry_after_s: float
    ) -> None:
        """Handle a request that the cloud refuses."""
        if request.attempt != attempt:
            return
        finish_s, num_bytes, joules = self._down(now_s, request, REFUSAL_BYTES)
        self.log(
            now_s,
            rows.REFUSED,
            request.device,
            request.number,
            request.tries,
            num_bytes,
            joules=joules,
            detail=f"HTTP {status}",
        )
        if finish_s < request.limit_s:
            self.schedule(
                finish_s,
                lambda at_s, what, number: self._failed(at_s, what, number, f"HTTP {status}", retry_after_s),
                request,
                attempt,
            )

    def generated(self, now_s: float, request: Request, attempt: int, generate_s: float) -> None:
        """Send a generated head down to its device."""
        if request.attempt != attempt:
            return
        request.generate_s = generate_s
        finish_s, num_bytes, joules = self._down(now_s, request, self.work.downlink_bytes)
        waited_s = now_s - request.received_s
        self.log(now_s, rows.GENERATED, request.device, request.number, request.tries, duration_s=waited_s)
        request.downlink_s = finish_s - now_s
        if finish_s < request.limit_s:
            self.schedule(finish_s, self._delivered, (request, num_bytes, joules), attempt)
        else:
            # The bytes cross the link for nothing; the time-out logs them.
            request.late = num_bytes, joules

    def lost(self, now_s: float, request: Request, attempt: int, reason: str = "replica died") -> None:
        """Handle a request whose connection breaks."""
        if request.attempt != attempt:
            return
        self.log(now_s, rows.LOST, request.device, request.number, request.tries, detail=reason)
        self._failed(now_s, request, attempt, reason, 0.0)

    def _delivered(self, now_s: float, arrived: tuple[Request, int, float], attempt: int) -> None:
        request, num_bytes, joules = arrived
        if request.attempt != attempt:
            return
        damage = self._disturbances.damages(request.device, request.number, request.tries, now_s)
        kind = rows.DELIVERED if damage is None else rows.CORRUPT
        self.log(
            now_s,
            kind,
            request.device,
            request.number,
            request.tries,
            num_bytes,
            request.downlink_s,
            joules,
            damage or "",
        )
        if damage is not None:
            self._failed(now_s, request, attempt, damage, 0.0)
            return
        request.state.got_head(now_s, request.row, request.number)
        request.state.pending -= 1
        self._over(request)
        self._answer(now_s, request, rows.FRESH, request.row, 0.0, "")

    def _timeout(self, now_s: float, request: Request) -> None:
        self.log(
            now_s,
            rows.TIMEOUT,
            request.device,
            request.number,
            request.tries,
            request.late[0],
            now_s - request.sent_s,
            request.late[1],
        )
        request.late = 0, 0.0
        self._failed(now_s, request, request.attempt, "timed out", 0.0)

    def _failed(
        self, now_s: float, request: Request, attempt: int, reason: str, retry_after_s: float
    ) -> None:
        if request.attempt != attempt:
            return
        self._over(request)
        retry, tries = self.scenario.retry, request.tries
        # Full jitter, as in the client.
        draw = uniform(
            self.scenario.seed,
            _RETRY_PAUSES,
            self._device_id[request.device],
            request.number * 64 + tries,
        )
        pause_s = max(retry_after_s, draw * retry.longest_pause_s(tries))
        if tries < retry.max_tries and now_s + pause_s < request.deadline_s:
            self.log(
                now_s,
                rows.RETRY,
                request.device,
                request.number,
                request.tries,
                duration_s=pause_s,
                detail=reason,
            )
            request.uplink_s = request.generate_s = request.downlink_s = 0.0
            self.schedule(now_s + pause_s, self._send, request)
            return
        request.state.pending -= 1
        self.log(now_s, rows.GAVE_UP, request.device, request.number, request.tries, detail=reason)
        request.uplink_s = request.generate_s = request.downlink_s = 0.0
        self._answer_with_own(now_s, request, reason)

    def _over(self, request: Request) -> None:
        # Later events of this try are ignored.
        request.attempt += 1
        self._timeouts.stop(request)

    def _answer_with_own(self, now_s: float, request: Request, reason: str) -> None:
        device = request.state
        if device.head_row >= 0:
            self._answer(now_s, request, rows.CACHED, device.head_row, now_s - device.head_s, reason)
        else:
            self._answer(now_s, request, rows.STATIC, -1, -1.0, reason)

    def _answer(
        self, now_s: float, request: Request, head: int, head_row: int, age_s: float, reason: str
    ) -> None:
        compute = request.state.compute
        apply_s = compute.apply_s * self._disturbances.slowdown(request.device, now_s)
        request.compute_joules += apply_s * compute.watts
        self._use(request, apply_s * compute.watts)
        answered_s = now_s + apply_s
        sample = request.answered(answered_s, apply_s, head, head_row, age_s, reason)
        self.schedule(answered_s, self._answered, sample)

    def _answered(self, now_s: float, sample: AnsweredSample, _: int) -> None:
        self._num_open -= 1
        self.log(
            now_s,
            rows.ANSWERED,
            sample.device,
            sample.number,
            sample.attempts,
            duration_s=now_s - sample.sampled_s,
            joules=sample.compute_joules,
            detail=rows.HEADS[sample.head],
        )
        self._answers.append(sample)
        if self._streams is not None:
            self._take_next(now_s, self._streams, sample.device, sample.number + 1)

    def _take_next(self, now_s: float, streams: Streams, index: int, number: int) -> None:
        """Let a device in a closed loop take its next sample, if it has one and the run goes on."""
        if now_s >= self.scenario.duration_s:
            return
        if number < streams.num_samples[index]:
            row = int(streams.first_row[index] + number % streams.num_rows[index])
            self._sample(now_s, index, number, row)
        else:
            self._begin_next(now_s)

    def _begin_next(self, now_s: float) -> None:
        """Let the next device begin in a closed loop, after one has left."""
        first = next(self._samples, None) if self._streams is not None else None
        if first is not None:
            time_s, *sample = first
            # Open until then, or the run would be over.
            self._num_open += 1
            self.schedule(max(now_s, time_s), self._begin, sample)

    def _begin(self, now_s: float, sample: list[int], _: int) -> None:
        self._num_open -= 1
        self._sample(now_s, *sample)

    # Shared by the steps above

    def log(
        self,
        now_s: float,
        kind: int,
        index: int,
        number: int = -1,
        attempt: int = 0,
        num_bytes: int = 0,
        duration_s: float = 0.0,
        joules: float = 0.0,
        detail: str = "",
    ) -> None:
        """Add a row to the event log; `index` is the device's position, -1 for all devices."""
        self._events.append((now_s, kind, index, number, attempt, num_bytes, duration_s, joules, detail))

    def _fault_begins(self, now_s: float, fault: Fault, _: int) -> None:
        if isinstance(fault, KillHost):
            # Hosts only compute: their deaths concern no device, so the log does not show them.
            self._host_kills.append(now_s)
            return
        self.log(now_s, rows.FAULT_BEGINS, -1, detail=fault.kind)
        if isinstance(fault, KillReplica):
            self.cloud.kill_replica(now_s, fault.restart_s)

    def _fault_ends(self, now_s: float, fault: Fault, _: int) -> None:
        self.log(now_s, rows.FAULT_ENDS, -1, detail=fault.kind)

    def _down(self, now_s: float, request: Request, num_bytes: int) -> tuple[float, int, float]:
        finish_s, sent_bytes, joules = request.state.down(now_s, num_bytes)
        request.downlink_bytes += sent_bytes
        self._use(request, joules)
        return finish_s, sent_bytes, joules

    def _use(self, request: Request, joules: float) -> None:
        request.joules += joules
        if request.state.drain(joules):
            self.log(self.now_s, rows.BATTERY_EMPTY, request.device, request.number)
