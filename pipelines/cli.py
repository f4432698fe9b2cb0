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
from pipelines.commands.models import CodecsConfig, TablesConfig, TrainRunConfig
from pipelines.commands.parsing import REGISTRY, Command

# Commands and options of the past, with their successors.
MOVED_COMMANDS = {
    "compare": "`hyperfleet tables --train demo --seeds 0 1 2`; its control without shift is `--shift 0`"
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

    def run(self, console: Console) -> None:
        """Run the command chosen."""
        self.command.run(console)


Commands = (
    Annotated[DemoConfig, subcommand("demo")]
    | Annotated[DataCommand, subcommand("data")]
    | Annotated[TrainRunConfig, subcommand("train")]
    | Annotated[FleetCommand, subcommand("fleet")]
    | Annotated[PoliciesConfig, subcommand("policies")]
    | Annotated[PlanConfig, subcommand("plan")]
    | Annotated[TablesConfig, subcommand("tables")]
    | Annotated[CodecsConfig, subcommand("codecs")]
    | Annotated[DoctorConfig, subcommand("doctor")]
)


def main() -> None:
    """Run one command; errors that HyperFleet raises on purpose are printed without a stack trace."""
    try:
        _parsed().run(Console())
    except HyperFleetError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", error, sep="", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; finished work is kept, the same command continues")
        sys.exit(130)
    finally:
        _disconnect()


def _parsed() -> Command:
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first in MOVED_COMMANDS:
        raise ConfigError(f"`hyperfleet {first}` is gone; use {MOVED_COMMANDS[first]}")
    command: Command = tyro.cli(
        Commands,
        prog="hyperfleet",
        description="Personalized heads for a fleet of devices.",
        registry=REGISTRY,
    )
    return command


def _disconnect() -> None:
    # Whoever connected has imported it; others need not wait for Ray.
    runtime = sys.modules.get("pipelines.runtime")
    if runtime is not None:
        runtime.disconnect()
