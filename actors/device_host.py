"""One process that hosts many devices: it encodes in batches and asks for one head a sample, concurrently."""

import asyncio
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import ray
import torch

from hyperfleet.client import AsyncHttpClient, RetryPolicy, served_model
from hyperfleet.device import DeviceGroup, EncodedSamples, QuestionStream, gather_samples
from hyperfleet.device.group import FrameStore
from hyperfleet.emulation.events import Event, events_table
from hyperfleet.emulation.exchange import Networks, ask_and_answer
from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs import DEFAULT_CODEC
from hyperfleet.head_codecs import codec as head_codec
from hyperfleet.head_codecs.memory import KEEP_MEMORY
from hyperfleet.nn import DeviceModel

_log = logging.getLogger(__name__)


@runtime_checkable
class DeviceData(Protocol):
    """The data of the devices, as far as a host may see it: no answer in it."""

    @property
    def store(self) -> FrameStore:
        """Frames of the clips."""
        ...

    def stream(self, device_id: int) -> QuestionStream:
        """Return the private stream of a device."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSpec:
    """What every host of a fleet is told.

    Attributes:
        open_data: opens the data set on the host's own machine.
        generator_url: where the generator listens.
        task: last part of its path.
        seed: root of the draws of anchor frames and networks.
        networks: names of networks that devices are on.
        samples_per_device: questions a device asks at most, the first of its stream; None for all.
        batch_size: samples encoded together.
        max_concurrent_requests: requests one host has under way at a time.
        torch_threads: threads that encode.
        retry: when a device asks again and when it gives up.
        codec: how heads travel, a name of `hyperfleet.head_codecs.CODECS`.
        token: what the generator knows the devices by.
        model: name of the served model; None for the first one of the task.
    """

    open_data: Callable[[], DeviceData]
    generator_url: str
    task: str
    seed: int
    networks: tuple[str, ...]
    samples_per_device: int | None = None
    batch_size: int = 32
    max_concurrent_requests: int = 8
    torch_threads: int = 1
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    codec: str = DEFAULT_CODEC
    token: str | None = field(default=None, repr=False)
    model: str | None = None

    def __post_init__(self) -> None:
        head_codec(self.codec)
        for name in ("batch_size", "max_concurrent_requests", "torch_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"HostSpec.{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ChunkResult:
    """What the devices of a chunk did; a chunk is done or redone as a whole.

    `encode_s` is the time spent encoding, in seconds; requests of other samples go on meanwhile.
    """

    device_ids: tuple[int, ...]
    events: pa.Table
    empty_devices: tuple[int, ...]
    num_fallbacks: int
    encode_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class HostUsage:
    """What a host's process used since it started."""

    cpu_s: float
    peak_rss_bytes: int


class DeviceHost:
    """Hosts devices; a plain class that `RemoteDeviceHost` makes a Ray actor.

    Args:
        spec: the same for every host.
        personal: device part of the personalized model.
        static: the Fine-tuning model.
    """

    def __init__(self, spec: HostSpec, personal: DeviceModel, static: DeviceModel) -> None:
        self._spec = spec
        self._models = personal, static
        self._open = AsyncExitStack()
        self._encoding = asyncio.Lock()
        self._slots = asyncio.Semaphore(spec.max_concurrent_requests)

    async def start(self) -> int:
        """Open data and connections and return the process id; called once, before any chunk.

        Not done by the constructor, whose errors reach the caller of an actor as text only.

        Raises:
            DataError: the data set cannot be opened on this machine.
            ServiceError: the generator cannot be reached from this machine or serves no such model.
            ConfigError: the model cannot be had in this codec, or belongs to another static head.
        """
        spec = self._spec
        torch.set_num_threads(spec.torch_threads)
        # Once here, rather than device after device that falls back to its own head.
        served = await asyncio.to_thread(
            served_model, spec.generator_url, task=spec.task, name=spec.model, token=spec.token
        )
        data = spec.open_data()
        personal, static = self._models
        self._stream = data.stream
        self._group = DeviceGroup(personal=personal, static=static, store=data.store, seed=spec.seed)
        self._networks = Networks(seed=spec.seed, names=spec.networks)
        base = self._group.base
        served.check_codec(spec.codec, base)
        self._client = await self._open.enter_async_context(
            AsyncHttpClient(
                url=spec.generator_url,
                layout=base.layout,
                task=spec.task,
                model=spec.model,
                codec=spec.codec,
                base=base,
                token=spec.token,
                max_connections=spec.max_concurrent_requests,
                retry=spec.retry,
            )
        )
        return os.getpid()

    async def run_chunk(self, device_ids: tuple[int, ...]) -> ChunkResult:
        """Let the devices ask and answer their questions.

        The next batch is encoded, in a thread, while requests of the ones before are under way.
        """
        samples, empty = gather_samples(self._stream, device_ids, self._spec.samples_per_device)
        asking: list[asyncio.Task[Event]] = []
        encode_s = 0.0
        try:
            for batch in samples.batches(self._spec.batch_size) if samples is not None else ():
                async with self._encoding:
                    started = time.perf_counter()
                    encoded = await asyncio.to_thread(self._group.encode, batch)
                    encode_s += time.perf_counter() - started
                asking += [asyncio.create_task(self._ask(encoded, i)) for i in range(len(encoded))]
            events = await asyncio.gather(*asking)
        finally:
            for task in asking:
                task.cancel()  # does nothing to those that are done
        return ChunkResult(
            device_ids=device_ids,
            events=events_table(events),
            empty_devices=empty,
            num_fallbacks=sum(event.report.fallback != "" for event in events),
            encode_s=encode_s,
        )

    async def stop(self) -> HostUsage:
        """Close the connections and tell what the process used."""
        await self._open.aclose()
        # Linux counts in KiB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return HostUsage(cpu_s=time.process_time(), peak_rss_bytes=peak)

    async def _ask(self, encoded: EncodedSamples, i: int) -> Event:
        network = self._networks.of(int(encoded.samples.device_id[i]))
        async with self._slots:
            event = await ask_and_answer(encoded, i, self._client, network)
        report = event.report
        if report.fallback:
            of = {"device_id": report.device_id, "example_id": report.example_id}
            _log.warning("answered without a generated head: %s", report.fallback, extra=of)
        return event


# num_cpus=0: a host mostly waits for the generator, whose replicas must find their CPU free.
RemoteDeviceHost: Any = ray.remote(
    num_cpus=0, scheduling_strategy="SPREAD", runtime_env={"env_vars": dict(KEEP_MEMORY)}
)(DeviceHost)
