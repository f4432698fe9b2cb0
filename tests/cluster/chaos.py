"""`make chaos`: kill every kind of process at a random moment under load, and measure the recovery.

A Ray cluster on this machine, an MLflow server, the service with two replicas and a fleet. Each event draws
its moment from its own seed, kills, waits for recovery and checks: no device lost, no request doubled or
failed, no checkpoint corrupt. Exit code 1 if a check fails.

    python tests/cluster/chaos.py [--seed 0] [--only replica proxy ...]
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from chaos_world import (
    BrokenError,
    Killer,
    Outcome,
    World,
    kill,
    kill_with_children,
    processes,
    wait_for,
    world_of,
)
from load import Load
from mlflow import MlflowClient
from ray import serve
from ray.serve import RunTarget
from rich.console import Console
from rich.table import Table

import serve_apps
from hyperfleet.client import served_model
from hyperfleet.emulation.run_log import differences
from hyperfleet.tracking.registry import ALIAS, GENERATOR_NAME
from pipelines.emulate_fleet import FleetResult
from pipelines.train_generator import TrainResult

# Number of requests before a kill in the service, and the least number after it.
CALM_REQUESTS = 200


def checkpoints(output: Path) -> list[Path]:
    """Return the checkpoints in a run's folder."""
    return list(output.glob("checkpoints/checkpoint_*/progress.json"))


def hosts() -> list[psutil.Process]:
    """Return the host processes, which compute for devices."""
    return processes("ray::DeviceHost")


def host_actor(world: World, rng: random.Random) -> Outcome:
    """Kill a host process, which computes for devices."""
    killer = Killer(in_the_middle(world, "host-actor", rng), hosts, rng)
    result = world.emulate("host-actor")
    killer.moment()
    return _same_log(world, result)


def raylet(world: World, rng: random.Random) -> Outcome:
    """Kill the raylet of a node and all processes below it."""
    node = world.cluster.add_node(num_cpus=1, resources={"device_host": 4})
    world.cluster.wait_for_nodes()
    process = psutil.Process(node.all_processes["raylet"][0].process.pid)
    is_in_the_middle = in_the_middle(world, "raylet", rng)
    # When a machine is lost, its hosts die with the raylet.
    killer = Killer(
        lambda: is_in_the_middle() and is_computing(process),
        lambda: [process],
        rng,
        strike=kill_with_children,
    )
    result = world.emulate("raylet")
    killer.moment()
    with contextlib.suppress(Exception):  # the node is dead already
        world.cluster.remove_node(node, allow_graceful=False)
    return _same_log(world, result)


def is_computing(parent: psutil.Process) -> bool:
    """Return whether a host below this raylet has a job: Ray names a process after the method it runs."""
    family = {parent.pid, *(each.pid for each in parent.children(recursive=True))}
    return any(each.pid in family for each in processes("ray::DeviceHost.answer"))


def in_the_middle(world: World, name: str, rng: random.Random) -> Callable[[], bool]:
    """Return a condition that holds once a random number of stretches of a scenario's log is written.

    The number is within the first third: later stretches contain few new computations.
    """
    assert world.calm is not None
    num_parts = rng.randint(1, max(1, world.calm.log.num_parts() // 3))
    answers = world.root / name / "answers"
    return lambda: len(list(answers.glob("part-*.parquet"))) >= num_parts


def _same_log(world: World, result: FleetResult) -> Outcome:
    assert world.calm is not None
    if not result.deaths:
        raise BrokenError("the pool saw no death")
    found = differences(world.calm.log, result.log)
    if found:
        raise BrokenError(f"the log differs from an undisturbed one: {'; '.join(found)}")
    rows = result.log.answers().num_rows
    recovery_s = max(death.recovery_s or 0.0 for death in result.deaths)
    return Outcome(recovery_s=recovery_s, checked=f"{rows:,} answers, log equal to the undisturbed one")


@contextlib.contextmanager
def service(world: World) -> Iterator[Load]:
    """Serve the newest model with two replicas, under load."""
    url = serve_apps.start(serve_apps.GeneratorArgs(tracking_uri=world.uri, replicas=2), 0)
    try:
        wait_for("two replicas", lambda: len(replicas()) == 2)
        with Load(url=url, model=served_model(url, task="open-ended-qa")) as load:
            load.wait_for(CALM_REQUESTS)
            yield load
    finally:
        serve_apps.stop()


def replicas() -> list[psutil.Process]:
    """Processes of the generator's replicas that have started."""
    return processes("ServeReplica:generator:ParameterGenerator")


def _under_load(load: Load, strike: Callable[[], object], is_well: Callable[[], bool]) -> Outcome:
    struck_s = time.monotonic()
    strike()
    recovery_s = wait_for("the service is whole again", is_well)
    load.wait_for(CALM_REQUESTS)
    if load.failed:
        raise BrokenError(f"{len(load.failed)} requests failed, the first: {load.failed[0].fault}")
    if not any(each.at_s > struck_s for each in load.sent):
        raise BrokenError("no request was answered afterwards")
    return Outcome(recovery_s=recovery_s, checked=load.summary(struck_s))


def replica(world: World, rng: random.Random) -> Outcome:
    """Kill one of the service's two replicas."""
    with service(world) as load:
        victim = rng.choice(replicas())
        load.wait_for(rng.randrange(CALM_REQUESTS))

        def whole() -> bool:
            alive = replicas()
            return len(alive) == 2 and victim.pid not in {each.pid for each in alive} and _is_healthy()

        return _under_load(load, lambda: kill(victim), whole)


def proxy(world: World, rng: random.Random) -> Outcome:
    """Kill the proxy, the process that devices connect to."""
    with service(world) as load:
        victim = rng.choice(processes("ProxyActor") or processes("haproxy"))
        load.wait_for(rng.randrange(CALM_REQUESTS))
        sent = len(load.sent)
        return _under_load(
            load,
            lambda: kill(victim),
            lambda: not victim.is_running() and len(load.sent) > sent + 2 * load.devices and _is_healthy(),
        )


def controller(world: World, rng: random.Random) -> Outcome:
    """Kill Serve's controller, which replaces dead actors."""
    with service(world) as load:
        victim = rng.choice(processes("ray::ServeController"))
        load.wait_for(rng.randrange(CALM_REQUESTS))

        def whole() -> bool:
            alive = {each.pid for each in processes("ray::ServeController")}
            return bool(alive - {victim.pid}) and _is_healthy()

        return _under_load(load, lambda: kill(victim), whole)


def _is_healthy() -> bool:
    try:
        status = serve.status().applications["generator"]
    except Exception:  # the killed process may be the controller
        return False
    return status.status == "RUNNING"


def new_version(world: World, rng: random.Random) -> Outcome:
    """Register a new version of the model; replicas follow the alias. Nothing is killed."""
    other = world.train("second", "cdc_mmpg", seed=1)
    first = world.undisturbed["cdc_mmpg"]
    client = MlflowClient(tracking_uri=world.uri)
    client.set_registered_model_alias(GENERATOR_NAME, ALIAS, first.model_version)
    with service(world) as load:
        load.wait_for(rng.randrange(CALM_REQUESTS))

        def strike() -> None:
            client.set_registered_model_alias(GENERATOR_NAME, ALIAS, other.model_version)

        def followed() -> bool:
            return {each.version for each in load.sent[-4 * load.devices :]} == {other.model_version}

        outcome = _under_load(load, strike, followed)
        versions = {each.version for each in load.sent}
        if versions != {first.model_version, other.model_version}:
            raise BrokenError(f"versions served: {versions}")
        return outcome


def new_deployment(world: World, rng: random.Random) -> Outcome:
    """Deploy the service again with other limits, replica by replica. Nothing is killed."""
    with service(world) as load:
        old = {each.pid for each in replicas()}
        load.wait_for(rng.randrange(CALM_REQUESTS))
        args = serve_apps.GeneratorArgs(tracking_uri=world.uri, replicas=2, max_waiting_heads=256)
        target = RunTarget(target=serve_apps.generator(args), name="generator", route_prefix="/")

        def whole() -> bool:
            new = {each.pid for each in replicas()}
            return len(new) == 2 and not new & old and _is_healthy()

        return _under_load(load, lambda: serve.run_many([target], wait_for_applications_running=False), whole)


def train_worker(world: World, rng: random.Random) -> Outcome:
    """Kill a worker of Ray Train."""
    output = world.root / "train-worker"
    num = rng.randint(1, 2)
    killer = Killer(lambda: len(checkpoints(output)) >= num, lambda: processes("RayTrainWorker"), rng)
    seen: list[float] = []
    watcher = threading.Thread(target=_first_after, args=(killer, output, seen), daemon=True)
    watcher.start()
    result = world.train("train-worker")
    killed_at = killer.moment()
    watcher.join(timeout=5)
    return _same_training(world, result, (seen[0] if seen else time.monotonic()) - killed_at)


def _first_after(killer: Killer, output: Path, seen: list[float]) -> None:
    """Record the time of the first checkpoint after the kill, when training goes on."""
    while killer.killed_at is None:
        time.sleep(0.02)
    before = {path.parent.name for path in checkpoints(output)}
    while not {path.parent.name for path in checkpoints(output)} - before:
        time.sleep(0.05)
    seen.append(time.monotonic())


DRIVER = """
import sys
sys.path[:0] = sys.argv[1:4]
from chaos_world import World, MlflowServer, Console
from pathlib import Path
from pipelines.runtime import connect
root = Path(sys.argv[4])
connect()
World(root=root, cluster=None, mlflow=MlflowServer(root), console=Console()).train("driver")
"""


def driver(world: World, rng: random.Random) -> Outcome:
    """Kill the driver of a training run; the same command continues it."""
    here = Path(__file__).parent
    places = [str(here), str(here.parents[1]), str(here.parents[1] / "platform")]
    running = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *places, str(world.root)], start_new_session=True, cwd=world.root
    )
    num = rng.randint(1, 2)
    wait_for("the driver's training", lambda: len(checkpoints(world.root / "driver")) >= num)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    started = time.monotonic()
    result = world.train("driver")
    return _same_training(world, result, time.monotonic() - started)


def mlflow_server(world: World, rng: random.Random) -> Outcome:
    """Kill the tracking server while a training run reports to it; restart it before the end."""
    output = world.root / "mlflow-server"
    outcome: dict[str, float] = {}

    def strike() -> None:
        wait_for("a checkpoint", lambda: len(checkpoints(output)) >= 1)
        time.sleep(rng.uniform(0, 2))
        world.mlflow.kill()
        time.sleep(rng.uniform(2, 5))
        started = time.monotonic()
        world.mlflow.start()
        outcome["recovery_s"] = time.monotonic() - started

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    try:
        result = world.train("mlflow-server")
    except Exception as error:
        # The run ended before the server was back: the same command records the rest.
        thread.join()
        world.console.print(f"  after {type(error).__name__}: the same command again", highlight=False)
        result = world.train("mlflow-server")
    thread.join()
    return _same_training(world, result, outcome["recovery_s"])


def _same_training(world: World, result: TrainResult, recovery_s: float) -> Outcome:
    calm = world.undisturbed["fine_tuning"]
    if result.metrics != calm.metrics:
        raise BrokenError(f"metrics {result.metrics}, undisturbed {calm.metrics}")
    model = "model.safetensors"
    if (result.bundle / model).read_bytes() != (calm.bundle / model).read_bytes():
        raise BrokenError("the model differs from an undisturbed run's")
    client = MlflowClient(tracking_uri=world.uri)
    steps = [[p.step for p in client.get_metric_history(r.run_id, "step")] for r in (result, calm)]
    if steps[0] != steps[1]:
        raise BrokenError(f"epochs recorded {steps[0]}, undisturbed {steps[1]}")
    return Outcome(
        recovery_s=recovery_s, checked=f"{len(steps[0])} epochs once each, model equal to the digit"
    )


EVENTS: dict[str, Callable[[World, random.Random], Outcome]] = {
    "host actor": host_actor,
    "raylet": raylet,
    "replica": replica,
    "proxy": proxy,
    "controller": controller,
    "new version": new_version,
    "new deployment": new_deployment,
    "train worker": train_worker,
    "driver": driver,
    "MLflow server": mlflow_server,
}


def main() -> int:
    """Run the events; print the table and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=sorted(EVENTS), default=list(EVENTS))
    arguments = parser.parse_args()
    console = Console()
    root = Path(tempfile.mkdtemp(prefix="hyperfleet-chaos-"))
    table = Table("event", "seed", "recovery, s", "checks", title="processes killed under load")
    broken = []
    started = time.monotonic()
    with world_of(root, console) as world:
        for name in arguments.only:
            seed = f"{arguments.seed}/{name}"
            console.print(f"-- {name}", highlight=False)
            try:
                outcome = EVENTS[name](world, random.Random(seed))
                table.add_row(name, seed, f"{outcome.recovery_s:.1f}", outcome.checked)
            except BrokenError as error:
                broken.append(name)
                table.add_row(name, seed, "-", f"[bold red]{error}[/]")
    console.print(table)
    wall_s = round(time.monotonic() - started, 1)
    console.print(
        json.dumps({"events": len(arguments.only), "broken": broken, "wall_s": wall_s}), highlight=False
    )
    if not broken:
        shutil.rmtree(root, ignore_errors=True)
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
