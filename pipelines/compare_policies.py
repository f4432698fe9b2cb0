"""One scenario under several request policies and codecs: what accuracy costs in bytes and joules."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from hyperfleet.emulation.run_log import SCENARIO_FILE
from hyperfleet.errors import ConfigError, unknown_name
from hyperfleet.evaluation.policy_report import PolicyRun, policy_table, write_policy_report
from hyperfleet.evaluation.rendering import to_rich
from hyperfleet.head_codecs import codec as head_codec
from hyperfleet.scenario.named import scenario
from hyperfleet.scenario.policies import POLICIES
from hyperfleet.tracking.registry import NEWEST
from pipelines.emulate_fleet import FleetConfig, fleet_hosts, run_fleet
from pipelines.fleet_models import NEWEST_STATIC
from pipelines.show_fleet import WIDTH, score_run


@dataclass(frozen=True, kw_only=True, slots=True)
class PoliciesConfig:
    """Run one scenario under several request policies, in virtual time, on the same samples.

    Attributes:
        scenario: name of a scenario, or a JSON file with one.
        policies: every-sample, once-per-session, every-n, on-drift, never; the first one is compared with.
        codecs: how heads travel; every policy is run with each.
        devices: devices that take part; None takes the scenario's.
        duration_s: for how long samples arrive; None takes the scenario's.
        seed: root of every draw; None takes the scenario's.
        hosts: processes that compute for the devices; None means one a CPU of the cluster.
        data: a rendered data set.
        model: personalized model: models:/name@alias, models:/name/3 or a bundle folder.
        static_model: Fine-tuning model that answers the same questions, named the same way.
        tracking_uri: MLflow store; None means $MLFLOW_TRACKING_URI or ./mlflow.db.
        output: folder of page, Markdown and CSV; the runs' logs stand below it.
    """

    scenario: str = "drift"
    policies: tuple[str, ...] = tuple(POLICIES)
    codecs: tuple[str, ...] = ("fp32",)
    devices: int | None = None
    duration_s: float | None = None
    seed: int | None = None
    hosts: int | None = None
    data: Path = Path("data/demo")
    model: str = NEWEST
    static_model: str = NEWEST_STATIC
    tracking_uri: str | None = None
    output: Path = Path("outputs/policies")

    def __post_init__(self) -> None:
        for name in ("policies", "codecs"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"PoliciesConfig.{name} needs different names, at least one, got {values}")
        for policy in self.policies:
            if policy not in POLICIES:
                raise unknown_name("policy", policy, POLICIES)
        for codec in self.codecs:
            head_codec(codec)


def compare_policies(config: PoliciesConfig, console: Console) -> Path:
    """Run the scenario under every policy and codec, print the table and return the page.

    Raises:
        HyperFleetError: scenario, data or models cannot be used.
    """
    base = scenario(config.scenario)
    changes: dict[str, Any] = {
        "active_devices": config.devices,
        "duration_s": config.duration_s,
        "seed": config.seed,
        "registered_devices": max(config.devices or 0, base.registered_devices),
    }
    base = dataclasses.replace(base, **{name: value for name, value in changes.items() if value is not None})
    common = FleetConfig(
        scenario=base,
        hosts=config.hosts,
        data=config.data,
        model=config.model,
        static_model=config.static_model,
        tracking_uri=config.tracking_uri,
    )
    runs = []
    # Starting hosts takes longer than most runs.
    with fleet_hosts(common) as hosts:
        for policy in config.policies:
            # A codec changes nothing of a policy that never asks.
            for codec in config.codecs if policy != "never" else config.codecs[:1]:
                name = policy if len(config.codecs) == 1 else f"{policy}, {codec}"
                console.print(f"[bold]{name}[/]")
                output = config.output / "runs" / f"{policy}-{codec}"
                run = dataclasses.replace(
                    common,
                    scenario=dataclasses.replace(base, policy=POLICIES[policy](), codec=codec),
                    output=output,
                    # What was run already is read again; another scenario there is refused.
                    resume=(output / SCENARIO_FILE).exists(),
                )
                runs.append(PolicyRun(name=name, score=score_run(run_fleet(run, console, hosts))))
    title = f"Request policies in scenario {base.name}, seed {base.seed}"
    wide = console if console.is_terminal else Console(width=WIDTH)
    wide.print(to_rich(policy_table(runs, title=title)))
    return write_policy_report(runs, config.output, title=title)
