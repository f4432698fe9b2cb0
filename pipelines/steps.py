"""Wall time and peak memory of the steps of a run."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from rich.console import Console

from hyperfleet.evaluation.tables import StepFact

SAMPLE_INTERVAL_S = 0.25


class StepLog:
    """Runs steps one after the other and keeps the time and memory of each.

    Memory is the growth of the whole machine's used memory since the log began: Ray spreads a step over
    processes that share pages, so their sizes do not add up. The growth of other programs is counted too.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._base_bytes = _used_bytes()
        self.facts: list[StepFact] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce a step, run it, and keep its wall time and peak memory."""
        self._console.rule(f"[bold]{name}")
        stop = threading.Event()
        peak = [0]

        def watch() -> None:
            while not stop.wait(SAMPLE_INTERVAL_S):
                peak[0] = max(peak[0], _used_bytes() - self._base_bytes)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        started = time.perf_counter()
        try:
            yield
        finally:
            wall_s = time.perf_counter() - started
            stop.set()
            watcher.join()
            self.facts.append(StepFact(name=name, wall_s=wall_s, peak_memory_bytes=peak[0]))
        self._console.print(f"{name}: {wall_s:.0f} s, peak memory {peak[0] / 2**30:.1f} GiB")


def _used_bytes() -> int:
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)
