"""cluster.yaml is one that `ray up` takes, and avoids the traps of the local provider."""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


def test_the_check_refuses_a_misspelt_key(config: dict[str, Any]) -> None:
    broken = copy.deepcopy(config)
    broken["setup_comands"] = broken.pop("setup_commands")
    with pytest.raises(jsonschema.ValidationError, match="setup_comands"):
        validate_config(prepare_config(broken))


def test_nodes_start_with_token_and_working_autoscaler(config: dict[str, Any]) -> None:
    (head,) = (line for line in config["head_start_ray_commands"] if "ray start" in line)
    (worker,) = (line for line in config["worker_start_ray_commands"] if "ray start" in line)
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in worker
    assert "--autoscaling-config=" in head
    if config["provider"]["type"] == "local":
        assert "RAY_enable_autoscaler_v2=0" in head


def test_nodes_install_the_wheel_in_the_tested_versions(config: dict[str, Any]) -> None:
    mounts = config["file_mounts"]
    assert mounts["~/hyperfleet/dist"] == "dist"
    assert mounts["~/hyperfleet/constraints.txt"] == "constraints.txt"
    assert any(
        "-c ~/hyperfleet/constraints.txt ~/hyperfleet/dist/" in line for line in config["setup_commands"]
    )
    # Ray hashes all that is mounted, file by file: the checkout holds gigabytes of .venv.
    assert not {".", "./"} & set(mounts.values())
