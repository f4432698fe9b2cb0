"""`hyperfleet`: its commands, parsed by tyro from the options in `pipelines.commands`."""

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import subcommand

from hyperfleet.errors import ConfigError, HyperFleetError
from pipelines.commands.data import DescribeConfig, PrepareConfig, RenderConfig
from pipelines.commands.first_run import DemoConfig, DoctorConfig
from pipelines.commands.fleets import FleetCommand, PlanConfig, PoliciesConfig
from pipelines.commands.models import CodecsConfig, HeadroomConfig, TablesConfig, TrainRunConfig
from pipelines.commands.parsing import REGISTRY

# Commands and options of the past, with their successors.
MOVED_COMMANDS = {
    "compare": "`hyperfleet tables --train demo --seeds 0 1 2`; its control is `--personal` without a value"
}

MOVED_OPTIONS = {
    "--shift": "--personal (words, taste, camera; without a value the control)",
    "--cue": "--cue-share 1",
    "--no-cue": "--cue-share 0",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DataCommand:
    """Render a data set, prepare a public one, or describe one."""

    command: Annotated[
        Annotated[RenderConfig, subcommand("render")]
        | Annotated[PrepareConfig, subcommand("prepare")]
        | Annotated[DescribeConfig, subcommand("describe")],
        tyro.conf.arg(name=""),
    ]


Commands = (
    Annotated[DemoConfig, subcommand("demo")]
    | Annotated[DataCommand, subcommand("data")]
    | Annotated[TrainRunConfig, subcommand("train")]
    | Annotated[FleetCommand, subcommand("fleet")]
    | Annotated[PoliciesConfig, subcommand("policies")]
    | Annotated[PlanConfig, subcommand("plan")]
    | Annotated[TablesConfig, subcommand("tables")]
    | Annotated[CodecsConfig, subcommand("codecs")]
    | Annotated[HeadroomConfig, subcommand("headroom")]
    | Annotated[DoctorConfig, subcommand("doctor")]
)


def main() -> None:
    """Run one command; errors that HyperFleet raises on purpose are printed without a stack trace."""
    try:
        _run(_parsed(), Console())
    except HyperFleetError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", error, sep="", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; finished work is kept, the same command continues")
        sys.exit(130)
    finally:
        _disconnect()


def _parsed() -> object:
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first in MOVED_COMMANDS:
        raise ConfigError(f"`hyperfleet {first}` is gone; use {MOVED_COMMANDS[first]}")
    for option in sys.argv[1:]:
        if option.partition("=")[0] in MOVED_OPTIONS:
            raise ConfigError(f"{option} is gone; use {MOVED_OPTIONS[option.partition('=')[0]]}")
    command: object = tyro.cli(
        Commands,
        prog="hyperfleet",
        description="Personalized heads for a fleet of devices.",
        registry=REGISTRY,
    )
    return command


def _run(command: object, console: Console) -> None:
    """Run a command; its pipeline is imported only now, since most of them load PyTorch and Ray."""
    match command:
        case DataCommand():
            _run_data(command.command, console)
        case DemoConfig():
            from pipelines.demo import demo

            console.print(f"report: {demo(command, console)}")
        case TrainRunConfig():
            from pipelines.train_generator import train

            result = train(command)
            console.print(
                f"model version {result.model_version}: {result.bundle} (MLflow run {result.run_id})"
            )
        case FleetCommand():
            from pipelines.fleet_command import fleet

            console.print(f"report: {fleet(command, console)}")
        case PoliciesConfig():
            from pipelines.compare_policies import compare_policies

            console.print(f"policies: {compare_policies(command, console)}")
        case PlanConfig():
            from pipelines.plan_capacity import plan

            console.print(f"plan: {plan(command, console)}")
        case TablesConfig():
            from pipelines.tables import tables

            console.print(f"tables: {tables(command, console)}")
        case CodecsConfig():
            from pipelines.codecs import codecs

            console.print(f"codecs: {codecs(command, console)}")
        case HeadroomConfig():
            from pipelines.headroom import headroom

            console.print(f"headroom: {headroom(command, console)}")
        case DoctorConfig():
            from pipelines.doctor import doctor

            if not doctor(command, console):
                sys.exit(1)


def _run_data(command: RenderConfig | PrepareConfig | DescribeConfig, console: Console) -> None:
    match command:
        case RenderConfig():
            from pipelines.render_data import render

            console.print(f"data set: {render(command.data_set(), command.folder)}")
        case PrepareConfig():
            from pipelines.prepare_data import prepare

            console.print(f"data set: {prepare(command)}")
        case DescribeConfig():
            from pipelines.describe_data import describe

            describe(command, console)


def _disconnect() -> None:
    # Whoever connected has imported it; others need not wait for Ray.
    runtime = sys.modules.get("pipelines.runtime")
    if runtime is not None:
        runtime.disconnect()
