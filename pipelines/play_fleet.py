"""A fleet in real time: every host plays a share of the devices against the running service."""

import os
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from actors.device_host import CONTROL, Service, Share
from actors.placement import alive_nodes
from actors.supervised_pool import HostDeath, Job, SupervisedPool
from hyperfleet.emulation.real_time import RealTimeRun, join
from hyperfleet.emulation.timeline.plan import Plan
from hyperfleet.emulation.timeline.records import Work
from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs import BaseHead
from hyperfleet.scenario.definition import Scenario
from pipelines.fleet_hosts import FleetHosts
from pipelines.fleet_models import TOKEN_VARIABLE, check_service
from pipelines.generator_for_run import generator_for_run
from pipelines.progress import progress_bar
from serve_apps.ray_private import kill_replica

# Interval of progress updates of a run in real time.
POLL_S = 0.5
# Time between handing out the shares of a run and the start of all hosts.
START_PAUSE_S = 1.0


def play(
    scenario: Scenario,
    hosts: FleetHosts,
    plan: Plan,
    work: Work,
    *,
    generator_url: str | None,
    tracking_uri: str | None,
    output: Path,
    console: Console | None,
) -> tuple[RealTimeRun, tuple[HostDeath, ...]]:
    """Run a scenario in real time; an interrupt ends it and keeps the measurements up to then.

    If a host dies, another one replays its shares from the start.

    Args:
        scenario: the scenario to run.
        hosts: hosts that play the devices; their features are computed already.
        plan: devices and samples.
        work: cost of a sample on a device.
        generator_url: a running service; None starts one.
        tracking_uri: store of its model.
        output: folder of the log, where the bursts measured before the run are kept.
        console: shows the progress.

    Raises:
        HyperFleetError: the service cannot be used, or hosts die again and again.
    """
    _check_reach(generator_url)
    models, num_hosts = hosts.models, hosts.num_hosts
    generator = generator_for_run(
        models.personal.uri, tracking_uri, generator_url, replicas=scenario.cloud.replicas
    )
    with generator as url, hosts.pool() as pool:
        num_before = len(pool.deaths)
        asked = _service(url, scenario, hosts), hosts.table_ref
        # Before the load: the queue model that is compared with it is fitted to these bursts.
        bursts = Job(key="bursts", method="measure_bursts", args=asked)
        pool.run([bursts], lambda _, measured: measured.save(output))
        begin_at_s = time.time() + START_PAUSE_S
        shares = [
            Share(
                scenario=scenario,
                plan=plan.share(index, num_hosts),
                work=work,
                begin_at_s=begin_at_s,
                leads=index == 0,
                kill_replica=kill_replica,
            )
            for index in range(num_hosts)
        ]
        jobs = [Job(key=index, method="play", args=(share, *asked)) for index, share in enumerate(shares)]
        return _measure(pool, jobs, plan.num_samples, console), tuple(pool.deaths[num_before:])


def _check_reach(generator_url: str | None) -> None:
    if generator_url is None and (num_nodes := len(alive_nodes())) > 1:
        raise ConfigError(
            "FleetConfig.generator_url: a generator that is started for a run listens on one machine alone, "
            f"and this cluster has {num_nodes}; `serve deploy serve_apps/production.yaml`, then name its URL"
        )


def _service(url: str, scenario: Scenario, hosts: FleetHosts) -> Service:
    served = check_service(url, hosts.models)
    base = BaseHead(layout=hosts.personal.layout, flat=hosts.personal.flat_head().detach())
    served.check_codec(scenario.codec, base)
    return Service(
        url=url,
        task=served.task,
        model=served.name,
        codec=scenario.codec,
        base=base,
        retry=scenario.retry,
        token=os.environ.get(TOKEN_VARIABLE),
    )


def _measure(pool: SupervisedPool, jobs: list[Job], num_samples: int, console: Console | None) -> RealTimeRun:
    measured: list[RealTimeRun] = []
    interrupt = None
    with ThreadPoolExecutor(1) as executor, progress_bar(console) as progress:
        bar = progress.add_task("real time", total=num_samples, note="samples")
        playing = executor.submit(pool.run, jobs, lambda _, share: measured.append(share))
        while not playing.done():
            try:
                wait([playing], timeout=POLL_S)
                states = pool.ask_all("progress", CONTROL)
            except KeyboardInterrupt as error:
                interrupt = error
                pool.ask_all("interrupt", CONTROL)
                continue
            now_s = max((now_s for now_s, _ in states), default=0.0)
            num_answered = sum(number for _, number in states)
            progress.update(bar, completed=num_answered, note=f"samples, {now_s:.0f} s")
        playing.result()
    run = join(measured)
    return replace(run, ended_by=interrupt) if interrupt is not None else run
