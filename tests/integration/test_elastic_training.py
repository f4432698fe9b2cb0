"""A training run goes on with fewer workers when a machine is lost, and with more when one joins."""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray.cluster_utils import Cluster
from ray.train import ScalingConfig

from pipelines import train_generator
from pipelines.render_data import render
from pipelines.runtime import connect, disconnect
from pipelines.storage import VARIABLE
from pipelines.train_generator import TrainRunConfig, train
from tests.worlds.short_training import SCALE, SCHEDULE, workers

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

# Ray hands out what a new node has every 20 s.
EPOCH_S = 3.0
LONG = dataclasses.replace(SCHEDULE, epochs=20)
ONE_WORKER = {"num_cpus": 1, "resources": {"train_worker": 1}}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cluster]:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    cluster = Cluster(initialize_head=True, head_node_args={**ONE_WORKER, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    connect()
    yield cluster
    disconnect()
    cluster.shutdown()


def test_a_run_goes_on_with_fewer_workers_and_grows_again(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray looks once a minute whether there is room for more.
    often = partial(ScalingConfig, elastic_resize_monitor_interval_s=1.0)
    monkeypatch.setattr(train_generator, "ScalingConfig", often)
    # An epoch takes no less, so that a machine can join before the last, however fast this one is.
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(EPOCH_S))
    render(SCALE, tmp_path / "data", workers=0, show_progress=False)
    node = cluster.add_node(**ONE_WORKER)
    cluster.wait_for_nodes()
    config = TrainRunConfig(
        data=tmp_path / "data",
        output=tmp_path / "elastic",
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        num_workers=2,
        min_workers=1,
        train=LONG,
    )
    workers_at: dict[str, int] = {}
    # This thread adds machines: Ray sets a signal's handler for each.
    with ThreadPoolExecutor(1) as executor:
        training = executor.submit(train, config)
        while not training.done():
            time.sleep(0.05)
            for progress in tmp_path.glob("elastic/checkpoints/checkpoint_*/progress.json"):
                if progress.parent.name in workers_at:
                    continue
                found = workers_at[progress.parent.name] = len(workers())
                if len(workers_at) == 1:
                    cluster.remove_node(node, allow_graceful=False)
                # The first may be from before the loss.
                elif found == 1 and list(workers_at.values()).count(1) == 2:
                    cluster.add_node(**ONE_WORKER)
        result = training.result()

    counts = list(workers_at.values())
    assert [count for count, _ in itertools.groupby(counts)] == [2, 1, 2]
    # Every epoch stands there once.
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    steps = [point.step for point in client.get_metric_history(result.run_id, "step")]
    assert steps == sorted(set(steps))
    assert len(steps) == LONG.warm_epochs + LONG.epochs
