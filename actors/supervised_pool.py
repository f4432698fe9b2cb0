"""Pool of Ray actors that executes jobs, delivers results in job order and replaces dead hosts."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from actors.job_window import MAX_DEATHS, JobWindow, why
from actors.job_window import Job as Job
from actors.placement import is_outside, resources_line
from hyperfleet.errors import ConfigError, HyperFleetError, ServiceError

# Two, so that the next job is already at the host when one ends.
JOBS_IN_FLIGHT = 2
# Jobs per host that are taken and not delivered: limits the results kept in memory, and the progress of other
# hosts, while a slow or repeated job holds up the results behind it.
WINDOW_PER_HOST = 8

# Long enough for a cloud to start and set up a node.
START_TIMEOUT_S = 900.0
# How long started hosts wait for another one before they begin; later ones join them.
JOIN_TIMEOUT_S = 30.0

_Ref = ray.ObjectRef[Any]
# Death of a process, or of the node with its results.
_DEATHS = (RayActorError, ObjectLostError)


@dataclass(frozen=True, kw_only=True, slots=True)
class HostDeath:
    """A host that died.

    Attributes:
        at_s: time of detection, seconds since the pool had started.
        pid: process id; 0 if it died before it had started.
        num_jobs_redone: unfinished jobs, which other hosts repeated.
        recovery_s: seconds from `at_s` until the first of these jobs was done; 0 if there were none, None as
            long as none is done.
    """

    at_s: float
    pid: int
    num_jobs_redone: int
    recovery_s: float | None


@dataclass(kw_only=True, eq=False)
class _Host:
    """Driver's view of a host; `starting` is None once it has started, `in_flight` is in order of time."""

    actor: Any
    starting: _Ref | None
    place: _Ref
    node: str = ""
    pid: int = 0
    in_flight: dict[_Ref, int] = field(default_factory=dict)
    was_killed: bool = False


class SupervisedPool:
    """Hosts on the connected Ray cluster; a context manager.

    Jobs must be pure apart from the state that `start` and the constructor set up: a job may run twice,
    although its result is delivered once.

    Args:
        make_actor: starts a host and returns its handle; called again for every host that dies.
        num_hosts: number of processes.
        start: method that prepares a host, called once before any job.
        start_timeout_s: longest wait for the first host.

    Raises:
        ConfigError: less than one host.
        ServiceError: on entering, if hosts die while starting, or the cluster has no room for one.
        HyperFleetError: on entering, an error of `start`.
    """

    def __init__(
        self,
        make_actor: Callable[[], Any],
        num_hosts: int,
        start: str = "start",
        *,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        if num_hosts < 1:
            raise ConfigError(f"SupervisedPool.num_hosts must be >= 1, got {num_hosts}")
        self._make_actor = make_actor
        self._num_hosts = num_hosts
        self._start = start
        self._start_timeout_s = start_timeout_s
        self._hosts: list[_Host] = []
        self._failed_starts = 0
        self._redone: dict[int, set[int]] = {}
        self._started_s = time.perf_counter()
        self.deaths: list[HostDeath] = []

    def __enter__(self) -> Self:
        self._node = ray.get_runtime_context().get_node_id()
        try:
            self._hosts = [self._launch() for _ in range(self._num_hosts)]
            while starting := {host.starting: host for host in self._hosts if host.starting is not None}:
                ready = self._wait(list(starting))
                if ready is None:
                    # The started hosts do the work; others join when there is room.
                    break
                host = starting[ready]
                try:
                    self._has_started(host)
                except _DEATHS as death:
                    self._replace(host, death)
        except BaseException:
            self._kill_all()
            raise
        self._started_s = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill_all()

    @property
    def host_pids(self) -> tuple[int, ...]:
        """Process ids of the hosts that have started."""
        return tuple(host.pid for host in self._hosts if host.starting is None)

    @property
    def host_nodes(self) -> tuple[str, ...]:
        """Ray nodes of the hosts that have started."""
        return tuple(host.node for host in self._hosts if host.starting is None)

    def run(self, jobs: Iterable[Job], on_result: Callable[[Job, Any], None]) -> None:
        """Execute all jobs and pass each result to `on_result` once, in the order of `jobs`.

        `jobs` is read as hosts become free, at most `WINDOW_PER_HOST` jobs per host ahead of the results.

        Raises:
            ServiceError: a job kills host after host, or no host can start any more.
            HyperFleetError: an error of a job.
        """
        run = JobWindow(jobs, on_result, num_held=WINDOW_PER_HOST * self._num_hosts)
        try:
            self._hand_out(run)
            # Jobs may remain while none is in flight: all hosts may be starting.
            while not run.is_over:
                waiting = {ref: host for host in self._hosts for ref in host.in_flight}
                waiting |= {host.starting: host for host in self._hosts if host.starting is not None}
                ready = self._wait(list(waiting))
                if ready is not None:
                    self._settle(run, waiting[ready], ready)
                    self._hand_out(run)
        finally:
            self._redone.clear()
            for host in self._hosts:
                host.in_flight.clear()

    def ask_all(self, method: str, group: str | None = None) -> list[Any]:
        """Return what `method` of each host returns, without the hosts that are starting or dead.

        Args:
            method: name of the method.
            group: Ray concurrency group in which it runs beside the host's jobs; None waits for these.
        """
        answers = []
        started = [host for host in self._hosts if host.starting is None]
        options = {"concurrency_group": group} if group is not None else {}
        for ref in [getattr(host.actor, method).options(**options).remote() for host in started]:
            with contextlib.suppress(*_DEATHS):
                answers.append(_get(ref))
        return answers

    def kill_one(self, index: int) -> int:
        """Kill a host without warning, as a fault of the scenario, and return its process id.

        May be called from `on_result` or from another thread. No job is blamed for it.

        Raises:
            ConfigError: no such host.
        """
        if not 0 <= index < len(self._hosts):
            raise ConfigError(f"the pool has hosts 0 to {len(self._hosts) - 1}, got {index}")
        host = self._hosts[index]
        host.was_killed = True
        # Outside the cluster, or on another node, the process id means nothing here.
        if host.pid and host.node == self._node and not is_outside():
            with contextlib.suppress(ProcessLookupError):
                os.kill(host.pid, signal.SIGKILL)
        else:
            ray.kill(host.actor)
        return host.pid

    def _wait(self, refs: list[_Ref]) -> _Ref | None:
        """Return a finished reference, or None after a time-out if a host has started.

        Raises:
            ServiceError: no host has started within the time-out.
        """
        has_host = any(host.starting is None for host in self._hosts)
        timeout_s = min(JOIN_TIMEOUT_S, self._start_timeout_s) if has_host else self._start_timeout_s
        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        if ready:
            return ready[0]
        if not has_host:
            raise ServiceError(
                f"none of {self._num_hosts} hosts has started in {self._start_timeout_s:.0f} s; the cluster "
                f"has {resources_line()}: wait until its nodes are up (`ray status`), or add nodes"
            )
        return None

    def _hand_out(self, run: JobWindow) -> None:
        while free := [host for host in self._hosts if self._is_free(run, host)]:
            # The least loaded host first, so that the last jobs go to different hosts.
            host = min(free, key=lambda host: len(host.in_flight))
            number = run.take(idle=not host.in_flight)
            if number is None:
                return
            job = run.jobs[number]
            host.in_flight[getattr(host.actor, job.method).remote(*job.args)] = number

    def _is_free(self, run: JobWindow, host: _Host) -> bool:
        is_full = len(host.in_flight) >= JOBS_IN_FLIGHT or any(map(run.runs_alone, host.in_flight.values()))
        return host.starting is None and not is_full

    def _settle(self, run: JobWindow, host: _Host, ref: _Ref) -> None:
        try:
            if ref == host.starting:
                self._has_started(host)
                return
            result = _get(ref)
        except _DEATHS as death:
            self._take_what_is_done(run, host)
            unfinished = list(host.in_flight.values())
            run.redo(unfinished)
            self._replace(host, death)
            if not host.was_killed:
                run.blame(unfinished, death)
            return
        self._finish(run, host, ref, result)

    def _take_what_is_done(self, run: JobWindow, host: _Host) -> None:
        """Take the results that a dead host had delivered: these jobs count and are not to blame."""
        refs = list(host.in_flight)
        done = ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else []
        for ref in done:
            try:
                result = _get(ref)
            except _DEATHS:
                continue
            self._finish(run, host, ref, result)

    def _finish(self, run: JobWindow, host: _Host, ref: _Ref, result: Any) -> None:
        number = host.in_flight.pop(ref)
        self._has_recovered(number)
        run.finish(number, result)

    def _replace(self, host: _Host, death: Exception) -> None:
        """Record a death and start a successor without waiting for it."""
        unfinished = set(host.in_flight.values())
        if unfinished:
            self._redone[len(self.deaths)] = unfinished
        self.deaths.append(
            HostDeath(
                at_s=time.perf_counter() - self._started_s,
                pid=host.pid,
                num_jobs_redone=len(unfinished),
                recovery_s=None if unfinished else 0.0,
            )
        )
        if host.starting is not None and not host.was_killed:
            self._failed_starts += 1
            if self._failed_starts >= MAX_DEATHS:
                raise ServiceError(
                    f"{MAX_DEATHS} hosts died while they started: {why(death)}; "
                    "look for a lack of memory or for data that the node cannot open"
                ) from death
        # A host that is unreachable but alive must stop.
        ray.kill(host.actor)
        self._hosts[self._hosts.index(host)] = self._launch()

    def _has_recovered(self, number: int) -> None:
        now_s = time.perf_counter() - self._started_s
        for index in [index for index, numbers in self._redone.items() if number in numbers]:
            del self._redone[index]
            death = self.deaths[index]
            self.deaths[index] = replace(death, recovery_s=now_s - death.at_s)

    def _launch(self) -> _Host:
        actor = self._make_actor()
        return _Host(
            actor=actor,
            starting=getattr(actor, self._start).remote(),
            place=actor.__ray_call__.remote(_place),
        )

    def _has_started(self, host: _Host) -> None:
        if host.starting is not None:
            _get(host.starting)
        host.node, host.pid = _get(host.place)
        host.starting = None
        self._failed_starts = 0

    def _kill_all(self) -> None:
        for host in self._hosts:
            ray.kill(host.actor)
        self._hosts = []


def _place(_: object) -> tuple[str, int]:
    return ray.get_runtime_context().get_node_id(), os.getpid()


def _get(ref: _Ref) -> Any:
    try:
        return ray.get(ref)
    except RayTaskError as error:
        # Ray's error shows the remote trace; ours says what to do.
        if isinstance(error.cause, HyperFleetError):
            raise error.cause from error
        raise
