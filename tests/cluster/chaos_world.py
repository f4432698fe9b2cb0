"""Targets of the chaos test: cluster, tracking server, training runs and scenarios, and ways to kill them."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster
from rich.console import Console

from hyperfleet.cloud.training import TrainConfig
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.scenario.arrivals import Poisson
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.drift import Drift
from hyperfleet.scenario.policies import EveryN
from pipelines.emulate_fleet import FleetConfig, FleetResult, run_fleet
from pipelines.render_data import render
from pipelines.runtime import connect, disconnect
from pipelines.storage import VARIABLE
from pipelines.train_generator import TrainResult, TrainRunConfig, train

DATA = FleetQAConfig(num_seen_devices=24, num_held_out_devices=2, history_clips=4, live_clips=2)
SCHEDULE = TrainConfig(warm_epochs=1, epochs=4, batch_size=16)
# Drift turns a small data set into many pairs, and a codec that factors each head keeps the hosts busy
# through several stretches of the log.
SCENARIO = Scenario(
    name="chaos",
    registered_devices=2_000,
    active_devices=2_000,
    duration_s=600.0,
    arrivals=Poisson(per_device_per_s=0.05),
    drift=Drift(kind="gradual", at_s=0.0, width_s=1000.0),
    policy=EveryN(n=3),
    codec="rank16",
)
MLFLOW_PORT = 5055
# Longest wait for a recovery.
PATIENCE_S = 180.0


class BrokenError(Exception):
    """A check failed."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of an event: time until recovery, and the checks made."""

    recovery_s: float
    checked: str


@dataclass(kw_only=True)
class World:
    """All targets, and the result of an undisturbed run of each kind."""

    root: Path
    cluster: Cluster
    mlflow: "MlflowServer"
    console: Console
    undisturbed: dict[str, TrainResult] = field(default_factory=dict)
    calm: FleetResult | None = None

    @property
    def uri(self) -> str:
        """The tracking server."""
        return self.mlflow.uri

    def train(self, name: str, method: str = "fine_tuning", seed: int = 0) -> TrainResult:
        """Run a training into a folder of its own."""
        schedule = replace(SCHEDULE, method=method, seed=seed)
        return train(
            TrainRunConfig(
                data=self.root / "data",
                output=self.root / name,
                tracking_uri=self.uri,
                num_workers=2,
                train=schedule,
                max_failures=5,
            )
        )

    def emulate(self, name: str) -> FleetResult:
        """Run the scenario on two hosts."""
        return run_fleet(
            FleetConfig(
                scenario=SCENARIO,
                hosts=2,
                data=self.root / "data",
                tracking_uri=self.uri,
                output=self.root / name,
            )
        )


class MlflowServer:
    """A real tracking server on an SQLite file, which can be killed and restarted."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.uri = f"http://127.0.0.1:{MLFLOW_PORT}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(MLFLOW_PORT),
        ]
        store = ["--backend-store-uri", f"sqlite:///{self._root}/mlflow.db", "--workers", "1"]
        artifacts = ["--artifacts-destination", str(self._root / "artifacts")]
        with (self._root / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *store, *artifacts], stdout=log, stderr=log, start_new_session=True
            )
        wait_for("MLflow answers", self.answers)

    def answers(self) -> bool:
        """Return whether the server answers."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """Kill the server and all its workers at once."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def wait_for(what: str, is_so: Callable[[], bool], patience_s: float = PATIENCE_S) -> float:
    """Wait until the condition holds, and return the seconds waited."""
    started = time.monotonic()
    while not is_so():
        if time.monotonic() - started > patience_s:
            raise BrokenError(f"{what}: not in {patience_s:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - started


def processes(*words: str) -> list[psutil.Process]:
    """Return this script's processes whose command line contains all these words."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(process.cmdline())
            if all(word in line for word in words):
                found.append(process)
    return found


def kill(process: psutil.Process) -> None:
    """Kill a process without warning."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def kill_with_children(process: psutil.Process) -> None:
    """Kill a process and its descendants: some would outlive it until Ray notices."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            kill(each)


class Killer:
    """Thread that kills once `when` holds and `victims` returns a process; records the time.

    `strike` is the way to kill.
    """

    def __init__(
        self,
        when: Callable[[], bool],
        victims: Callable[[], list[psutil.Process]],
        rng: random.Random,
        *,
        strike: Callable[[psutil.Process], None] = kill,
    ):
        self.killed_at: float | None = None
        self._strike = strike
        self._thread = threading.Thread(target=self._run, args=(when, victims, rng), daemon=True)
        self._thread.start()

    def _run(
        self, when: Callable[[], bool], victims: Callable[[], list[psutil.Process]], rng: random.Random
    ) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            if when() and (alive := victims()):
                self._strike(rng.choice(alive))
                self.killed_at = time.monotonic()
                return
            time.sleep(0.02)

    def moment(self) -> float:
        """Return the time of the kill, on the clock of `time.monotonic`."""
        self._thread.join()
        if self.killed_at is None:
            raise BrokenError("no process was killed: the run ended first")
        return self.killed_at


@contextlib.contextmanager
def world_of(root: Path, console: Console) -> Iterator[World]:
    """Start cluster and server, render, train, and run everything once undisturbed."""
    os.environ[VARIABLE] = str(root)
    # As in serve_apps/tuned.env.
    os.environ["RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"] = "2"
    mlflow = MlflowServer(root)
    mlflow.start()
    roles = {"device_host": 8, "train_worker": 2, "generator": 4}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False, "resources": roles}
    )
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        connect()
        world = World(root=root, cluster=cluster, mlflow=mlflow, console=console)
        render(DATA, root / "data", show_progress=False)
        for method in ("fine_tuning", "cdc_mmpg"):
            console.print(f"undisturbed training of {method}", highlight=False)
            world.undisturbed[method] = world.train(f"undisturbed-{method}", method)
        os.chdir(root)  # kept features go there
        world.emulate("encode")
        console.print("undisturbed scenario", highlight=False)
        world.calm = world.emulate("undisturbed")
        yield world
    finally:
        disconnect()
        cluster.shutdown()
        with contextlib.suppress(ProcessLookupError):
            mlflow.kill()
