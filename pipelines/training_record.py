"""Record of a training run in MLflow, written by the driver alone, each epoch once."""

import logging
from typing import Any

import ray
from mlflow.exceptions import MlflowException

from actors.progress_board import TrainRecord
from hyperfleet.errors import ServiceError
from hyperfleet.tracking.mlflow_store import connect, shown
from hyperfleet.tracking.mlflow_tracker import MlflowTracker

# Metric with the step of the last recorded epoch: a driver that takes over continues after it.
STEP = "step"
_LOGGER = logging.getLogger(__name__)


class TrainingRecord:
    """Copies metrics from the board of the workers to MLflow.

    A store that does not answer delays nothing: missing epochs are recorded when it is back, or when the same
    command runs again.

    Args:
        board: handle of the run's `ProgressBoard`.
        tracker: the run; epochs that it has are left out.
    """

    def __init__(self, board: Any, tracker: MlflowTracker) -> None:
        self._board = board
        self._tracker = tracker
        client = connect(tracker.tracking_uri)
        self._last_step = int(client.get_run(tracker.run_id).data.metrics.get(STEP, 0))
        self._params: dict[str, str] = {}
        self._is_away = False

    def update(self) -> None:
        """Record new epochs, or log once that the store does not answer."""
        try:
            self._update()
        except ServiceError as error:
            if not self._is_away:
                _LOGGER.warning("%s; training goes on and is recorded once it answers", error)
            self._is_away = True

    def finish(self) -> None:
        """Record the rest.

        Raises:
            ServiceError: the store does not answer.
        """
        self._update()

    def _update(self) -> None:
        record: TrainRecord = ray.get(self._board.record.remote(self._last_step))
        if not record.metrics and record.params.items() <= self._params.items():
            return
        # Checked first: MLflow's own client tries a dead server for minutes.
        connect(self._tracker.tracking_uri)
        try:
            if new := {name: value for name, value in record.params.items() if name not in self._params}:
                self._tracker.log_params(new)
                self._params.update(new)
            for step, metrics in sorted(record.metrics.items()):
                self._tracker.log_metrics({**metrics, STEP: float(step)}, step=step)
                self._last_step = step
        except MlflowException as error:
            raise ServiceError(
                f"the tracking store {shown(self._tracker.tracking_uri)} refused a record: {error}"
            ) from error
        self._is_away = False
