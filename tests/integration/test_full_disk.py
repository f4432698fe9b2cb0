"""A full disk on one node: one message with the remedy, and the same command continues afterwards.

The node is a second one whose temporary folder is a disk of its own: data sets and the checkpoint in progress
are there.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray.cluster_utils import Cluster

from hyperfleet.errors import CheckpointError, DataError
from pipelines import emulate_fleet
from pipelines.emulate_fleet import FleetConfig, run_fleet
from pipelines.render_data import render
from pipelines.runtime import connect, disconnect
from pipelines.storage import VARIABLE
from pipelines.train_generator import TrainResult, TrainRunConfig, train
from tests.worlds.rendered_fleet import SCENARIO, Place
from tests.worlds.short_training import SCALE, SCHEDULE
from tests.worlds.small_disk import fill, make_room, small_disk

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

DISK_BYTES = 64 << 20
# Too little for anything of ours. Without a byte Python would take another temporary folder.
LEFT_BYTES = 64 << 10
# Longest time until it is said: Ray Train starts its workers three times.
PATIENCE_S = 400.0
NO_ROOM_FOR_DATA = r"cannot be copied to node .* bytes are needed, .* are free.*free some of its disk"
NO_ROOM_FOR_CHECKPOINT = (
    r"a checkpoint cannot be written on node .*No space left.*make room.*the same command"
)


@dataclass(frozen=True)
class World:
    """A cluster whose only node for workers and hosts has a small disk, and a data set to fetch."""

    root: Path
    disk: Path
    storage: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root}/mlflow.db"

    def train(self) -> TrainResult:
        output = self.storage / "run"
        return train(
            TrainRunConfig(data=self.root / "data", output=output, tracking_uri=self.uri, train=SCHEDULE)
        )

    def steps(self) -> list[int]:
        """Ends of the epochs that are in MLflow."""
        run_id = (self.storage / "run" / "run_id").read_text().strip()
        history = MlflowClient(tracking_uri=self.uri).get_metric_history(run_id, "step")
        return [point.step for point in history]

    def keep_full_after_a_checkpoint(self, over: threading.Event) -> None:
        """Also of what a worker deletes, as others do that write to the same disk."""
        while not over.wait(0.02):
            if list(self.storage.glob("run/checkpoints/checkpoint_*/progress.json")):
                fill(self.disk, leave=LEFT_BYTES)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("full")
    with small_disk(root / "disk", DISK_BYTES) as disk, pytest.MonkeyPatch.context() as patch:
        world = World(root=root, disk=disk, storage=root / "storage")
        world.storage.mkdir()
        patch.setenv(VARIABLE, str(world.storage))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        roles = {"train_worker": 1, "device_host": 1}
        cluster.add_node(num_cpus=1, resources=roles, env_vars={"TMPDIR": str(disk)})
        cluster.wait_for_nodes()
        patch.setenv("RAY_ADDRESS", cluster.address)
        connect()
        yield world
        disconnect()
        cluster.shutdown()


def test_a_fleet_says_so_and_goes_on_when_there_is_room(
    world: World, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulate_fleet, "FEATURES_DIR", tmp_path / "features")
    run = {
        "scenario": SCENARIO,
        "hosts": 1,
        "data": place.data,
        "model": str(place.model),
        "static_model": str(place.static_model),
        "tracking_uri": world.uri,
        "output": tmp_path / "log",
    }
    fill(world.disk, leave=LEFT_BYTES)
    began_s = time.monotonic()
    with pytest.raises(DataError, match=NO_ROOM_FOR_DATA) as said:
        run_fleet(FleetConfig(**run))
    print(f"\n{time.monotonic() - began_s:.0f} s: {said.value}")
    assert time.monotonic() - began_s < PATIENCE_S
    make_room(world.disk)
    result = run_fleet(FleetConfig(**run, resume=True))
    assert result.log.answers().num_rows == len(result.plan.time_s)


def test_training_says_so_and_goes_on_when_there_is_room(world: World) -> None:
    render(SCALE, world.root / "data", workers=0, show_progress=False)
    fill(world.disk, leave=LEFT_BYTES)
    began_s = time.monotonic()
    with pytest.raises(DataError, match=NO_ROOM_FOR_DATA) as no_data:
        world.train()
    print(f"\n{time.monotonic() - began_s:.0f} s: {no_data.value}")
    assert time.monotonic() - began_s < PATIENCE_S
    make_room(world.disk)

    over = threading.Event()
    striker = threading.Thread(target=world.keep_full_after_a_checkpoint, args=(over,), daemon=True)
    striker.start()
    began_s = time.monotonic()
    try:
        with pytest.raises(CheckpointError, match=NO_ROOM_FOR_CHECKPOINT) as no_checkpoint:
            world.train()
    finally:
        over.set()
        striker.join()
    print(f"\n{time.monotonic() - began_s:.0f} s: {no_checkpoint.value}")
    assert time.monotonic() - began_s < PATIENCE_S
    before = world.steps()
    assert 0 < len(before) < SCHEDULE.warm_epochs + SCHEDULE.epochs
    make_room(world.disk)

    world.train()
    steps = world.steps()
    # What was there is kept, and every epoch is there once.
    assert steps[: len(before)] == before
    assert steps == sorted(set(steps))
    assert len(steps) == SCHEDULE.warm_epochs + SCHEDULE.epochs
