"""A training run goes on with fewer workers when a machine is lost."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray.cluster_utils import Cluster

from pipelines.render_data import render
from pipelines.runtime import connect, disconnect
from pipelines.storage import VARIABLE
from pipelines.train_generator import TrainRunConfig, train
from tests.integration.test_train_survives import SCALE, SCHEDULE, workers

pytestmark = [pytest.mark.integration, pytest.mark.slow]

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


def test_a_lost_machine_leaves_a_run_with_fewer_workers(tmp_path, cluster):
    render(SCALE, tmp_path / "data", workers=0, show_progress=False)
    node = cluster.add_node(**ONE_WORKER)
    cluster.wait_for_nodes()
    workers_at: dict[str, int] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for progress in tmp_path.glob("elastic/checkpoints/checkpoint_*/progress.json"):
                if progress.parent.name not in workers_at:
                    workers_at[progress.parent.name] = len(workers())
                    if len(workers_at) == 1:
                        cluster.remove_node(node, allow_graceful=False)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        result = train(
            TrainRunConfig(
                data=tmp_path / "data",
                output=tmp_path / "elastic",
                tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
                num_workers=2,
                min_workers=1,
                train=SCHEDULE,
            )
        )
    finally:
        over.set()
        watcher.join()

    counts = list(workers_at.values())
    assert counts[0] == 2
    assert 1 in counts
    # Every epoch stands there once.
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    steps = [point.step for point in client.get_metric_history(result.run_id, "step")]
    assert steps == sorted(set(steps))
    assert len(steps) == SCHEDULE.warm_epochs + SCHEDULE.epochs
