"""`hyperfleet demo`: render, train, serve, run the fleet, show the result."""

import shutil
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from hyperfleet.datasets.fleetqa.scales import scale as scale_named
from hyperfleet.scenario.named import full_load
from hyperfleet.tracking.model_names import GENERATOR_NAME, STATIC_NAME
from pipelines.commands.first_run import DemoConfig
from pipelines.emulate_fleet import FleetConfig, run_fleet
from pipelines.render_data import render
from pipelines.runtime import connect, disconnect
from pipelines.show_fleet import show_fleet
from pipelines.steps import StepLog
from pipelines.train_generator import train


def demo(config: DemoConfig, console: Console) -> Path:
    """Run every step and return the report's path; data set and models of an earlier demo are kept."""
    data, output = scale_named(config.scale), config.output / config.scale / "fleet"
    log = StepLog(console)
    connect()
    try:
        with log.step("render the data set"):
            render(data, config.data_folder)
        with log.step("train"):
            static = train(config.training("fine_tuning"))
            personal = train(config.training("cdc_mmpg", static.warm))
        with log.step("serve and run the fleet"):
            shutil.rmtree(output, ignore_errors=True)  # the log of an earlier demo
            result = run_fleet(
                FleetConfig(
                    scenario=replace(
                        full_load(),
                        seed=config.seed,
                        registered_devices=data.num_devices,
                        active_devices=config.devices or data.num_devices,
                    ),
                    clock="real",
                    data=config.data_folder,
                    model=f"models:/{GENERATOR_NAME}/{personal.model_version}",
                    static_model=f"models:/{STATIC_NAME}/{static.model_version}",
                    output=output,
                ),
                console,
            )
    finally:
        disconnect()
    return show_fleet(result, console=console, steps=tuple(log.facts)).report
