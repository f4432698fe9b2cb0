"""A fleet run: windows of a scenario's timeline, answered on any process, written to the log in order.

`run_serial` does all of it in this process, without Ray: it is the reference for every other way.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.emulation.answer_book import AnswerBook
from hyperfleet.emulation.answering import answer_pairs
from hyperfleet.emulation.feature_table import FeatureTable
from hyperfleet.emulation.real_time import FreshAnswers
from hyperfleet.emulation.run_log import RunLog
from hyperfleet.emulation.timeline.disturbances import Disturbances
from hyperfleet.emulation.timeline.engine import AnsweredSample, EventRow, Timeline, Window, Work
from hyperfleet.emulation.timeline.plan import Plan
from hyperfleet.emulation.timeline.rows import ANSWER_SCHEMA, answers_table, events_table
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.policies import OnDrift

# Answers per part of the log, and pairs per job of a host. A log is the same on any number of hosts only with
# the same numbers, so neither is a setting.
ANSWERS_PER_WINDOW = 8_192
PAIRS_PER_JOB = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Samples to answer, each with the row that its head is made from."""

    window: int
    row: np.ndarray
    head_row: np.ndarray


@dataclass(kw_only=True, eq=False)
class _Open:
    # A window whose answers are awaited.
    number: int
    window: Window
    num_awaited: int


class FleetRun:
    """One run of a scenario: hands out samples, takes their answers back in the same order, writes the log.

    Args:
        scenario: the scenario to run.
        plan: its devices and samples.
        windows: its timeline in windows, in virtual time or as measured.
        table: features of the data set's samples.
        log: log to write; windows that are in it already are not computed again.
        fresh: answers known already, from a run in real time.

    Attributes:
        on_written: called with the answers of each window that is written.
    """

    def __init__(
        self,
        scenario: Scenario,
        plan: Plan,
        windows: Iterable[Window],
        table: FeatureTable,
        log: RunLog,
        fresh: FreshAnswers | None = None,
    ) -> None:
        self._windows = windows
        self._log = log
        self.on_written: Callable[[pa.Table], None] | None = None
        self._book = AnswerBook(table)
        if fresh is not None:
            self._book.ask(fresh.row, fresh.row)
            self._book.learn(fresh.row, fresh.row, fresh.answer, fresh.score)
        self._tables = LogTables(scenario, plan, table)
        self._open: deque[_Open] = deque()

    def pairs(self, kill_host: Callable[[float], object] | None = None) -> Iterator[Pairs]:
        """Yield the samples to answer; `kill_host` is called with the time at which a host is to die."""
        num_written = self._log.num_parts()
        for number, window in enumerate(self._windows):
            if number < num_written:
                continue
            for at_s in window.host_kills:
                if kill_host is not None:
                    kill_host(at_s)
            row, head_row = self._book.ask(_column(window, "row"), _column(window, "head_row"))
            starts = range(0, len(row), PAIRS_PER_JOB)
            self._open.append(_Open(number=number, window=window, num_awaited=len(starts)))
            self._write_finished()
            for start in starts:
                part = slice(start, start + PAIRS_PER_JOB)
                yield Pairs(window=number, row=row[part], head_row=head_row[part])

    def answered(self, pairs: Pairs, answer: np.ndarray, score: np.ndarray) -> None:
        """Take answers, in the order in which `pairs` yielded.

        Raises:
            DataError: the log cannot be written.
        """
        self._book.learn(pairs.row, pairs.head_row, answer, score)
        next(each for each in self._open if each.number == pairs.window).num_awaited -= 1
        self._write_finished()

    def _write_finished(self) -> None:
        while self._open and self._open[0].num_awaited == 0:
            done = self._open.popleft()
            rows = _column(done.window, "row"), _column(done.window, "head_row")
            answers = self._tables.answers(done.window.answers, *self._book.look_up(*rows))
            self._log.write(done.number, self._tables.events(done.window.events), answers)
            if self.on_written is not None:
                self.on_written(answers)


def virtual_windows(
    scenario: Scenario,
    plan: Plan,
    work: Work,
    table: FeatureTable,
    answers_per_window: int = ANSWERS_PER_WINDOW,
) -> Iterator[Window]:
    """Run the timeline of a scenario in virtual time."""
    anchor = table.anchor if isinstance(scenario.policy, OnDrift) else None
    return Timeline(scenario, plan, work, anchor=anchor).windows(answers_per_window)


def run_serial(run: FleetRun, generator: ParameterGenerator, codec: str, table: FeatureTable) -> None:
    """Compute a run in this process, without Ray: the oracle of every other way."""
    for pairs in run.pairs():
        run.answered(pairs, *answer_pairs(generator, table, pairs.row, pairs.head_row, codec))


def _column(window: Window, name: str) -> np.ndarray:
    place = AnsweredSample._fields.index(name)
    return np.array([sample[place] for sample in window.answers], dtype=np.int64)


class LogTables:
    """Converts rows of a timeline to tables of a log: positions to ids, numbers to names."""

    def __init__(self, scenario: Scenario, plan: Plan, table: FeatureTable) -> None:
        self._plan = plan
        self._table = table
        self._networks = np.array(scenario.networks, dtype=object)
        self._profiles = np.array([profile.name for profile in scenario.profiles], dtype=object)
        skew = Disturbances(scenario).skew_s
        self._skew_s = np.array([skew(device) for device in range(len(plan.device_id))])
        # Position -1, all devices, finds -1 at the end.
        self._device_id = np.append(plan.device_id, -1)

    def events(self, events: list[EventRow]) -> pa.Table:
        """Return events as a table of `rows.EVENT_SCHEMA`."""
        table = events_table(events)
        device_id = self._device_id[table["device_id"].to_numpy()]
        place = table.schema.get_field_index("device_id")
        return table.set_column(place, table.schema.field(place), pa.array(device_id))

    def answers(self, samples: list[AnsweredSample], answer: np.ndarray, score: np.ndarray) -> pa.Table:
        """Return answered samples as a table of `rows.ANSWER_SCHEMA`."""
        if not samples:
            return ANSWER_SCHEMA.empty_table()
        columns = dict(zip(AnsweredSample._fields, zip(*samples, strict=True), strict=True))
        device = np.array(columns["device"], dtype=np.int64)
        row = np.array(columns["row"], dtype=np.int64)
        answered_s = np.array(columns["answered_s"])
        return answers_table(
            {
                **columns,
                "device_id": self._plan.device_id[device],
                "sample": columns["number"],
                "example_id": self._table.example_id[row],
                "network": self._networks[self._plan.network[device]].tolist(),
                "profile": self._profiles[self._plan.profile[device]].tolist(),
                "device_clock_s": answered_s + self._skew_s[device],
                "base_answer": self._table.base_answer[row],
                "static_answer": self._table.static_answer[row],
                "answer": answer,
                "score": score,
            }
        )
