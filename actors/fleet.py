"""The fleet: hosts on the cluster that work off chunks of devices, whichever of them dies meanwhile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import ray

from actors.device_host import ChunkResult, HostSpec, HostUsage, RemoteDeviceHost
from actors.meters import FleetMeter
from actors.placement import num_places, placed
from actors.supervised_pool import Job, SupervisedPool
from hyperfleet.nn import DeviceModel

# About 0.5 GB a host: more of them than this need `hosts` set on purpose.
MAX_DEFAULT_HOSTS = 16

Chunk = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetProgress:
    """How far a run is; `fallbacks` of the `requests_done` were answered without a generated head."""

    devices_done: int
    devices_total: int
    requests_done: int
    fallbacks: int
    host_deaths: int


class Fleet:
    """Hosts of devices on the Ray cluster this process is connected to; use it in `with`.

    Args:
        spec: what every host is told.
        personal: device part of the personalized model, sent to each host.
        static: the Fine-tuning model, sent to each host.
        num_hosts: processes; None means one for each place of the cluster, at most `MAX_DEFAULT_HOSTS`.

    Raises:
        ConfigError: less than one host.
        ServiceError: on entering, when hosts die while they start.
    """

    def __init__(
        self, spec: HostSpec, *, personal: DeviceModel, static: DeviceModel, num_hosts: int | None = None
    ) -> None:
        if num_hosts is None:
            num_hosts = min(num_places("device_host"), MAX_DEFAULT_HOSTS)
        # Through the object store once, so that a node without the files has the models as well.
        models = ray.put(personal), ray.put(static)
        host = RemoteDeviceHost.options(resources=placed("device_host"))
        self._pool = SupervisedPool(lambda: host.remote(spec, *models), num_hosts)

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    @property
    def host_pids(self) -> tuple[int, ...]:
        """Process ids of the hosts that are alive."""
        return self._pool.host_pids

    @property
    def host_deaths(self) -> int:
        """Hosts that died and were replaced."""
        return len(self._pool.deaths)

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
        results: list[ChunkResult] = []
        devices_total = sum(map(len, chunks))
        devices_done = requests_done = fallbacks = 0
        meter = FleetMeter(ray.get_runtime_context().get_job_id())

        def take(job: Job, result: ChunkResult) -> None:
            nonlocal devices_done, requests_done, fallbacks
            results.append(result)
            num_answers = result.events.num_rows
            devices_done += len(job.args[0])
            requests_done += num_answers
            fallbacks += result.num_fallbacks
            meter.answered(
                samples=num_answers,
                requests=num_answers,
                fallbacks=result.num_fallbacks,
                deaths=self.host_deaths,
            )
            if on_progress is not None:
                on_progress(
                    FleetProgress(
                        devices_done=devices_done,
                        devices_total=devices_total,
                        requests_done=requests_done,
                        fallbacks=fallbacks,
                        host_deaths=self.host_deaths,
                    )
                )

        self._pool.run((Job(key=chunk, method="run_chunk", args=(chunk,)) for chunk in chunks), take)
        return results

    def stop(self) -> list[HostUsage]:
        """Close the hosts' connections and return what each used; a host that cannot tell is left out."""
        return self._pool.ask_all("stop")
