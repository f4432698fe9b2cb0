"""Batches of heads: requests that arrive together are generated and encoded together.

`serve.batch` closes a batch a fixed time after its first request. Here the computation runs on the event loop
that also receives, so that time has passed before the requests that came during the last batch are read.
Over gRPC, which hands one request to the loop at a time, batches of one would follow one another, and each
batch reads all weights. `Batcher` closes a batch when no request has arrived for a while.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hyperfleet.head_codecs.frame import RowFiles
from hyperfleet.messages import ModelLabel, encode_batch
from serve_apps.served_models import ServedGenerator

_LOOKS_PER_PAUSE = 4
# Sending the replies of a batch and receiving the next requests of those callers takes longer the larger the
# batch is. Over gRPC, of 32 full heads in flight a batch got 14 after 1 ms and 24 after 3 ms.
_PAUSE_OF_BATCH = 0.1
# Turns of the event loop from the end of a connection to the end of its request: those of the transport, the
# protocol, `receive`, and the tasks that wait for each other. Four were enough for uvicorn.
_TURNS_BETWEEN = 8
# A batch that was held up must not hold up the next one.
_LONGEST_PAUSE_S = 0.01


class Meter:
    """Metrics of the service. This one counts nothing; a replica counts with `RayMeter`."""

    def answered(self, label: ModelLabel, codec: str, num_heads: int, num_bytes: int, queue_s: float) -> None:
        """Count a request that got its heads, the bytes of its reply, and the seconds that it waited."""

    def refused(self, reason: str) -> None:
        """Count a request without heads; `reason` is the name of an error or an HTTP status phrase."""

    def generated(self, num_heads: int, generate_s: float) -> None:
        """Count a matrix product, the heads that it made and its seconds."""

    def encoded(self, encode_s: float) -> None:
        """Count the seconds of a codec for all heads of a product that it encoded."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chunk:
    """Features of one request, for one version of a model and one codec.

    `deadline_s` is on the clock of `time.monotonic`; None for no deadline.
    """

    served: ServedGenerator
    features: np.ndarray
    codec: str
    deadline_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GeneratedChunk:
    """Heads of a chunk, or the reason for their absence, and the times of its batch.

    Attributes:
        files: replies of all chunks encoded together; None without heads.
        start: index of the chunk's first head in `files`.
        error: reason for missing heads; None if the deadline had passed.
        generate_s: seconds of the product that made them.
        encode_s: seconds of the codec for all chunks encoded together.
        batch_heads: number of heads of that product.
    """

    files: RowFiles | None
    start: int = 0
    error: Exception | None = None
    generate_s: float = 0.0
    encode_s: float = 0.0
    batch_heads: int = 1


def generate_batch(chunks: Sequence[Chunk]) -> list[GeneratedChunk]:
    """Generate the heads of several chunks, those of one version in one product."""
    now_s = time.monotonic()
    made = [GeneratedChunk(files=None)] * len(chunks)
    alive = [i for i, chunk in enumerate(chunks) if chunk.deadline_s is None or chunk.deadline_s > now_s]
    for served in {id(chunks[i].served): chunks[i].served for i in alive}.values():
        mine = [i for i in alive if chunks[i].served is served]
        for i, own in zip(mine, _of_version(served, [chunks[i] for i in mine]), strict=True):
            made[i] = own
    return made


def _of_version(served: ServedGenerator, chunks: Sequence[Chunk]) -> Sequence[GeneratedChunk]:
    # Heads of one codec are encoded together, so they must be adjacent.
    codecs: dict[str, list[np.ndarray]] = {}
    for chunk in chunks:
        codecs.setdefault(chunk.codec, []).append(chunk.features)
    files, encode_s = {}, {}
    started_s = time.perf_counter()
    try:
        groups = [np.concatenate(features) for features in codecs.values()]
        heads = served.generator.generate_each(groups)
        generate_s = time.perf_counter() - started_s
        for codec, own_heads in zip(codecs, heads, strict=True):
            encoding_s = time.perf_counter()
            files[codec] = encode_batch(own_heads, codec=codec, label=served.label)
            encode_s[codec] = time.perf_counter() - encoding_s
    except Exception as error:
        if len(chunks) == 1:
            return [GeneratedChunk(files=None, error=error)]
        # Only the chunk at fault may fail.
        return [own for chunk in chunks for own in _of_version(served, [chunk])]
    batch_heads = sum(map(len, groups))
    first = dict.fromkeys(codecs, 0)
    made = []
    for chunk in chunks:
        own = GeneratedChunk(
            files=files[chunk.codec],
            start=first[chunk.codec],
            generate_s=generate_s,
            encode_s=encode_s[chunk.codec],
            batch_heads=batch_heads,
        )
        made.append(own)
        first[chunk.codec] += len(chunk.features)
    return made


class Batcher:
    """Collects chunks into batches and runs them one after the other on the event loop.

    Args:
        run: generates the heads of a batch; `generate_batch`.
        max_heads: maximum heads per batch; a chunk is never split.
        pause_s: seconds without a request after which a batch is closed. A tenth of the previous batch's
            time, if that is longer, up to 0.01 s.
        meter: counts the batches.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Chunk]], Sequence[GeneratedChunk]],
        *,
        max_heads: int,
        pause_s: float,
        meter: Meter | None = None,
    ) -> None:
        self._run = run
        self._meter = meter if meter is not None else Meter()
        self._max_heads = max_heads
        self._pause_s = pause_s
        self._waiting: deque[tuple[Chunk, asyncio.Future[GeneratedChunk]]] = deque()
        self._num_waiting = 0
        self._num_arrived = 0
        self._last_batch_s = self._last_end_s = 0.0
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, chunk: Chunk) -> GeneratedChunk:
        """Return the chunk's part of its batch."""
        future: asyncio.Future[GeneratedChunk] = asyncio.get_running_loop().create_future()
        self._waiting.append((chunk, future))
        self._num_waiting += len(chunk.features)
        self._num_arrived += 1
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            await self._until_none_comes()
            batch = self._take()
            began_s = time.perf_counter()
            try:
                made = self._run([chunk for chunk, _ in batch]) if batch else ()
                self._count(batch, made)
                for (_, future), own in zip(batch, made, strict=True):
                    future.set_result(own)
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            self._last_batch_s = time.perf_counter() - began_s
            # Frees the heads before the next batch.
            batch, made = [], ()
            # Even between full batches, replies are sent and callers that left are noticed.
            for _ in range(_TURNS_BETWEEN):
                await asyncio.sleep(0)
            self._last_end_s = time.perf_counter()

    async def _until_none_comes(self) -> None:
        # Timed by the clock, not by the loop: uvloop, which Serve runs on, counts from its last turn, so that
        # after a batch of 20 ms a timeout of 1 ms ends before anything is read. A stream of requests cannot
        # hold a batch open forever, since it fills the batch.
        num_seen, since_s = self._num_arrived, time.perf_counter()
        pause_s = self._pause_s
        # A caller that comes much later is not one of those just answered.
        if since_s - self._last_end_s < _LONGEST_PAUSE_S:
            pause_s = max(pause_s, min(_PAUSE_OF_BATCH * self._last_batch_s, _LONGEST_PAUSE_S))
        while self._num_waiting < self._max_heads:
            await asyncio.sleep(pause_s / _LOOKS_PER_PAUSE)
            now_s = time.perf_counter()
            if self._num_arrived != num_seen:
                num_seen, since_s = self._num_arrived, now_s
            elif now_s - since_s >= pause_s:
                return

    def _take(self) -> list[tuple[Chunk, asyncio.Future[GeneratedChunk]]]:
        batch: list[tuple[Chunk, asyncio.Future[GeneratedChunk]]] = []
        num_heads = 0
        while self._waiting:
            chunk, future = self._waiting[0]
            if batch and num_heads + len(chunk.features) > self._max_heads:
                break
            self._waiting.popleft()
            self._num_waiting -= len(chunk.features)
            # No work for a caller that has left.
            if not future.done():
                batch.append((chunk, future))
                num_heads += len(chunk.features)
        return batch

    def _count(
        self, batch: Sequence[tuple[Chunk, asyncio.Future[GeneratedChunk]]], made: Sequence[GeneratedChunk]
    ) -> None:
        """Count the products of a batch, one for each version, and their codecs."""
        done = [(chunk, own) for (chunk, _), own in zip(batch, made, strict=True) if own.files is not None]
        for own in {id(chunk.served): own for chunk, own in done}.values():
            self._meter.generated(own.batch_heads, own.generate_s)
        for own in {id(own.files): own for _, own in done}.values():
            self._meter.encoded(own.encode_s)
