"""One process that computes what devices compute: features of samples, and answers with generated heads."""

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from jaxtyping import Int64

from hyperfleet.cloud.shared_generator import SharedGenerator
from hyperfleet.device import DeviceGroup
from hyperfleet.emulation.answering import Answers, answer_pairs, wants_head_batches
from hyperfleet.emulation.feature_table import (
    FeaturePart,
    FeatureTable,
    LiveStreams,
    encode_rows,
    live_samples,
)
from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs import DEFAULT_CODEC
from hyperfleet.head_codecs import codec as head_codec
from hyperfleet.head_codecs.frame import KEEP_MEMORY
from hyperfleet.nn import DeviceModel


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerSpec:
    """What every answering host is told.

    Attributes:
        open_data: opens the data set on the host's own machine.
        seed: draws the anchor frames.
        codec: how heads travel, a name of `hyperfleet.head_codecs.CODECS`.
        heads_at_once: heads a host has in memory at a time, see `answer_pairs`.
        torch_threads: threads that encode and generate; whole heads in fp32 are always made by one.
    """

    open_data: Callable[[], LiveStreams]
    seed: int
    codec: str = DEFAULT_CODEC
    heads_at_once: int = 64
    torch_threads: int = 1

    def __post_init__(self) -> None:
        head_codec(self.codec)
        for name in ("heads_at_once", "torch_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"AnswerSpec.{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class HostUsage:
    """CPU time and largest resident size of a host's process since it started."""

    cpu_s: float
    peak_rss_bytes: int


class AnswerHost:
    """Computes for a fleet and decides nothing; a plain class that `RemoteAnswerHost` makes a Ray actor.

    Models, generator and table come through the object store, where all hosts of a machine read one copy.

    Args:
        spec: the same for every host.
        models: device part of the personalized model and the Fine-tuning model, for `encode`.
        generator: makes the heads, for `answer`.
        table: features of all live samples, or the folder they will be in when `answer` is called first.
    """

    def __init__(
        self,
        spec: AnswerSpec,
        *,
        models: tuple[DeviceModel, DeviceModel] | None = None,
        generator: SharedGenerator | None = None,
        table: FeatureTable | Path | None = None,
    ) -> None:
        self._spec = spec
        self._models = models
        self._shared = generator
        self._table = table

    def start(self) -> int:
        """Open the data and the generator and return the process id; called once, before anything else.

        Not done by the constructor, whose errors reach the caller of an actor as text only.

        Raises:
            DataError: the data set cannot be opened on this machine.
            CheckpointError: the two models do not answer the same questions.
        """
        spec = self._spec
        torch.set_num_threads(spec.torch_threads)
        if self._models is not None:
            personal, static = self._models
            data = spec.open_data()
            self._samples = live_samples(data)
            self._group = DeviceGroup(personal=personal, static=static, store=data.store, seed=spec.seed)
        if self._shared is not None:
            self._generator = self._shared.open(num_threads=spec.torch_threads)
        return os.getpid()

    def encode(self, rows: Int64[np.ndarray, " row"]) -> FeaturePart:
        """Encode one batch of `hyperfleet.emulation.feature_table.encoding_batches`.

        Raises:
            ConfigError: the host was given no models.
        """
        if self._models is None:
            raise ConfigError("AnswerHost.models must be given to encode, got None")
        return encode_rows(self._group, self._samples, rows)

    def answer(
        self,
        sample: Int64[np.ndarray, " pair"],
        head_of: Int64[np.ndarray, " pair"],
        codec: str | None = None,
    ) -> Answers:
        """Answer samples with heads made from others; see `answer_pairs`. Without a codec: that of the spec.

        Raises:
            ConfigError: the host was given no generator or no table.
            DataError: the table cannot be read, or has no such row.
        """
        if self._shared is None or self._table is None:
            raise ConfigError("AnswerHost.generator and AnswerHost.table must be given to answer, got None")
        if isinstance(self._table, Path):
            self._table = FeatureTable.load(self._table)
        codec = codec or self._spec.codec
        if wants_head_batches(self._generator, codec):
            # Worth its memory, a second copy of the last layer, only here.
            self._generator.pack()
        heads_at_once = self._spec.heads_at_once
        return answer_pairs(self._generator, self._table, sample, head_of, codec, heads_at_once)

    def usage(self) -> HostUsage:
        """Tell what the process used since it started."""
        # Linux counts in KiB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return HostUsage(cpu_s=time.process_time(), peak_rss_bytes=peak)


# num_cpus=0: real-time runs have the generator's replicas beside them, which must find their CPU free.
RemoteAnswerHost: Any = ray.remote(
    num_cpus=0, scheduling_strategy="SPREAD", runtime_env={"env_vars": dict(KEEP_MEMORY)}
)(AnswerHost)
