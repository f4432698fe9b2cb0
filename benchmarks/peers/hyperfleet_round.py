"""Rounds of our pool of Ray actors: two hosts answer for shards of devices.

As in Flower, every head moves from a host's process to the driver through Ray's object store, but the heads
of a shard move as one array. With --summed no head moves: the host sums those of its shard, as pfl does in
its single process, and returns the sum. The pool supervises its hosts while it runs.
"""

import os
from collections.abc import Iterator

import numpy as np
import ray
from workload import HEAD_FLOATS, arguments, check_sum, features, measure, report, write_head

from actors.supervised_pool import Job, SupervisedPool
from hyperfleet.head_codecs.frame import KEEP_MEMORY
from pipelines.runtime import connect, disconnect

NUM_HOSTS = 2
# 71 MiB of heads. Each Ray object costs CPU, which the devices of a shard share.
DEVICES_PER_SHARD = 128
# With one sum per shard, shards of 128 cost an eighth to a quarter more CPU per device; with 500, one host
# would be idle in a round of 500 devices.
DEVICES_PER_SUM = 250
# Ray frees objects when 100 have piled up or once per second. By then shards have filled the store, and each
# new one is written to memory outside the CPU cache.
FREE_AT_ONCE = {"RAY_free_objects_batch_size": "1"}


class Host:
    """Host of a share of the devices."""

    def __init__(self) -> None:
        # Ray copies a result out of it before it runs the next shard.
        self._heads = np.empty((DEVICES_PER_SHARD, HEAD_FLOATS), np.float32)
        # Memory for heads that stay here: each device overwrites it, and it is summed while in the CPU cache.
        self._head = np.empty(HEAD_FLOATS, np.float32)
        self._sum = np.empty(HEAD_FLOATS, np.float32)

    def start(self) -> None:
        """Do nothing; the call returns once the actor is ready."""

    def answer(self, sent: np.ndarray) -> np.ndarray:
        """Act as the devices of a shard and return their heads."""
        heads = self._heads[: len(sent)]
        for head, feature in zip(heads, sent, strict=True):
            write_head(head, feature)
        return heads

    def add_up(self, sent: np.ndarray) -> np.ndarray:
        """Act as the devices of a shard and return the sum of their heads as an array of one row."""
        self._sum.fill(0)
        for feature in sent:
            write_head(self._head, feature)
            np.add(self._sum, self._head, out=self._sum)
        return self._sum[None]


RemoteHost = ray.remote(num_cpus=0, runtime_env={"env_vars": dict(KEEP_MEMORY)})(Host)


def jobs(sent: np.ndarray, *, summed: bool) -> Iterator[Job]:
    """Cut the devices into shards."""
    method, size = ("add_up", DEVICES_PER_SUM) if summed else ("answer", DEVICES_PER_SHARD)
    for first in range(0, len(sent), size):
        yield Job(key=first, method=method, args=(sent[first : first + size],))


def main() -> None:
    """Run and print the figures."""
    args = arguments(__doc__, "--summed")
    sent = features(args.devices)
    os.environ.update(FREE_AT_ONCE)
    connect(num_cpus=NUM_HOSTS)
    with SupervisedPool(RemoteHost.remote, NUM_HOSTS) as pool:

        def run_round() -> None:
            total = np.zeros(HEAD_FLOATS, np.float32)

            def add(job: Job, heads: np.ndarray) -> None:
                for head in heads:
                    np.add(total, head, out=total)

            pool.run(jobs(sent, summed=args.summed), add)
            check_sum(total, args.devices)

        figures = measure(args.devices, args.seconds, run_round)
    disconnect()
    report(figures)


if __name__ == "__main__":
    main()
