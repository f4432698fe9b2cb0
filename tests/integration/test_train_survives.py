"""A training run whose workers and driver are killed ends like an undisturbed one."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.render_data import render
from pipelines.runtime import connect, disconnect
from pipelines.train_generator import TrainResult, TrainRunConfig, train
from tests.worlds.short_training import SCALE, SCHEDULE, workers

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DRIVER = """
import sys
from pathlib import Path
from hyperfleet.cloud.training import TrainConfig
from pipelines.runtime import connect
from pipelines.train_generator import TrainRunConfig, train
data, output, uri = sys.argv[1:]
connect(num_cpus=2)
schedule = TrainConfig(method="fine_tuning", warm_epochs=2, epochs=4, batch_size=8)
train(TrainRunConfig(data=Path(data), output=Path(output), tracking_uri=uri, num_workers=2, train=schedule))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survives")
    render(SCALE, folder / "data", workers=0, show_progress=False)
    return folder


@pytest.fixture
def ray_here() -> Iterator[None]:
    connect(num_cpus=2)
    yield
    disconnect()


def run(root: Path, name: str) -> TrainResult:
    return train(
        TrainRunConfig(
            data=root / "data",
            output=root / name,
            tracking_uri=f"sqlite:///{root}/mlflow.db",
            num_workers=2,
            train=SCHEDULE,
        )
    )


def history(root: Path, result: TrainResult, name: str) -> list[tuple[int, float]]:
    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    return [(point.step, point.value) for point in client.get_metric_history(result.run_id, name)]


@pytest.fixture(scope="module")
def undisturbed(root: Path) -> TrainResult:
    connect(num_cpus=2)
    result = run(root, "undisturbed")
    disconnect()
    return result


def kill_one_after_checkpoints(output: Path, num: int, killed: list[int]) -> None:
    """SIGKILL a worker once `num` checkpoints are there."""
    deadline_s = time.monotonic() + 240
    while time.monotonic() < deadline_s:
        if len(list(output.glob("checkpoints/checkpoint_*/progress.json"))) >= num and (alive := workers()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(alive[-1].pid, signal.SIGKILL)
                killed.append(alive[-1].pid)
            return
        time.sleep(0.05)


def same_end(root: Path, undisturbed: TrainResult, result: TrainResult) -> None:
    assert result.metrics == undisturbed.metrics
    model = "model.safetensors"
    assert (result.bundle / model).read_bytes() == (undisturbed.bundle / model).read_bytes()
    assert result.warm is not None
    for name in ("warm/loss_total", "continue/loss_total", "step"):
        # Every epoch is there once, none twice and none left out.
        assert history(root, result, name) == history(root, undisturbed, name)


def test_a_killed_worker_costs_less_than_an_epoch_and_changes_no_digit(root, undisturbed, ray_here):
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_after_checkpoints, args=(root / "worker", 2, killed))
    killer.start()
    result = run(root, "worker")
    killer.join()
    assert killed
    same_end(root, undisturbed, result)


def test_a_killed_driver_is_taken_up_by_the_same_command(root, undisturbed, ray_here):
    output = root / "driver"
    arguments = [str(root / "data"), str(output), f"sqlite:///{root}/mlflow.db"]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], start_new_session=True)
    deadline_s = time.monotonic() + 240
    while not list(output.glob("checkpoints/checkpoint_*/progress.json")):
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    result = run(root, "driver")
    same_end(root, undisturbed, result)
