"""Batches that wait for as long as requests keep coming, and no longer.

`serve.batch` closes a batch a fixed time after its first request. Here the computation runs on the event loop
that also receives, so that time is over before the requests which came during the last batch have
been read, and over gRPC, which hands one request to the loop at a time, batches of one follow one another:
each of them reads all weights. This batcher closes a batch when none has come for a while.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from serve_apps.head_service import Chunk, GeneratedChunk

_LOOKS_A_PAUSE = 4
# Replies of a batch go out, and the next requests of their callers come in, over a while that grows with the
# batch. Over gRPC, of 32 whole heads in flight a batch got 14 after a millisecond and 24 after three; each
# batch reads all weights.
_PAUSE_OF_BATCH = 0.1
# From the end of a connection to the request that is given up it takes some turns of the event loop: those of
# the transport, of the protocol, of `receive`, and of the tasks that wait for each other. Four were enough
# for uvicorn here.
_TURNS_BETWEEN = 8
# One batch that something held up does not hold up the next one.
_LONGEST_PAUSE_S = 0.01


class Batcher:
    """Collects chunks into batches and runs them one after the other on the event loop.

    Args:
        run: makes the heads of a batch.
        max_heads: heads of one batch at most; a chunk is never split.
        pause_s: how long no request may come before a batch is closed, in seconds; a tenth of the time that
            the batch before it took, if that is longer, and up to 0.01 s.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Chunk]], Sequence[GeneratedChunk]],
        *,
        max_heads: int,
        pause_s: float,
    ) -> None:
        self._run = run
        self._max_heads = max_heads
        self._pause_s = pause_s
        self._waiting: deque[tuple[Chunk, asyncio.Future[GeneratedChunk]]] = deque()
        self._num_waiting = 0
        self._num_arrived = 0
        self._last_batch_s = self._last_end_s = 0.0
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, chunk: Chunk) -> GeneratedChunk:
        """Return the chunk's part of the batch that it gets into."""
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
                for (_, future), own in zip(batch, made, strict=True):
                    future.set_result(own)
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            self._last_batch_s = time.perf_counter() - began_s
            # Their heads are not kept until the next batch is there.
            batch, made = [], ()
            # Between full batches as well, those that are done are sent and those that left are noticed.
            for _ in range(_TURNS_BETWEEN):
                await asyncio.sleep(0)
            self._last_end_s = time.perf_counter()

    async def _until_none_comes(self) -> None:
        # Timed by the clock and not by the loop: uvloop, which Serve runs on, counts from when the loop last
        # looked, so that after a batch of 20 ms a timeout of 1 ms is over before anything was read. A stream
        # of requests cannot hold a batch open for ever: it fills it.
        num_seen, since_s = self._num_arrived, time.perf_counter()
        pause_s = self._pause_s
        # Who comes much later is not one of those that were just answered.
        if since_s - self._last_end_s < _LONGEST_PAUSE_S:
            pause_s = max(pause_s, min(_PAUSE_OF_BATCH * self._last_batch_s, _LONGEST_PAUSE_S))
        while self._num_waiting < self._max_heads:
            await asyncio.sleep(pause_s / _LOOKS_A_PAUSE)
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
            # A caller that has gone gets no work done.
            if not future.done():
                batch.append((chunk, future))
                num_heads += len(chunk.features)
        return batch
