"""Cluster files: accepted by Ray, AWS and Kubernetes, and consistent with each other; `make cluster-check`.

No cloud is contacted: Ray's schemas and provider code, botocore's model of EC2 and the classes of the
Kubernetes client check the files.
"""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import botocore.loaders
import botocore.model
import botocore.validate
import jsonschema
import pytest
import ray
import yaml
from kubernetes import client as kubernetes
from ray.autoscaler._private.aws.config import DEFAULT_AMI
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from actors.placement import Role
from serve_apps.parameter_generator import DEPLOYMENT, GeneratorArgs

ROOT = Path(__file__).parents[2]
AWS, LOCAL, KUBERAY = "cluster.yaml", "cluster.local.yaml", "cluster.kuberay.yaml"
ROLES = set(get_args(Role))


def read(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return config


def kuberay(kind: str) -> dict[str, Any]:
    (found,) = (each for each in yaml.safe_load_all((ROOT / KUBERAY).read_text()) if each["kind"] == kind)
    config: dict[str, Any] = found
    return config


def ray_clusters() -> list[dict[str, Any]]:
    cluster, service = kuberay("RayCluster"), kuberay("RayService")
    metadata = service["metadata"]
    return [cluster, {"metadata": metadata, "spec": service["spec"]["rayClusterConfig"]}]


@pytest.fixture(params=[AWS, LOCAL])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def start_lines(config: dict[str, Any]) -> tuple[str, str]:
    (head,) = (line for line in config["head_start_ray_commands"] if "ray start" in line)
    (worker,) = (line for line in config["worker_start_ray_commands"] if "ray start" in line)
    return head, worker


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


def test_the_check_refuses_a_misspelt_key(config: dict[str, Any]) -> None:
    broken = copy.deepcopy(config)
    broken["setup_comands"] = broken.pop("setup_commands")
    with pytest.raises(jsonschema.ValidationError, match="setup_comands"):
        validate_config(prepare_config(broken))


def test_rays_local_provider_takes_every_machine() -> None:
    config = prepare_config(read(LOCAL))
    (node_type,) = config["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == len(config["provider"]["worker_ips"])


def test_nodes_start_closed_with_token_and_metrics(config: dict[str, Any]) -> None:
    head, worker = start_lines(config)
    (environment,) = (line for line in config["setup_commands"] if "RAY_AUTH_MODE=token" in line)
    assert "env.sh" in environment
    assert 'ulimit -S -n "$(ulimit -H -n)"' in environment
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=" in head
    for line in (head, worker):
        assert "--metrics-export-port=8090" in line
        assert "env -u RAY_ADDRESS" in line
    # Under the second autoscaler the local provider starts one worker too few.
    assert ("RAY_enable_autoscaler_v2=0" in head) == (config["provider"]["type"] == "local")


def test_nodes_install_the_wheel_in_the_tested_versions(config: dict[str, Any]) -> None:
    mounts = config["file_mounts"]
    assert mounts["~/hyperfleet/dist"] == "dist"
    assert mounts["~/hyperfleet/constraints.txt"] == "constraints.txt"
    assert any("-c ~/hyperfleet/constraints.txt" in line for line in config["setup_commands"])
    # Ray hashes all that is mounted, file by file: the checkout holds gigabytes of .venv.
    assert not {".", "./"} & set(mounts.values())
    assert (ROOT / mounts["~/hyperfleet/tuned.env"]).is_file()


def test_storage_and_mlflow_are_set_once_for_all_nodes(config: dict[str, Any]) -> None:
    text = json.dumps(config)
    assert len(re.findall(r"HYPERFLEET_STORAGE=", text)) == 1
    (mlflow,) = (line for line in config["head_start_ray_commands"] if "mlflow server" in line)
    assert '--artifacts-destination "$HYPERFLEET_STORAGE/mlflow"' in mlflow
    assert "--host 0.0.0.0" not in mlflow
    assert "MLFLOW_TRACKING_URI=http://$RAY_HEAD_IP:5000" in start_lines(config)[1]


def test_every_role_has_a_node(config: dict[str, Any]) -> None:
    if config["provider"]["type"] == "local":
        for line in start_lines(config):
            (resources,) = re.findall(r'--resources="(.*)"', line)
            assert set(re.findall(r'\\"(\w+)\\":', resources)) == ROLES
    else:
        types = config["available_node_types"]
        named = {role for node_type in types.values() for role in node_type["resources"]}
        # The head has some of each: a role that no living node has would not be asked for.
        assert set(types[config["head_node_type"]]["resources"]) == ROLES == named


def ec2_faults(node_config: dict[str, Any]) -> str:
    model = botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model("ec2", "service-2"))
    shape = model.operation_model("RunInstances").input_shape
    # Counts are what Ray adds.
    report = botocore.validate.ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape)
    return str(report.generate_report())


def test_aws_takes_every_node_type_and_ray_knows_an_image_for_the_region() -> None:
    config = read(AWS)
    for node_type in config["available_node_types"].values():
        assert ec2_faults(node_type["node_config"]) == ""
    assert "Unknown parameter" in ec2_faults({"InstanceTypo": "c7i.4xlarge"})
    assert config["provider"]["region"] in DEFAULT_AMI
    # Ray's own rules let in ssh and the nodes of the group; any other would be written here.
    assert set(config["provider"]["security_group"]) == {"GroupName"}


@pytest.mark.parametrize("cluster", ray_clusters(), ids=lambda cluster: cluster["metadata"]["name"])
def test_rays_kuberay_provider_reads_the_cluster(cluster: dict[str, Any]) -> None:
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    named = {role for each in config["available_node_types"].values() for role in each["resources"]}
    assert ROLES & named
    assert cluster["spec"]["rayVersion"] == ray.__version__
    assert cluster["spec"]["authOptions"]["mode"] == "token"
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        assert unknown_keys(group["template"], "V1PodTemplateSpec") == []


def test_kubernetes_takes_the_network_policy_and_the_check_finds_a_misspelt_key() -> None:
    policy = kuberay("NetworkPolicy")
    assert unknown_keys(policy, "V1NetworkPolicy") == []
    misspelt = copy.deepcopy(policy)
    misspelt["spec"]["podselector"] = misspelt["spec"].pop("podSelector")
    assert unknown_keys(misspelt, "V1NetworkPolicy") == ["spec.podselector"]


def unknown_keys(given: dict[str, Any], kind: str) -> list[str]:
    """Return the keys that are lost on a way through the classes of the Kubernetes client."""
    api = kubernetes.ApiClient()
    kept = api.sanitize_for_serialization(api.deserialize(json.dumps(given), kind, "application/json"))
    return list(_lost(given, kept, ""))


def _lost(given: Any, kept: Any, path: str) -> Iterator[str]:
    if isinstance(given, dict):
        for key, value in given.items():
            where = f"{path}.{key}".lstrip(".")
            if not isinstance(kept, dict) or key not in kept:
                yield where
            else:
                yield from _lost(value, kept[key], where)
    elif isinstance(given, list):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{path}[{number}]")


def production() -> dict[str, Any]:
    return read("serve_apps/production.yaml")


def test_serve_accepts_the_production_file() -> None:
    (application,) = ServeDeploySchema.model_validate(production()).applications
    GeneratorArgs.model_validate(application.args)
    (deployment,) = application.deployments
    assert deployment.name == DEPLOYMENT
    assert application.args["tokens_file"]  # everyone reaches 0.0.0.0
    assert application.args["node_resource"] in ROLES


def test_kubernetes_serves_what_the_production_file_says() -> None:
    in_pods = yaml.safe_load(kuberay("RayService")["spec"]["serveConfigV2"])
    expected = production()
    expected["applications"][0]["args"]["tokens_file"] = "/etc/hyperfleet/service.tokens"
    assert in_pods == expected


def test_the_service_pods_have_the_fast_path() -> None:
    lines = (ROOT / "serve_apps/tuned.env").read_text().splitlines()
    tuned = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    spec = kuberay("RayService")["spec"]["rayClusterConfig"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert tuned.items() <= environment.items()
