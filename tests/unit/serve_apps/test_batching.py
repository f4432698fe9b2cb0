import asyncio
import time

import numpy as np
import pytest

from serve_apps import batching
from serve_apps.batching import Batcher, Chunk, GeneratedChunk


def chunk(num=1):
    return Chunk(served=None, features=np.zeros((num, 192), np.float32), codec="fp32", deadline_s=None)


class Recorder:
    """Records the sizes of batches; `batch_heads` is the number of a chunk's batch."""

    def __init__(self):
        self.batches = []

    def __call__(self, chunks):
        self.batches.append([len(each.features) for each in chunks])
        return [GeneratedChunk(files=None, batch_heads=len(self.batches)) for _ in chunks]


@pytest.fixture(autouse=True)
def unchecked_chunks(monkeypatch):
    # The batcher uses the number of features only.
    monkeypatch.setattr(Chunk, "__init__", _plain_init)


def _plain_init(self, *, served, features, codec, deadline_s):
    object.__setattr__(self, "served", served)
    object.__setattr__(self, "features", features)
    object.__setattr__(self, "codec", codec)
    object.__setattr__(self, "deadline_s", deadline_s)


def run(main, *, max_heads=8, pause_s=0.01):
    recorder = Recorder()

    async def within():
        return await main(Batcher(recorder, max_heads=max_heads, pause_s=pause_s))

    return recorder.batches, asyncio.run(within())


def test_concurrent_requests_are_one_batch():
    async def main(batcher):
        return await asyncio.gather(*(batcher(chunk()) for _ in range(8)))

    batches, made = run(main)
    assert batches == [[1] * 8]
    assert [each.batch_heads for each in made] == [1] * 8


def test_a_batch_stays_open_while_requests_keep_coming():
    async def main(batcher):
        asked = []
        for _ in range(4):
            asked.append(asyncio.create_task(batcher(chunk())))
            await asyncio.sleep(0.03)
        return await asyncio.gather(*asked)

    batches, _ = run(main, pause_s=0.1)
    assert batches == [[1] * 4]


def test_a_stream_fills_a_batch_and_does_not_hold_it_open_for_ever():
    async def main(batcher):
        asked = []
        for _ in range(40):
            asked.append(asyncio.create_task(batcher(chunk())))
            await asyncio.sleep(0.001)
        return await asyncio.gather(*asked)

    batches, _ = run(main, max_heads=16, pause_s=0.5)
    assert batches == [[1] * 16, [1] * 16, [1] * 8]


def test_a_full_batch_waits_for_nobody_and_no_chunk_is_split():
    async def main(batcher):
        return await asyncio.gather(*(batcher(chunk(num)) for num in (3, 3, 3, 8, 1, 9)))

    batches, made = run(main, max_heads=8, pause_s=0.05)
    assert batches == [[3, 3], [3], [8], [1], [9]]
    assert [each.batch_heads for each in made] == [1, 1, 2, 3, 4, 5]


def test_callers_run_between_full_batches():
    async def main(batcher):
        seen = []

        async def caller():
            await batcher(chunk(8))
            seen.append(len(batcher._run.batches))

        await asyncio.gather(*(caller() for _ in range(3)))
        return seen

    _, seen = run(main, max_heads=8)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(("batch_s", "expected"), [(0.05, [[1], [1, 1]]), (0.0, [[1], [1], [1]])])
def test_the_pause_is_longer_after_a_long_batch_only(batch_s, expected, monkeypatch):
    if batch_s:
        # So long that the second request comes in time even on a busy machine.
        monkeypatch.setattr(batching, "_LONGEST_PAUSE_S", 0.5)
        monkeypatch.setattr(batching, "_PAUSE_OF_BATCH", 10.0)
    batches = []

    def computing(chunks):
        batches.append([len(each.features) for each in chunks])
        time.sleep(batch_s)
        return [GeneratedChunk(files=None) for _ in chunks]

    async def main():
        batcher = Batcher(computing, max_heads=8, pause_s=0.001)
        await batcher(chunk())
        asked = [asyncio.create_task(batcher(chunk()))]
        await asyncio.sleep(0.004)
        asked.append(asyncio.create_task(batcher(chunk())))
        await asyncio.gather(*asked)

    asyncio.run(main())
    assert batches == expected


def test_callers_that_left_get_no_work_done_and_hold_up_nobody():
    async def main(batcher):
        gone = [asyncio.create_task(batcher(chunk())) for _ in range(3)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        await asyncio.sleep(0.05)
        return await batcher(chunk(2))

    batches, _ = run(main)
    assert batches == [[2]]


def test_a_failed_batch_fails_its_callers_and_the_next_one_runs():
    async def main():
        failures = iter([RuntimeError("broken"), None])

        def sometimes(chunks):
            failure = next(failures)
            if failure is not None:
                raise failure
            return [GeneratedChunk(files=None) for _ in chunks]

        batcher = Batcher(sometimes, max_heads=4, pause_s=0.001)
        failed = await asyncio.gather(batcher(chunk()), batcher(chunk()), return_exceptions=True)
        assert [str(each) for each in failed] == ["broken", "broken"]
        await batcher(chunk())

    asyncio.run(main())
