"""A generator in memory and a small scenario that is run against it in real time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from hyperfleet.client import GeneratorClient, ReceivedHead, RetryPolicy
from hyperfleet.client.retry import Circuit, ask_until_answered
from hyperfleet.emulation.feature_table import FeatureTable
from hyperfleet.emulation.real_time import RealTimeRun, run_in_real_time
from hyperfleet.emulation.timeline.engine import EventRow, Work
from hyperfleet.emulation.timeline.plan import Material, Plan, draw_plan
from hyperfleet.messages import HeadReply, HeadRequest
from hyperfleet.scenario.arrivals import Poisson
from hyperfleet.scenario.definition import Scenario
from tests.worlds.devices_in_memory import generate, reply_of

NUM_ROWS = 60
_RNG = np.random.default_rng(0)
TABLE = FeatureTable(
    device_id=np.arange(NUM_ROWS) // 3,
    example_id=np.arange(NUM_ROWS) + 100,
    anchor=_RNG.standard_normal((NUM_ROWS, 192), dtype=np.float32),
    hidden=_RNG.standard_normal((NUM_ROWS, 96), dtype=np.float32),
    base_answer=np.zeros(NUM_ROWS, np.int32),
    static_answer=np.zeros(NUM_ROWS, np.int32),
)
MATERIAL = Material.of(TABLE.device_id, dict.fromkeys(range(20), True))
WORK = Work(encode_gmacs=0.02, apply_gmacs=0.002, uplink_bytes=768, downlink_bytes=3_000)
REPLY = reply_of(generate(TABLE.anchor[:1]))
# Time of a batch as the service reports it, a little less than the true time.
SAID_S = 0.009


@dataclass
class Service:
    """A scripted generator in memory: `act` gets the requested row and the number of earlier requests for it.

    Requests go through the real client's retry code, so a refusal raises the real client's error.
    """

    act: Callable[[int, int], Awaitable[None]]
    started_s: float = field(default_factory=time.perf_counter)
    asked: list[tuple[float, int]] = field(default_factory=list)
    num_open: int = 0
    most_open: int = 0
    num_cancelled: int = 0
    reply: HeadReply = REPLY

    async def request(self, request: HeadRequest) -> ReceivedHead:
        (row,) = np.flatnonzero((TABLE.anchor == request.features).all(axis=1)).tolist()
        before = sum(asked == row for _, asked in self.asked)
        self.asked.append((time.perf_counter() - self.started_s, row))
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        sent_s = time.perf_counter()
        try:
            await asyncio.sleep(0.01)
            await ask_until_answered(
                lambda _: self.act(row, before), Circuit(retry=RetryPolicy(max_tries=1)), asyncio.sleep
            )
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.num_open -= 1
        return ReceivedHead(
            reply=self.reply,
            uplink_bytes=768,
            downlink_bytes=3_000,
            round_trip_s=time.perf_counter() - sent_s,
            generate_s=SAID_S,
        )


async def at_once(row: int, before: int) -> None:
    pass


async def hang(row: int, before: int) -> None:
    await asyncio.Event().wait()


def scenario(**changes: object) -> Scenario:
    fields: dict[str, object] = {
        "name": "real",
        "active_devices": 20,
        "registered_devices": 20,
        "duration_s": 1.0,
        "arrivals": Poisson(per_device_per_s=1.2),
        "networks": ("5g-100",),
        # Nobody gives up because this machine is busy.
        "retry": RetryPolicy(try_timeout_s=60.0, deadline_s=120.0, backoff_s=0.01),
    }
    return Scenario(**{**fields, **changes})  # type: ignore[arg-type]  # fields of any type


def plan_of(chosen: Scenario) -> Plan:
    return draw_plan(chosen, MATERIAL)


async def measure(chosen: Scenario, client: GeneratorClient, **options: object) -> RealTimeRun:
    given: dict[str, object] = {"plan": plan_of(chosen), **options}
    plan = given.pop("plan")
    return await run_in_real_time(chosen, plan, WORK, TABLE, client, **given)  # type: ignore[arg-type]  # options


def run(chosen: Scenario, client: GeneratorClient, **options: object) -> RealTimeRun:
    async def alone() -> RealTimeRun:
        result = await measure(chosen, client, **options)
        await no_task_is_left()
        return result

    return asyncio.run(alone())


async def no_task_is_left() -> None:
    # Cancelled tasks end when the event loop reaches them.
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def times(events: list[EventRow], kind: int) -> dict[tuple[int, int, int], float]:
    return {
        (device, number, tries): time_s for time_s, what, device, number, tries, *_ in events if what == kind
    }


def check_log(chosen: Scenario, result: RealTimeRun) -> None:
    """Assert that every sample is answered once, parts of each latency add up, and the log is in order."""
    plan, answers = plan_of(chosen), result.answers
    expected = list(zip(plan.device.tolist(), plan.number.tolist(), plan.row.tolist(), strict=True))
    assert sorted((each.device, each.number, each.row) for each in answers) == sorted(expected)
    at_s = [event[0] for event in result.events]
    assert at_s == sorted(at_s)
    for each in answers:
        parts = (
            each.encode_s + each.uplink_s + each.queue_s + each.generate_s + each.downlink_s + each.apply_s
        )
        assert parts == pytest.approx(each.answered_s - each.sampled_s, abs=1e-9)
    assert result.wall_s >= plan.time_s[-1]
