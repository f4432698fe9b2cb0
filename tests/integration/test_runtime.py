import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from actors.node_facts import OWN_PACKAGES
from hyperfleet.errors import ServiceError
from pipelines.runtime import connect, disconnect

ROOT = Path(__file__).parents[2]
# A notebook kernel or a script elsewhere: the packages are on its own path and nowhere else.
DRIVER = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "platform")!r}]
from pipelines.runtime import connect, disconnect
connect(num_cpus=1)
connect()
import ray
def places():
    import importlib
    return [importlib.import_module(name).__file__ for name in {OWN_PACKAGES!r}]
print("workers found", *ray.get(ray.remote(num_cpus=0)(places).remote()))
disconnect()
"""


def run_driver(folder: Path, script: str = DRIVER, **environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()[2 * (script is DRIVER) :]


@pytest.mark.integration
def test_workers_of_a_driver_in_another_folder_find_the_code_where_it_is(tmp_path):
    assert [Path(place).is_relative_to(ROOT) for place in run_driver(tmp_path)] == [True] * len(OWN_PACKAGES)


@pytest.fixture(scope="module")
def cluster():
    node = {"num_cpus": 1, "include_dashboard": False, "resources": {"device_host": 3}}
    running = Cluster(initialize_head=True, head_node_args=node)
    yield running
    running.shutdown()


@pytest.mark.integration
def test_a_cluster_named_by_ray_address_gets_a_copy_of_the_code(cluster, tmp_path):
    places = run_driver(tmp_path, RAY_ADDRESS=cluster.address)
    assert len(places) == len(OWN_PACKAGES)
    assert not any(Path(place).is_relative_to(ROOT) for place in places)


# A driver whose torch and code are others than the node's, as far as it knows.
OTHER_DRIVER = f"""
import dataclasses, os, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "platform")!r}]
from hyperfleet.errors import ServiceError
from pipelines import cluster_check, runtime
real = cluster_check.node_facts()
other = dataclasses.replace(real, versions={{**real.versions, "torch": "0.4"}}, code="of another day")
ask, cluster_check.node_facts = cluster_check.node_facts, lambda: other
asked = cluster_check._ask
mine = cluster_check.node_facts
cluster_check._ask = lambda node, question: asked(node, ask if question is mine else question)
try:
    runtime.connect()
except ServiceError as error:
    print("refused", error)
import ray
print("connected", ray.is_initialized())
"""
# What the cluster knows of roles, and a data set that is on this machine alone.
PLACES = f"""
import sys
from pathlib import Path
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "platform")!r}]
from actors.placement import alive_nodes, num_places, placed
from pipelines.runtime import connect
from pipelines.storage import for_all_nodes, writing_to
connect()
print(*(found for role in ("device_host", "generator") for found in (placed(role), num_places(role))))
print(len(alive_nodes()))
Path("data").mkdir()
Path("data/file").write_text("clips")
import ray
path_of = ray.remote(num_cpus=0)(lambda folder: folder.path())
path = ray.get(path_of.remote(for_all_nodes(Path("data"))))
print((path / "file").read_text(), not path.is_relative_to(Path.cwd()), *writing_to(Path("data")))
"""


@pytest.mark.integration
def test_a_node_with_other_versions_is_named_and_the_driver_leaves(cluster, tmp_path):
    said = "".join(run_driver(tmp_path, script=OTHER_DRIVER, RAY_ADDRESS=cluster.address))
    address = cluster.address.split(":")[0]
    version = importlib.metadata.version("torch")
    assert f"refusednode{address}hastorch{version}insteadof0.4,othercodeofhyperfleet;" in said
    assert said.endswith("connectedFalse")


def test_an_address_where_no_cluster_is_fails_at_once(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    disconnect()
    with pytest.raises(ServiceError, match=r"RAY_ADDRESS='127\.0\.0\.1:9'.*unset RAY_ADDRESS"):
        connect()


@pytest.mark.integration
def test_places_and_folders_of_a_cluster_are_found(cluster, tmp_path):
    said = run_driver(tmp_path, script=PLACES, RAY_ADDRESS=cluster.address)
    assert said == ["{'device_host':", "1.0}", "3", "{}", "1", "1", "clips", "True", "scheduling_strategy"]
