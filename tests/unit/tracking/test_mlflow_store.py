import pytest

from hyperfleet.errors import ConfigError, ServiceError
from hyperfleet.tracking.mlflow_store import absolute_uri, connect, default_tracking_uri, prepare_store
from hyperfleet.tracking.mlflow_tracker import open_run

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/sub/mlflow.db"
    prepare_store(uri)
    return uri


def test_a_prepared_store_is_found_again_and_keeps_artifacts_beside_it(uri):
    experiment_id = prepare_store(uri)
    assert experiment_id == prepare_store(uri)
    location = connect(uri).get_experiment(experiment_id).artifact_location
    assert location == uri.replace("sqlite:///", "file://").replace("mlflow.db", "mlartifacts")


@pytest.mark.heavy
def test_preparing_a_fresh_store_says_nothing(tmp_path, capfd, caplog):
    prepare_store(f"sqlite:///{tmp_path}/mlflow.db")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_run_is_continued_by_its_id(uri, tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    tracker = open_run(prepare_store(uri), tracking_uri=uri, run_name="two workers", tags={"git": "none"})
    tracker.log_params({"seed": 3})
    for step, loss in enumerate([2.0, 1.0]):
        # A restarted worker knows only these two strings.
        type(tracker)(run_id=tracker.run_id, tracking_uri=tracker.tracking_uri).log_metrics(
            {"loss": loss}, step=step
        )
    tracker.log_artifacts(tmp_path, "notes")
    tracker.finish("KILLED")

    client = connect(uri)
    run = client.get_run(tracker.run_id)
    history = client.get_metric_history(tracker.run_id, "loss")
    assert (run.info.run_name, run.info.status, run.data.params) == ("two workers", "KILLED", {"seed": "3"})
    assert [(entry.step, entry.value) for entry in history] == [(0, 2.0), (1, 1.0)]
    assert [file.path for file in client.list_artifacts(tracker.run_id, "notes")] == ["notes/note.txt"]


def test_the_default_store_is_an_absolute_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000/")
    assert default_tracking_uri() == "http://tracking:5000"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///runs", "sqlite://", "databricks"])
def test_what_is_no_store_is_refused(uri):
    with pytest.raises(ConfigError, match=r"names no tracking store|in memory"):
        absolute_uri(uri)


@pytest.mark.timeout(20)
def test_an_unreachable_store_is_said_at_once(tmp_path):
    with pytest.raises(ServiceError, match="no tracking server answers at"):
        prepare_store("http://127.0.0.1:1")
    (tmp_path / "mlflow.db").write_text("no database" * 100)
    with pytest.raises(ServiceError, match="file is not a database"):
        prepare_store(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(ServiceError, match="cannot be opened"):
        prepare_store(f"sqlite:///{tmp_path}")
