"""Process that plays devices: it encodes samples, applies heads, and queries the service in real time."""

import asyncio
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import ray
import torch
from jaxtyping import Int64

from hyperfleet.client import AsyncHttpClient, RetryPolicy
from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.cloud.shared_generator import SharedGenerator
from hyperfleet.device import DeviceGroup
from hyperfleet.emulation.answering import Answers, answer_pairs, wants_head_batches
from hyperfleet.emulation.feature_table import (
    FeaturePart,
    FeatureTable,
    encode_rows,
    live_samples,
)
from hyperfleet.emulation.live_data import LiveData
from hyperfleet.emulation.real_time import RealTimeRun, run_in_real_time
from hyperfleet.emulation.timeline.plan import Plan
from hyperfleet.emulation.timeline.records import Work
from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs import BaseHead
from hyperfleet.head_codecs.frame import KEEP_MEMORY
from hyperfleet.nn import DeviceModel
from hyperfleet.planning.bursts import Bursts, measure_bursts
from hyperfleet.scenario.definition import Scenario

# A device has one connection; a host and the service can hold a thousand at once.
MAX_CONNECTIONS = 1000
# Emulated devices share one client but no circuit breaker: none stops asking because others wait.
NO_CIRCUIT = 1_000_000_000
# Methods of this Ray concurrency group run while the host plays devices.
CONTROL = "control"


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSpec:
    """Settings of every host of a fleet.

    Attributes:
        open_data: opens the data set on the host's own machine.
        seed: draws the anchor frames.
        heads_at_once: heads in the memory of a host, see `answer_pairs`.
        torch_threads: threads that encode and generate; full heads in fp32 are always made by one.
    """

    open_data: Callable[[], LiveData]
    seed: int
    heads_at_once: int = 64
    torch_threads: int = 1

    def __post_init__(self) -> None:
        for name in ("heads_at_once", "torch_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"HostSpec.{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Service:
    """Generator service that the devices of a run query.

    Attributes:
        url: its URL.
        task: task of the served model.
        model: name of the served model.
        codec: codec of the heads, a name in `hyperfleet.head_codecs.CODECS`.
        base: the devices' own static head.
        retry: policy of the scenario; a request carries the deadline of its try.
        token: bearer token of the fleet.
    """

    url: str
    task: str
    model: str
    codec: str
    base: BaseHead
    retry: RetryPolicy
    token: str | None = field(default=None, repr=False)

    def client(self) -> AsyncHttpClient:
        """Return a client that tries once: the timeline of a run decides on retries."""
        return AsyncHttpClient(
            url=self.url,
            layout=self.base.layout,
            task=self.task,
            model=self.model,
            codec=self.codec,
            base=self.base,
            token=self.token,
            max_connections=MAX_CONNECTIONS,
            retry=replace(self.retry, max_tries=1, max_hangs=NO_CIRCUIT),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Share:
    """Some devices of a run in real time.

    Attributes:
        scenario: scenario of the run.
        plan: the devices and their samples.
        work: cost of a sample on a device.
        begin_at_s: time of day at which all shares begin.
        leads: whether this share logs the faults and kills replicas.
        kill_replica: kills a replica of the service.
    """

    scenario: Scenario
    plan: Plan
    work: Work
    begin_at_s: float
    leads: bool
    kill_replica: Callable[[], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class HostUsage:
    """CPU time and largest resident size of a host's process since it started."""

    cpu_s: float
    peak_rss_bytes: int


class DeviceHost:
    """Computes for devices; a plain class that `RemoteDeviceHost` makes a Ray actor.

    Models and generator come through the object store, where all hosts of a machine read one copy, and are
    opened when they are first used.

    Args:
        spec: the same for every host.
        models: device part of the personalized model and the Fine-tuning model; only `encode` needs them.
        generator: makes the heads; only `answer` needs it.
    """

    def __init__(
        self,
        spec: HostSpec,
        *,
        models: tuple[DeviceModel, DeviceModel] | None = None,
        generator: SharedGenerator | None = None,
    ) -> None:
        self._spec = spec
        self._models = models
        self._shared = generator
        self._progress = 0.0, 0
        self._interrupted = threading.Event()

    def start(self) -> int:
        """Return the process id; called once, before anything else."""
        torch.set_num_threads(self._spec.torch_threads)
        return os.getpid()

    @cached_property
    def _generator(self) -> ParameterGenerator:
        assert self._shared is not None, "a host without a generator makes no heads"
        return self._shared.open(num_threads=self._spec.torch_threads)

    @cached_property
    def _data(self) -> LiveData:
        return self._spec.open_data()

    @cached_property
    def _samples(self) -> Any:
        return live_samples(self._data)

    @cached_property
    def _group(self) -> DeviceGroup:
        assert self._models is not None, "a host without models encodes nothing"
        personal, static = self._models
        return DeviceGroup(personal=personal, static=static, store=self._data.store, seed=self._spec.seed)

    def encode(self, rows: Int64[np.ndarray, " row"]) -> FeaturePart:
        """Encode one batch of `hyperfleet.emulation.feature_table.encoding_batches`.

        Raises:
            DataError: the data set cannot be opened on this machine.
            CheckpointError: the two models do not answer the same questions.
        """
        return encode_rows(self._group, self._samples, rows)

    def answer(
        self,
        sample: Int64[np.ndarray, " pair"],
        head_of: Int64[np.ndarray, " pair"],
        codec: str,
        table: FeatureTable,
    ) -> Answers:
        """Answer samples with heads made from other samples; see `answer_pairs`.

        Raises:
            ConfigError: `codec` cannot carry heads of this generator.
            DataError: the table has no such row.
        """
        if wants_head_batches(self._generator, codec):
            # Only here is it worth its memory, a second copy of the last layer.
            self._generator.pack()
        return answer_pairs(self._generator, table, sample, head_of, codec, self._spec.heads_at_once)

    def measure_bursts(self, service: Service, table: FeatureTable) -> Bursts:
        """Measure how long the idle service takes for some heads at once."""

        async def measure() -> Bursts:
            async with service.client() as client:
                return await measure_bursts(client, table)

        return asyncio.run(measure())

    def play(self, share: Share, service: Service, table: FeatureTable) -> RealTimeRun:
        """Play devices in real time against the service; errors that end it early are in the result."""

        async def run() -> RealTimeRun:
            async with service.client() as client:
                return await run_in_real_time(
                    share.scenario,
                    share.plan,
                    share.work,
                    table,
                    client,
                    begin_at_s=share.begin_at_s,
                    leads=share.leads,
                    kill_replica=share.kill_replica,
                    on_progress=self._note,
                    interrupted=self._interrupted,
                )

        return asyncio.run(run())

    def _note(self, now_s: float, num_answers: int) -> None:
        self._progress = now_s, num_answers

    def progress(self) -> tuple[float, int]:
        """Return the seconds that `play` has run and the samples it has answered; of group `CONTROL`."""
        return self._progress

    def interrupt(self) -> None:
        """Let `play` end soon with what it has measured; of group `CONTROL`."""
        self._interrupted.set()

    def usage(self) -> HostUsage:
        """Return the resources that the process has used since it started."""
        # Linux counts in KiB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return HostUsage(cpu_s=time.process_time(), peak_rss_bytes=peak)


# num_cpus=0: real-time runs have the generator's replicas beside them, whose CPUs must be free.
RemoteDeviceHost: Any = ray.remote(  # type: ignore[call-overload]  # Ray's types lack concurrency_groups
    num_cpus=0,
    scheduling_strategy="SPREAD",
    runtime_env={"env_vars": dict(KEEP_MEMORY)},
    concurrency_groups={CONTROL: 1},
)(DeviceHost)
