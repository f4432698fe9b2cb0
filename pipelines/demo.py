"""From nothing to an adapted fleet: render, train, serve, run the fleet, show what it brought."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from hyperfleet.cloud.training import TrainConfig
from hyperfleet.datasets.fleetqa.scales import scale as scale_named
from hyperfleet.errors import ConfigError
from hyperfleet.scenario.named import full_load
from hyperfleet.tracking.registry import GENERATOR_NAME, STATIC_NAME
from pipelines.emulate_fleet import FleetConfig, run_fleet
from pipelines.render_data import render
from pipelines.runtime import connect, disconnect
from pipelines.show_fleet import show_fleet
from pipelines.steps import StepLog
from pipelines.train_generator import TrainResult, TrainRunConfig, train

# What one pass costs is in the README; the warm model is shared by both methods.
WARM_EPOCHS, EPOCHS, BATCH_SIZE = 3, 2, 32


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """The whole run in a handful of settings.

    Attributes:
        scale: size of the rendered data set: smoke, demo or full.
        devices: devices in the fleet; None takes all of the data set.
        seed: seed of training and fleet; the data set is always the same.
        workers: Ray Train workers; they share the cores of this machine.
        warm_epochs: passes that both methods share.
        epochs: passes of each method's own.
        data: folder of the data set; None means data/<scale>.
        output: folder of models, event log and report.
    """

    scale: str = "demo"
    devices: int | None = None
    seed: int = 0
    workers: int = 1
    warm_epochs: int = WARM_EPOCHS
    epochs: int = EPOCHS
    data: Path | None = None
    output: Path = Path("outputs/demo")

    def __post_init__(self) -> None:
        known = scale_named(self.scale)
        if self.devices is not None and not 1 <= self.devices <= known.num_devices:
            raise ConfigError(
                f"DemoConfig.devices must be 1 to {known.num_devices} at scale {self.scale!r}, "
                f"got {self.devices}; choose a larger scale for more"
            )

    @property
    def data_folder(self) -> Path:
        """Where the data set is."""
        return self.data or Path("data") / self.scale


def train_pair(config: DemoConfig, output: Path, seed: int) -> tuple[TrainResult, TrainResult]:
    """Train Fine-tuning and CDC-MMPG with the same budget, from the same model after the first stage."""

    def run(method: str, warm_start: Path | None) -> TrainResult:
        return train(
            TrainRunConfig(
                data=config.data_folder,
                output=output / method,
                num_workers=config.workers,
                warm_start=warm_start,
                train=TrainConfig(
                    method=method,
                    seed=seed,
                    warm_epochs=config.warm_epochs,
                    epochs=config.epochs,
                    batch_size=BATCH_SIZE,
                ),
            )
        )

    static = run("fine_tuning", None)
    return static, run("cdc_mmpg", static.warm)


def demo(config: DemoConfig) -> Path:
    """Run every step and return the report's path."""
    console = Console()
    log = StepLog(console)
    connect()
    try:
        with log.step("render the data set"):
            render(scale_named(config.scale), config.data_folder)
        with log.step("train"):
            static, personal = train_pair(
                config, config.output / config.scale / f"seed-{config.seed}", config.seed
            )
        with log.step("serve and run the fleet"):
            num_devices = config.devices or scale_named(config.scale).num_devices
            result = run_fleet(
                FleetConfig(
                    scenario=replace(
                        full_load(),
                        seed=config.seed,
                        registered_devices=scale_named(config.scale).num_devices,
                        active_devices=num_devices,
                    ),
                    clock="real",
                    data=config.data_folder,
                    model=f"models:/{GENERATOR_NAME}/{personal.model_version}",
                    static_model=f"models:/{STATIC_NAME}/{static.model_version}",
                    output=config.output / config.scale / "fleet",
                ),
                console,
            )
    finally:
        disconnect()
    return show_fleet(result, console=console, steps=tuple(log.facts)).report
