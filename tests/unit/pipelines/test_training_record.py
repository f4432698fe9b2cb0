"""The driver's record of a training run: each epoch once, whichever process dies, the store included."""

from pathlib import Path

import pytest
import ray
from mlflow import MlflowClient

from actors.progress_board import ProgressBoard
from hyperfleet.errors import ServiceError
from hyperfleet.tracking.mlflow_store import prepare_store
from hyperfleet.tracking.mlflow_tracker import MlflowTracker, open_run
from pipelines import training_record
from pipelines.training_record import STEP, TrainingRecord

pytestmark = pytest.mark.heavy


class LocalBoard(ProgressBoard):
    """A board in this process, asked the way a handle is."""

    def __init__(self) -> None:
        super().__init__()
        board = self

        class Method:
            @staticmethod
            def remote(after_step: int) -> object:
                return ProgressBoard.record(board, after_step)

        self.record = Method  # type: ignore[assignment, method-assign]


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> LocalBoard:
    monkeypatch.setattr(ray, "get", lambda value: value)
    return LocalBoard()


@pytest.fixture
def tracker(tmp_path: Path) -> MlflowTracker:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return open_run(prepare_store(uri), tracking_uri=uri)


def history(tracker: MlflowTracker, name: str) -> list[tuple[int, float]]:
    client = MlflowClient(tracking_uri=tracker.tracking_uri)
    return [(point.step, point.value) for point in client.get_metric_history(tracker.run_id, name)]


def test_an_epoch_is_recorded_once_by_this_driver_and_by_the_next(board, tracker):
    record = TrainingRecord(board, tracker)
    board.post_params({"weights_origin": "random"})
    board.post_metrics(10, {"loss": 2.0})
    record.update()
    record.update()
    board.post_metrics(10, {"loss": 2.0})  # done again: its worker died
    board.post_metrics(20, {"loss": 1.0})
    record.update()
    # The driver is killed; its successor's workers begin after the last checkpoint and tell epoch 2 again.
    successor = TrainingRecord(board, tracker)
    board.post_metrics(20, {"loss": 1.0})
    board.post_metrics(30, {"loss": 0.5})
    successor.finish()
    assert history(tracker, "loss") == [(10, 2.0), (20, 1.0), (30, 0.5)]
    run = MlflowClient(tracking_uri=tracker.tracking_uri).get_run(tracker.run_id)
    assert run.data.params["weights_origin"] == "random"
    assert run.data.metrics[STEP] == 30


def test_a_store_that_is_away_holds_nothing_up_and_misses_nothing(board, tracker, monkeypatch, caplog):
    record = TrainingRecord(board, tracker)
    board.post_metrics(10, {"loss": 2.0})

    def away(uri: str) -> None:
        raise ServiceError(f"no tracking server answers at {uri}")

    with monkeypatch.context() as broken:
        broken.setattr(training_record, "connect", away)
        record.update()
        board.post_metrics(20, {"loss": 1.0})
        record.update()
        with pytest.raises(ServiceError, match="no tracking server answers"):
            record.finish()
    assert [line.message.count("training goes on") for line in caplog.records] == [1]  # said once
    assert history(tracker, "loss") == []
    record.finish()
    assert history(tracker, "loss") == [(10, 2.0), (20, 1.0)]
