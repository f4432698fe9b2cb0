"""One real Ray Train run of each method: workers, checkpoints, MLflow and registry as users see them."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from hyperfleet.bundle import load_device_model, load_generator, read_config
from hyperfleet.cloud.assembly import assemble
from hyperfleet.cloud.training import TrainConfig
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.errors import CheckpointError, ConfigError, DataError, UnknownNameError
from hyperfleet.tracking.registry import GENERATOR_NAME, NEWEST, resolve_bundle
from pipelines.render_data import render
from pipelines.runtime import connect, disconnect
from pipelines.train_generator import TrainResult, TrainRunConfig, train

pytestmark = pytest.mark.integration

SCALE = FleetQAConfig(num_seen_devices=6, num_held_out_devices=1, history_clips=2, live_clips=1)
SCHEDULE = TrainConfig(warm_epochs=1, epochs=1, batch_size=16)


@dataclass(frozen=True)
class Trained:
    root: Path
    uri: str
    static: TrainResult
    personal: TrainResult

    def config(self, **changes: object) -> TrainRunConfig:
        given = {"data": self.root / "data", "output": self.root / "out", "tracking_uri": self.uri, **changes}
        return TrainRunConfig(**given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    root = tmp_path_factory.mktemp("train")
    render(SCALE, root / "data", workers=0, show_progress=False)
    uri = f"sqlite:///{root}/mlflow.db"
    shared = {"data": root / "data", "tracking_uri": uri, "num_workers": 2}
    connect(num_cpus=2)
    static = train(
        TrainRunConfig(
            **shared, output=root / "static", train=dataclasses.replace(SCHEDULE, method="fine_tuning")
        )
    )
    personal = train(
        TrainRunConfig(**shared, output=root / "personal", train=SCHEDULE, warm_start=static.warm)
    )
    yield Trained(root=root, uri=uri, static=static, personal=personal)
    disconnect()


def test_two_workers_train_what_a_plain_loop_trains(trained: Trained) -> None:
    plain = dataclasses.replace(SCHEDULE, method="fine_tuning")
    trainer = assemble(plain, trained.config(train=plain).data).trainer
    results = list(trainer.run())
    alone, together = trainer.model.device.state_dict(), load_device_model(trained.static.bundle).state_dict()
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    assert results[-1].metrics["validation_accuracy"] == pytest.approx(
        trained.static.metrics["validation_accuracy"], abs=0.1
    )


def test_the_generator_is_registered_under_the_alias_that_serving_asks_for(trained: Trained) -> None:
    resolved = resolve_bundle(NEWEST, trained.uri)
    assert (resolved.name, resolved.version) == (GENERATOR_NAME, trained.personal.model_version)
    assert resolved.run_id == trained.personal.run_id
    assert load_generator(resolved.local_dir).layout == load_device_model(resolved.local_dir).layout
    assert read_config(resolved.local_dir).method == "cdc_mmpg"


def test_everything_is_in_mlflow(trained: Trained) -> None:
    client = MlflowClient(tracking_uri=trained.uri)
    for result, stages in ((trained.static, ("warm", "continue")), (trained.personal, ("reason", "adapt"))):
        run = client.get_run(result.run_id)
        assert run.info.status == "FINISHED"
        assert run.data.params["seed"] == "0"
        for stage in stages:
            assert any(name.startswith(f"{stage}/loss") for name in run.data.metrics)
    assert "adapt/validation_accuracy" in client.get_run(trained.personal.run_id).data.metrics


def test_a_finished_run_is_taken_up_where_it_ended(trained: Trained) -> None:
    config = trained.config(
        output=trained.root / "personal", train=SCHEDULE, warm_start=trained.static.warm, num_workers=2
    )
    before = (trained.personal.bundle / "model.safetensors").read_bytes()
    again = train(config)
    assert again.run_id == trained.personal.run_id
    assert (again.bundle / "model.safetensors").read_bytes() == before


def test_the_device_model_alone_starts_warm(trained: Trained) -> None:
    assert trained.personal.warm == trained.static.warm
    trainer = assemble(SCHEDULE, trained.config(train=SCHEDULE).data).trainer
    assert not any(name.startswith("generator.base") for name, _ in trainer.model.named_parameters())


def test_mistakes_are_named_before_a_worker_starts(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hyperfleet data render"):
        train(trained.config(data=tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="no model in"):
        train(trained.config(warm_start=tmp_path))
    with pytest.raises(UnknownNameError, match="all_in_one_ti, tiny"):
        trained.config(train=dataclasses.replace(SCHEDULE, encoder="huge"))
    with pytest.raises(ConfigError, match="num_workers"):
        trained.config(num_workers=0)
    with pytest.raises(ConfigError, match="this machine has 2"):
        train(trained.config(num_workers=64))


def test_a_folder_of_another_run_is_refused_and_its_record_left_alone(trained: Trained) -> None:
    other = dataclasses.replace(SCHEDULE, seed=1)
    with pytest.raises(CheckpointError, match="other seed"):
        train(trained.config(output=trained.root / "personal", train=other, warm_start=trained.static.warm))
    run = MlflowClient(tracking_uri=trained.uri).get_run(trained.personal.run_id)
    assert run.info.status == "FINISHED"


def test_a_warm_model_of_another_data_set_is_refused(trained: Trained, tmp_path: Path) -> None:
    data = render(dataclasses.replace(SCALE, seed=5), tmp_path / "data", workers=0, show_progress=False)
    with pytest.raises(CheckpointError, match="another data set"):
        train(trained.config(data=data, warm_start=trained.static.warm))
