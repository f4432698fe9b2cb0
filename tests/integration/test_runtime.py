import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from hyperfleet.errors import ServiceError
from pipelines.runtime import PACKAGES, connect, disconnect

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
    return [importlib.import_module(name).__file__ for name in {PACKAGES!r}]
print("workers found", *ray.get(ray.remote(num_cpus=0)(places).remote()))
disconnect()
"""


def run_driver(folder: Path, **environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()[2:]


@pytest.mark.integration
def test_workers_of_a_driver_in_another_folder_find_the_code_where_it_is(tmp_path):
    assert [Path(place).is_relative_to(ROOT) for place in run_driver(tmp_path)] == [True] * len(PACKAGES)


@pytest.mark.integration
def test_a_cluster_named_by_ray_address_gets_a_copy_of_the_code(tmp_path):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        places = run_driver(tmp_path, RAY_ADDRESS=cluster.address)
    finally:
        cluster.shutdown()
    assert len(places) == len(PACKAGES)
    assert not any(Path(place).is_relative_to(ROOT) for place in places)


def test_an_address_where_no_cluster_is_fails_at_once(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    disconnect()
    with pytest.raises(ServiceError, match=r"RAY_ADDRESS='127\.0\.0\.1:9'.*unset RAY_ADDRESS"):
        connect()
