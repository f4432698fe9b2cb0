import asyncio
import time
from itertools import pairwise

import pytest

from hyperfleet.emulation.real_time import RealTimeRun, join
from hyperfleet.emulation.timeline import rows
from hyperfleet.emulation.timeline.engine import AnsweredSample
from hyperfleet.scenario.arrivals import ClosedLoop
from hyperfleet.scenario.faults import KillReplica
from tests.worlds.real_time import (
    NUM_ROWS,
    Service,
    at_once,
    check_log,
    measure,
    plan_of,
    run,
    scenario,
)

pytestmark = pytest.mark.heavy


def test_shares_of_several_processes_are_one_run() -> None:
    chosen = scenario(faults=(KillReplica(at_s=0.3, restart_s=0.2),))
    plan, kills = plan_of(chosen), []
    begin_at_s = time.time() + 0.2

    async def together() -> list[RealTimeRun]:
        return await asyncio.gather(
            *(
                measure(
                    chosen,
                    Service(at_once),
                    plan=plan.share(index, 3),
                    begin_at_s=begin_at_s,
                    leads=index == 0,
                    kill_replica=lambda: kills.append(1),
                )
                for index in range(3)
            )
        )

    shares = asyncio.run(together())
    result = join(shares)
    check_log(chosen, result)
    for index, share in enumerate(shares):
        assert {each.device % 3 for each in share.answers} == {index}
        assert share.answers
    # The faults are logged and done once.
    assert [rows.KINDS[each[1]] for each in result.events if each[2] == -1] == ["fault-begins", "fault-ends"]
    assert kills == [1]
    assert len(result.fresh.row) == len(result.generate_s) == len(result.answers)
    at_s = [each.answered_s for each in result.answers]
    assert at_s == sorted(at_s)


def test_a_closed_loop_asks_when_the_answer_before_is_there() -> None:
    chosen = scenario(arrivals=ClosedLoop(ramp_s=0.1), duration_s=60.0)
    service = Service(at_once)
    result = run(chosen, service)
    assert len(result.answers) == NUM_ROWS == plan_of(chosen).num_samples
    # Each of 20 devices has one request under way at a time.
    assert service.most_open <= 20
    by_device: dict[int, list[AnsweredSample]] = {}
    for each in result.answers:
        by_device.setdefault(each.device, []).append(each)
    for own in by_device.values():
        assert [each.number for each in own] == [0, 1, 2]
        for before, after in pairwise(own):
            assert after.sampled_s == before.answered_s
