"""MLflow implementation of `Tracker`, usable from any process."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from hyperfleet.tracking.base import RunStatus
from hyperfleet.tracking.mlflow_store import connect


@dataclass(frozen=True, kw_only=True, slots=True)
class MlflowTracker:
    """A `Tracker` of two strings, cheap to send to a worker.

    The driver opens the run with `open_run` and passes the tracker to the training workers, where rank 0
    writes. A restarted worker group thus continues the same run.
    """

    run_id: str
    tracking_uri: str

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters (as text)."""
        entries = [Param(name, str(value)) for name, value in params.items()]
        self._client().log_batch(self.run_id, params=entries)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Record metrics in one transaction."""
        now_ms = time.time_ns() // 1_000_000
        entries = [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]
        self._client().log_batch(self.run_id, metrics=entries)

    def log_artifacts(self, folder: Path, artifact_path: str) -> None:
        """Copy or upload the files of `folder`."""
        self._client().log_artifacts(self.run_id, str(folder), artifact_path)

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Close the run with `status`."""
        self._client().set_terminated(self.run_id, status)

    def _client(self) -> MlflowClient:
        # Cheap: MLflow keeps one store per URI and process.
        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)


def open_run(
    experiment_id: str,
    *,
    tracking_uri: str,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> MlflowTracker:
    """Start a run tagged with user, script and git commit, as `mlflow.start_run` would.

    `tracking_uri` is absolute; `experiment_id` comes from `prepare_store`.

    Raises:
        ServiceError: the store cannot be reached.
    """
    named = {MLFLOW_RUN_NAME: run_name} if run_name else {}
    run = connect(tracking_uri).create_run(experiment_id, tags=resolve_tags({**named, **(tags or {})}))
    return MlflowTracker(run_id=run.info.run_id, tracking_uri=tracking_uri)


def run_exists(run_id: str, tracking_uri: str) -> bool:
    """Return whether the store at `tracking_uri`, an absolute URI, holds the run.

    Raises:
        ServiceError: the store cannot be reached.
    """
    try:
        connect(tracking_uri).get_run(run_id)
    except MlflowException:
        return False
    return True
