"""A node with Ray and nothing else: every command reports it in one message, before anything starts."""

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from ray.cluster_utils import Cluster

from tests.worlds.rendered_fleet import Place

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

# Another address of this machine, so that a message can name the one node and not the other.
ADDRESS = "127.0.0.2"
# Starting the command takes longest; a node has 90 s to answer.
PATIENCE_S = 150.0


def needed_by(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    """Names of a distribution and of all that it requires."""
    found = {name}
    todo = [(name, extras)]
    while todo:
        name, extras = todo.pop()
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            marker = requirement.marker
            wanted = marker is None or any(marker.evaluate({"extra": each}) for each in ("", *extras))
            if wanted and requirement.name not in found:
                found.add(requirement.name)
                todo.append((requirement.name, tuple(requirement.extras)))
    return found


def environment_with_ray_alone(folder: Path) -> Path:
    """Make what `pip install ray[default]` makes, with links in place of downloads; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(sysconfig.get_path("purelib"))
    mine = folder / packages.relative_to(sys.prefix)
    for name in needed_by("ray", ("default",)):
        for file in importlib.metadata.files(name) or []:
            top = file.parts[0]
            if top not in {"..", "__pycache__"} and not (mine / top).exists():
                (mine / top).symlink_to(packages / top)
    return folder / "bin" / "python"


@dataclass(frozen=True, kw_only=True)
class Said:
    """Exit status of a command, its output and the seconds it took."""

    status: int
    printed: str
    errors: str
    seconds: float


@dataclass(frozen=True)
class World:
    """A cluster of two nodes, of which one is bare, and a folder to start commands in."""

    cluster: Cluster
    bare: subprocess.Popen[bytes]
    folder: Path

    def hyperfleet(self, *arguments: str) -> Said:
        """Run a command there."""
        began_s = time.monotonic()
        done = subprocess.run(
            [str(Path(sys.executable).with_name("hyperfleet")), *arguments],
            cwd=self.folder,
            env={**os.environ, "RAY_ADDRESS": self.cluster.address, "COLUMNS": "2000"},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
        )
        seconds = time.monotonic() - began_s
        print(f"\n{arguments[0]}, {seconds:.0f} s: {done.stdout}{done.stderr}")
        return Said(status=done.returncode, printed=done.stdout, errors=done.stderr, seconds=seconds)

    def remove_the_bare_node(self) -> None:
        os.killpg(self.bare.pid, signal.SIGTERM)
        self.bare.wait(timeout=60)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("bare")
    python = environment_with_ray_alone(folder / "venv")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    start = [
        "start",
        "--address",
        cluster.address,
        "--node-ip-address",
        ADDRESS,
        "--num-cpus",
        "1",
        "--block",
    ]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "node.log").open("wb") as log:
        bare = subprocess.Popen(
            [str(python), "-m", "ray.scripts.scripts", *start],
            cwd=folder,
            env=kept,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline_s = time.monotonic() + 120
    while "Ray runtime started" not in (folder / "node.log").read_text():
        assert bare.poll() is None, (folder / "node.log").read_text()
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    world = World(cluster=cluster, bare=bare, folder=folder)
    yield world
    if bare.poll() is None:
        world.remove_the_bare_node()
    cluster.shutdown()


def cluster_line(doctor: Said) -> str:
    (line,) = (line for line in doctor.printed.splitlines() if " cluster " in line)
    return line


def test_each_command_names_the_node_and_what_it_lacks(world: World, place: Place) -> None:
    data = str(place.data)
    models = ("--model", str(place.model), "--static-model", str(place.static_model))
    train = world.hyperfleet("train", "--data", data)
    fleet = world.hyperfleet("fleet", "--scenario", "flaky_uplink", "--data", data, *models)
    doctor = world.hyperfleet("doctor")
    for command in (train, fleet, doctor):
        assert command.status == 1
        assert command.seconds < PATIENCE_S
    for said in (train.errors, fleet.errors, cluster_line(doctor)):
        assert re.search(rf"node {re.escape(ADDRESS)} has no torch, .*no safetensors", said)
        assert "install the same wheel with the same constraints.txt on every node" in said
        # The head's own node has all of it, and so has the code that drivers ship.
        assert said.count("node 1") == 1
        assert "other code" not in said
    for command in (train, fleet):
        assert len(command.errors.splitlines()) == 1
    # Nothing began that would have to be gone on with.
    assert not list(world.folder.rglob("mlflow.db"))

    world.remove_the_bare_node()
    assert "1 nodes with the same code" in cluster_line(world.hyperfleet("doctor"))
