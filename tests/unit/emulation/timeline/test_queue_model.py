import heapq
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from hyperfleet.emulation.timeline.device_state import Request
from hyperfleet.emulation.timeline.queue_model import Handler, QueueModel
from hyperfleet.scenario.cloud_model import CloudModel
from tests.worlds.made_up_device import device

# What came of a request: (what, when, which, its try, seconds).
Outcome = tuple[str, float, int, int, float]


@dataclass(frozen=True)
class Action:
    """Something that happens from outside: a request comes, is given up, or a replica dies."""

    at_s: float
    what: str
    number: int


@dataclass
class Loop:
    """The model under test, driven by a heap."""

    model: CloudModel
    outcomes: list[Outcome] = field(default_factory=list)
    heap: list[tuple[float, int, Handler, object, int]] = field(default_factory=list)
    order: itertools.count = field(default_factory=itertools.count)

    def schedule(self, at_s: float, handler: Handler, argument: object, number: int) -> None:
        heapq.heappush(self.heap, (at_s, next(self.order), handler, argument, number))

    def generated(self, now_s: float, request: Request, attempt: int, service_s: float) -> None:
        self.outcomes.append(("generated", now_s, request.number, attempt, service_s))

    def lost(self, now_s: float, request: Request, attempt: int) -> None:
        self.outcomes.append(("lost", now_s, request.number, attempt, 0.0))

    def run(self, actions: list[Action], limits: list[float], restart_s: float) -> list[Outcome]:
        queue = QueueModel(self.model, self.schedule, self.generated, self.lost)
        requests = [Request(0, device(), number, 0, 0.0) for number in range(len(limits))]

        def act(now_s: float, action: Action, _: int) -> None:
            if action.what == "kill":
                queue.kill_replica(now_s, restart_s)
                return
            request = requests[action.number]
            request.attempt += 1
            request.limit_s = limits[action.number]
            if action.what == "submit":
                refused_s = queue.submit(now_s, request)
                if refused_s is not None:
                    self.outcomes.append(("refused", now_s, action.number, request.attempt, refused_s))

        for action in actions:
            self.schedule(action.at_s, act, action, 0)
        while self.heap:
            now_s, _, handler, argument, number = heapq.heappop(self.heap)
            handler(now_s, argument, number)
        return self.outcomes


@dataclass
class Replica:
    state: str = "free"
    until_s: float = float("inf")
    started_s: float = -1.0
    batch: list[tuple[int, int]] = field(default_factory=list)


def naive(model: CloudModel, actions: list[Action], limits: list[float], restart_s: float) -> list[Outcome]:
    """The same, replica by replica and moment by moment, without any heap or numbers of free ones."""
    replicas = [Replica() for _ in range(model.replicas)]
    outcomes: list[Outcome] = []
    waiting: list[tuple[int, int]] = []
    tries = [0] * len(limits)
    left = sorted(actions, key=lambda action: action.at_s)
    while left or any(replica.state != "free" for replica in replicas):
        now_s = min([each.until_s for each in replicas] + [action.at_s for action in left[:1]])
        for replica in replicas:
            if replica.until_s == now_s:
                if replica.state == "busy":
                    service_s = model.batch_s + len(replica.batch) * model.head_s
                    outcomes += [("generated", now_s, *entry, service_s) for entry in replica.batch]
                replica.state, replica.until_s, replica.batch = "free", float("inf"), []
        if left and left[0].at_s == now_s:
            action = left.pop(0)
            if action.what == "kill":
                alive = [each for each in replicas if each.state != "down"]
                busy = [each for each in alive if each.state == "busy"]
                if alive:
                    victim = max(busy, key=lambda each: each.started_s) if busy else alive[0]
                    outcomes += [("lost", now_s, *entry, 0.0) for entry in victim.batch]
                    victim.state, victim.until_s, victim.batch = "down", now_s + restart_s, []
            else:
                tries[action.number] += 1
                if action.what == "submit" and len(waiting) < model.max_waiting:
                    waiting.append((action.number, tries[action.number]))
                elif action.what == "submit":
                    full_s = model.batch_s + model.max_batch * model.head_s
                    wait_s = len(waiting) / (model.replicas * model.max_batch / full_s)
                    outcomes.append(("refused", now_s, action.number, tries[action.number], wait_s))
        for replica in replicas:
            if replica.state != "free":
                continue
            while waiting and len(replica.batch) < model.max_batch:
                number, attempt = waiting.pop(0)
                if tries[number] == attempt and now_s < limits[number]:
                    replica.batch.append((number, attempt))
            if replica.batch:
                replica.state, replica.started_s = "busy", now_s
                replica.until_s = now_s + model.batch_s + len(replica.batch) * model.head_s
    return outcomes


# Times are whole seconds and 1/1024 times the number of the action: exact in binary, and no two things that
# do not follow from each other happen at one time.
TICK_S = 1 / 1024

MODELS = st.builds(
    CloudModel,
    replicas=st.integers(1, 3),
    max_batch=st.integers(1, 4),
    batch_s=st.integers(0, 3).map(float),
    head_s=st.integers(1, 2).map(float),
    max_waiting=st.integers(1, 6),
)
WHATS = st.sampled_from(["submit"] * 6 + ["give up", "kill"])


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Action], list[float]]:
    drawn = draw(st.lists(st.tuples(st.integers(0, 25), WHATS, st.integers(0, 11)), min_size=1, max_size=40))
    actions = [
        Action(second + (index + 1) * TICK_S, what, number)
        for index, (second, what, number) in enumerate(sorted(drawn, key=lambda each: each[0]))
    ]
    limits = draw(st.lists(st.integers(1, 60), min_size=12, max_size=12))
    return actions, [float(limit) for limit in limits]


@pytest.mark.heavy
@settings(max_examples=500, deadline=None)
@given(model=MODELS, story=stories(), restart_s=st.integers(1, 9).map(float))
def test_it_does_what_replicas_with_one_queue_do(
    model: CloudModel, story: tuple[list[Action], list[float]], restart_s: float
) -> None:
    actions, limits = story
    outcomes = Loop(model).run(actions, limits, restart_s)
    expected = naive(model, actions, limits, restart_s)
    assert outcomes == [(*each[:4], pytest.approx(each[4])) for each in expected]
    for kind in sorted({outcome[0] for outcome in outcomes}):
        event(kind)
    # Nobody gets two answers to one request.
    keys = [outcome[2:4] for outcome in outcomes]
    assert len(set(keys)) == len(keys)


def submissions(*at_s: float) -> list[Action]:
    return [Action(each, "submit", number) for number, each in enumerate(at_s)]


def test_a_free_replica_takes_what_is_there_and_the_next_batch_is_full() -> None:
    model = CloudModel(replicas=1, max_batch=3, batch_s=1.0, head_s=0.5)
    outcomes = Loop(model).run(submissions(0.0, 0.1, 0.2, 0.3, 0.4), [99.0] * 5, 1.0)
    assert [(outcome[1], outcome[2]) for outcome in outcomes] == [
        (1.5, 0),
        (4.0, 1),
        (4.0, 2),
        (4.0, 3),
        (5.5, 4),
    ]


def test_a_killed_replica_is_away_and_the_others_go_on() -> None:
    model = CloudModel(replicas=2, max_batch=1, batch_s=1.0, head_s=1.0)
    actions = [*submissions(0.0, 0.1, 0.2), Action(0.5, "kill", 0)]
    outcomes = Loop(model).run(actions, [99.0] * 3, 10.0)
    # The one that started last dies; the request that waits goes to the other.
    assert [outcome[:3] for outcome in outcomes] == [
        ("lost", 0.5, 1),
        ("generated", 2.0, 0),
        ("generated", 4.0, 2),
    ]


def test_an_idle_replica_can_die_and_more_than_all_cannot() -> None:
    model = CloudModel(replicas=1, max_batch=1, batch_s=1.0, head_s=1.0)
    kills = [Action(0.1, "kill", 0), Action(0.2, "kill", 0), Action(0.3, "kill", 0)]
    outcomes = Loop(model).run([*kills, Action(1.0, "submit", 0)], [99.0], 5.0)
    assert outcomes == [("generated", 7.1, 0, 1, 2.0)]


def test_a_full_queue_says_how_long_it_is() -> None:
    model = CloudModel(replicas=2, max_batch=4, batch_s=1.0, head_s=1.0, max_waiting=3)
    outcomes = Loop(model).run(submissions(0.0, 0.1, 0.2, 0.3, 0.4, 0.5), [99.0] * 6, 1.0)
    # Two replicas make 8 heads in 5 seconds; 3 wait.
    assert [each for each in outcomes if each[0] == "refused"] == [
        ("refused", 0.5, 5, 1, pytest.approx(15 / 8))
    ]
