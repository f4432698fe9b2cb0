"""Work of every engine in a round of the comparison, and its measurement.

In a round, each of n devices receives a feature of 192 floats, copies a head of 145,597 floats, writes the
first float of its feature into it and returns it; the driver sums all heads. The sum shows that every head
arrived once. No device computes anything, so only the engine is measured.

Imported in the peers' environment and in ours: numpy and psutil only.
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil

FEATURE_FLOATS = 192
HEAD_FLOATS = 145_597  # 1,501 answers x (96 weights + 1 bias): 568.7 KiB of float32

# Long enough to touch all of the shared memory through which Ray moves heads.
WARM_UP_S = 3.0


@functools.cache
def template() -> np.ndarray:
    """Return the content of every head after its first float: small integers, whose sums are exact."""
    return np.random.default_rng(0).integers(-8, 9, HEAD_FLOATS).astype(np.float32)


def features(num_devices: int) -> np.ndarray:
    """Return the features sent to the devices; the first float of each is the device's number."""
    sent = np.random.default_rng(1).standard_normal((num_devices, FEATURE_FLOATS), dtype=np.float32)
    sent[:, 0] = np.arange(num_devices)
    return sent


def write_head(head: np.ndarray, feature: np.ndarray) -> None:
    """Act as a device: write its head into `head`."""
    np.copyto(head, template())
    head[0] = feature[0]


def make_head(feature: np.ndarray) -> np.ndarray:
    """Act as a device: return its head."""
    head = np.empty(HEAD_FLOATS, np.float32)
    write_head(head, feature)
    return head


def check_sum(total: np.ndarray, num_devices: int) -> None:
    """Raise ValueError unless `total` is the sum of one head of every device."""
    behind_first = np.array_equal(total[1:], num_devices * template()[1:])
    # Below 2**24 float32 counts exactly: up to 5,792 devices.
    if not behind_first or total[0] != num_devices * (num_devices - 1) // 2:
        raise ValueError(f"the sum of the heads is not that of {num_devices} devices, each counted once")


def measure(num_devices: int, seconds: float, run_round: Callable[[], object]) -> dict[str, float]:
    """Run untimed rounds, at least one, then timed rounds for `seconds`, at least one.

    CPU is user + system of this process and of all its descendants. Memory is their PSS at the end of
    the first round, while what `run_round` returned is still held.
    """
    warm_s = time.perf_counter() + WARM_UP_S
    held = run_round()
    memory_bytes = _memory_bytes()
    del held
    while time.perf_counter() < warm_s:
        run_round()
    num_rounds = 0
    # Walking over the processes belongs to no round: own CPU is read last here and first below.
    descendants_s = _descendants_cpu_s()
    own_s, began_s = time.process_time(), time.perf_counter()
    while not num_rounds or time.perf_counter() < began_s + seconds:
        run_round()
        num_rounds += 1
    own_s, wall_s = time.process_time() - own_s, time.perf_counter() - began_s
    cpu_s = own_s + _descendants_cpu_s() - descendants_s
    return {
        "num_devices": num_devices,
        "num_rounds": num_rounds,
        "cpu_ms_per_device": 1e3 * cpu_s / (num_rounds * num_devices),
        "devices_per_wall_s": num_rounds * num_devices / wall_s,
        "memory_mib": memory_bytes / 2**20,
    }


def arguments(description: str | None, *switches: str) -> argparse.Namespace:
    """Parse the arguments common to the scripts of this folder, and the script's own switches."""
    parser = argparse.ArgumentParser(description=description)
    for switch in switches:
        parser.add_argument(switch, action="store_true")
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=5.0)
    return parser.parse_args()


def report(figures: dict[str, float]) -> None:
    """Print the figures as the last line."""
    print(json.dumps(figures), flush=True)


def _descendants() -> Iterator[psutil.Process]:
    for process in psutil.Process().children(recursive=True):
        if process.is_running():
            yield process


def _descendants_cpu_s() -> float:
    own = os.times()
    total = own.children_user + own.children_system
    for process in _descendants():
        try:
            # Includes children that it has waited for.
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def _memory_bytes() -> int:
    total = 0
    for process in (psutil.Process(), *_descendants()):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total
