"""Service time of n heads requested at once: the measurements that a queue model is fitted to."""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyperfleet.client import GeneratorClient
from hyperfleet.emulation.feature_table import FeatureTable
from hyperfleet.errors import DataError, ServiceError
from hyperfleet.messages import HeadRequest

SIZES = (1, 2, 4, 8, 16, 32, 64)
REPEATS = 5
BURSTS_FILE = "bursts.json"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bursts:
    """Number of heads requested at once, and seconds until the last one arrived."""

    num_heads: np.ndarray
    seconds: np.ndarray

    def save(self, folder: Path) -> Path:
        """Write the measurements beside a run's log and return the path."""
        path = folder / BURSTS_FILE
        fields = {"num_heads": self.num_heads.tolist(), "seconds": self.seconds.tolist()}
        path.write_text(json.dumps(fields) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: Path) -> "Bursts":
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or damaged.
        """
        path = folder / BURSTS_FILE
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                num_heads=np.array(fields["num_heads"], np.int64),
                seconds=np.array(fields["seconds"], np.float64),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} cannot be read: {error!r}; a run with `--clock real` writes it: run it again"
            ) from error


async def measure_bursts(client: GeneratorClient, table: FeatureTable) -> Bursts:
    """Request bursts of heads, one request per head, from an idle service; omit refused bursts.

    The first round opens connections and is not counted.
    """
    sizes: list[int] = []
    seconds: list[float] = []
    for repeat in range(REPEATS + 1):
        for size in SIZES:
            rows = (np.arange(size) + repeat * size) % len(table)
            requests = [HeadRequest(features=table.anchor[row : row + 1]) for row in rows.tolist()]
            started = time.perf_counter()
            try:
                await asyncio.gather(*(client.request(each) for each in requests))
            except ServiceError:
                continue
            if repeat:
                sizes.append(size)
                seconds.append(time.perf_counter() - started)
    return Bursts(num_heads=np.array(sizes, np.int64), seconds=np.array(seconds))
