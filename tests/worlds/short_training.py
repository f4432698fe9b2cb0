"""A training run of six short epochs on rendered data, and the Ray workers that compute it."""

import contextlib

import psutil

from hyperfleet.cloud.training import TrainConfig
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig

SCALE = FleetQAConfig(num_seen_devices=12, num_held_out_devices=1, history_clips=3, live_clips=1)
SCHEDULE = TrainConfig(method="fine_tuning", warm_epochs=2, epochs=4, batch_size=8)


def workers() -> list[psutil.Process]:
    """Return the training workers of this test's own cluster."""
    found = []
    # Another cluster may train on this machine.
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found
