"""One scenario under several request policies and codecs: accuracy against bytes and joules."""

import dataclasses
from pathlib import Path

from rich.console import Console

from hyperfleet.emulation.run_log import SCENARIO_FILE
from hyperfleet.evaluation.policy_report import PolicyRun, policy_table, write_policy_report
from hyperfleet.evaluation.rendering import to_rich, wide_console
from hyperfleet.scenario.policies import POLICIES
from pipelines.commands.fleets import PoliciesConfig
from pipelines.emulate_fleet import FleetConfig, fleet_hosts, run_fleet
from pipelines.show_fleet import score_run


def compare_policies(config: PoliciesConfig, console: Console) -> Path:
    """Run the scenario under every policy and codec, print the table and return the page.

    Raises:
        HyperFleetError: scenario, data or models cannot be used.
    """
    base = config.base()
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
        for policy in config.policies or tuple(POLICIES):
            # Without requests, codecs make no difference.
            for codec in config.codecs if policy != "never" else config.codecs[:1]:
                name = policy if len(config.codecs) == 1 else f"{policy}, {codec}"
                console.print(f"[bold]{name}[/]")
                output = config.output / "runs" / f"{policy}-{codec}"
                run = dataclasses.replace(
                    common,
                    scenario=dataclasses.replace(base, policy=POLICIES[policy](), codec=codec),
                    output=output,
                    # Finished runs are read again; a log of another scenario is refused.
                    resume=(output / SCENARIO_FILE).exists(),
                )
                runs.append(PolicyRun(name=name, score=score_run(run_fleet(run, console, hosts))))
    title = f"Request policies in scenario {base.name}, seed {base.seed}"
    wide = wide_console(console)
    wide.print(to_rich(policy_table(runs, title=title)))
    return write_policy_report(runs, config.output, title=title)
