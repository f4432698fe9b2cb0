"""The fleet: starts hosts on the cluster, hands them chunks of devices, replaces a host that dies."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.device_host import ChunkResult, HostSpec, HostUsage, RemoteDeviceHost
from hyperfleet.errors import ConfigError, HyperFleetError, ServiceError
from hyperfleet.nn import DeviceModel

# Two, so that a host encodes its next chunk while the last requests of the one before are under way.
CHUNKS_IN_FLIGHT = 2
# About 0.5 GB a host: more of them than this need `hosts` set on purpose.
MAX_DEFAULT_HOSTS = 16
# A chunk whose host dies so often kills hosts; it would do so for ever.
MAX_TRIES_PER_CHUNK = 3

Chunk = tuple[int, ...]
_Ref = ray.ObjectRef[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetProgress:
    """How far a run is; `fallbacks` of the `requests_done` were answered without a generated head."""

    devices_done: int
    devices_total: int
    requests_done: int
    fallbacks: int
    host_deaths: int


@dataclass(kw_only=True, eq=False)
class _Host:
    """A host as the driver sees it: the actor, its process, and the chunks it works on."""

    actor: Any
    pid: int = 0
    in_flight: dict[_Ref, Chunk] = field(default_factory=dict)


class Fleet:
    """Hosts of devices on the Ray cluster this process is connected to; use it in `with`.

    Args:
        spec: what every host is told.
        personal: device part of the personalized model, sent to each host.
        static: the Fine-tuning model, sent to each host.
        num_hosts: processes; None means one a CPU of the cluster, at most `MAX_DEFAULT_HOSTS`.

    Raises:
        ConfigError: less than one host.
        ServiceError: on entering, when hosts die while they start.
    """

    def __init__(
        self, spec: HostSpec, *, personal: DeviceModel, static: DeviceModel, num_hosts: int | None = None
    ) -> None:
        if num_hosts is not None and num_hosts < 1:
            raise ConfigError(f"a fleet needs at least 1 host, got {num_hosts}; None means one a CPU")
        self._spec = spec
        self._models = personal, static
        self._num_hosts = num_hosts or default_num_hosts()
        self._hosts: list[_Host] = []
        self.host_deaths = 0

    def __enter__(self) -> Self:
        # Through the object store once, so that a node without the files has the models as well.
        self._model_refs = [ray.put(model) for model in self._models]
        try:
            started = [self._launch() for _ in range(self._num_hosts)]
            for actor, ready in started:
                self._hosts.append(self._await_start(actor, ready))
        except BaseException:
            self._kill_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill_all()

    @property
    def host_pids(self) -> tuple[int, ...]:
        """Process ids of the hosts that are alive."""
        return tuple(host.pid for host in self._hosts)

    def run(
        self, chunks: Sequence[Chunk], on_progress: Callable[[FleetProgress], None] | None = None
    ) -> list[ChunkResult]:
        """Run every chunk on some host and return the results, in the order of `chunks`.

        A result counts when it has arrived whole. The chunks of a host that dies go to the others and to
        its successor, so no device is lost, and what the dead host had not delivered counts nowhere.

        Raises:
            ServiceError: hosts die again and again, so that it cannot be chance.
            HyperFleetError: whatever a host refuses, e.g. a damaged data set.
        """
        waiting = deque(chunks)
        tries: Counter[Chunk] = Counter()
        results: dict[Chunk, ChunkResult] = {}
        while waiting or any(host.in_flight for host in self._hosts):
            self._hand_out(waiting, tries)
            in_flight = {ref: host for host in self._hosts for ref in host.in_flight}
            ready, _ = ray.wait(list(in_flight), num_returns=1)
            host = in_flight[ready[0]]
            try:
                result: ChunkResult = _get(ready[0])
            except RayActorError as death:
                waiting.extendleft(self._replace(host, death, tries))
                continue
            results[host.in_flight.pop(ready[0])] = result
            if on_progress is not None:
                on_progress(self._progress(chunks, results))
        return [results[chunk] for chunk in chunks]

    def stop(self) -> list[HostUsage]:
        """Stop the hosts and return what each used; a host that cannot tell is left out."""
        usage = []
        for ref in [host.actor.stop.remote() for host in self._hosts]:
            try:
                usage.append(_get(ref))
            except RayActorError:
                self.host_deaths += 1
        self._kill_all()
        return usage

    def _hand_out(self, waiting: deque[Chunk], tries: Counter[Chunk]) -> None:
        # The least loaded host first: with few chunks left they go to different hosts.
        while waiting:
            host = min(self._hosts, key=lambda host: len(host.in_flight))
            if len(host.in_flight) >= CHUNKS_IN_FLIGHT:
                return
            chunk = waiting.popleft()
            tries[chunk] += 1
            host.in_flight[host.actor.run_chunk.remote(chunk)] = chunk

    def _replace(self, host: _Host, death: RayActorError, tries: Counter[Chunk]) -> list[Chunk]:
        """Put a new host in the place of a dead one and return the chunks that are to be done again."""
        self.host_deaths += 1
        unfinished = list(host.in_flight.values())
        worst = max(unfinished, key=lambda chunk: tries[chunk])
        if tries[worst] >= MAX_TRIES_PER_CHUNK:
            raise ServiceError(
                f"{tries[worst]} hosts died while they ran devices {worst[0]} to {worst[-1]}: {_why(death)}; "
                "look for a lack of memory (fewer hosts, smaller batch_size) or run these devices alone"
            ) from death
        # One that is unreachable but alive must not go on asking for heads.
        ray.kill(host.actor)
        self._hosts[self._hosts.index(host)] = self._await_start(*self._launch())
        return unfinished

    def _launch(self) -> tuple[Any, _Ref]:
        actor = RemoteDeviceHost.remote(self._spec, *self._model_refs)
        return actor, actor.start.remote()

    def _await_start(self, actor: Any, ready: _Ref) -> _Host:
        for _ in range(MAX_TRIES_PER_CHUNK):
            try:
                return _Host(actor=actor, pid=_get(ready))
            except RayActorError as error:
                self.host_deaths += 1
                death = error
                actor, ready = self._launch()
        ray.kill(actor)
        raise ServiceError(
            f"{MAX_TRIES_PER_CHUNK} hosts died while they started: {_why(death)}; "
            "look for a lack of memory or a data set that this node cannot open"
        ) from death

    def _progress(self, chunks: Sequence[Chunk], results: dict[Chunk, ChunkResult]) -> FleetProgress:
        return FleetProgress(
            devices_done=sum(map(len, results)),
            devices_total=sum(map(len, chunks)),
            requests_done=sum(result.events.num_rows for result in results.values()),
            fallbacks=sum(result.num_fallbacks for result in results.values()),
            host_deaths=self.host_deaths,
        )

    def _kill_all(self) -> None:
        for host in self._hosts:
            ray.kill(host.actor)
        self._hosts = []


def default_num_hosts() -> int:
    """Return one host a CPU of the cluster, at most `MAX_DEFAULT_HOSTS`."""
    num_cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    return max(1, min(num_cpus, MAX_DEFAULT_HOSTS))


def _get(ref: _Ref) -> Any:
    try:
        return ray.get(ref)
    except RayTaskError as error:
        # Ray's error holds the trace of the other process; ours says what to do.
        if isinstance(error.cause, HyperFleetError):
            raise error.cause from error
        raise


def _why(death: RayActorError) -> str:
    return str(death).strip().replace("\n", " ")[:300]
