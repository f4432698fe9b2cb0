"""Options of the commands of a first run: doctor, demo."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from hyperfleet.cloud.train_config import TrainConfig
from hyperfleet.datasets.fleetqa.scales import scale as scale_named
from hyperfleet.errors import ConfigError
from pipelines.commands.models import OWN_STORE, TrainRunConfig
from pipelines.commands.parsing import default

BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """Render, train, serve, run the fleet, show the result.

    Attributes:
        scale: size of the rendered data set: smoke, demo or full.
        devices: devices of the fleet.
        seed: seed of training and fleet; the data set is always the same.
        workers: Ray Train workers; they share the cores of this machine.
        warm_epochs: passes that both methods share.
        epochs: passes of each method alone.
        data: folder of the data set.
        output: folder of models, event log and report.
    """

    scale: str = "demo"
    devices: Annotated[int | None, default("all of the data set")] = None
    seed: int = 0
    workers: int = 1
    warm_epochs: int = 3
    epochs: int = 2
    data: Annotated[Path | None, default("data/<scale>")] = None
    output: Path = Path("outputs/demo")

    def __post_init__(self) -> None:
        known = scale_named(self.scale)
        if self.devices is not None and not 1 <= self.devices <= known.num_devices:
            raise ConfigError(
                f"DemoConfig.devices must be 1 to {known.num_devices} at scale {self.scale!r}, "
                f"got {self.devices}; choose a larger scale for more"
            )
        self.training("cdc_mmpg")

    @property
    def data_folder(self) -> Path:
        """Folder of the data set."""
        return self.data or Path("data") / self.scale

    def training(self, method: str, warm_start: Path | None = None) -> TrainRunConfig:
        """Return the training of one method; both have the same budget.

        Raises:
            ConfigError: the budget or the number of workers cannot be used.
        """
        return TrainRunConfig(
            data=self.data_folder,
            output=self.output / self.scale / f"seed-{self.seed}" / method,
            num_workers=self.workers,
            warm_start=warm_start,
            train=TrainConfig(
                method=method,
                seed=self.seed,
                warm_epochs=self.warm_epochs,
                epochs=self.epochs,
                batch_size=BATCH_SIZE,
            ),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig:
    """Find what prevents a run on this machine, with the remedy.

    Attributes:
        tracking_uri: MLflow store.
        http_port: port of the service.
    """

    tracking_uri: Annotated[str | None, OWN_STORE] = None
    http_port: int = 8000
