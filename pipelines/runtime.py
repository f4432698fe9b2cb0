"""Connecting to Ray: the only `ray.init` of the project.

Without RAY_ADDRESS a cluster is started on this machine and its workers find the code where the
driver found it. With RAY_ADDRESS the code is shipped, since another node has none of it.
"""

import importlib.util
import logging
import os
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.job_config import JobConfig

from actors.node_facts import OWN_PACKAGES
from hyperfleet.errors import ConfigError, ServiceError
from pipelines.cluster_check import check_nodes

# What goes through the object store is tables of reports and single heads. Ray's default (30% of the
# memory) would count against the budget of a small machine without any use.
OBJECT_STORE_BYTES = 1 << 30

PROBE_TIMEOUT_S = 10.0

_TOKEN_REMEDY = (
    "set RAY_AUTH_MODE=token and put the token it was started with, which `ray get-auth-token` prints on its "
    "head, into ~/.ray/auth_token"
)

# Defaults that keep a terminal readable; a value already in the environment wins.
QUIET_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a run tells nobody outside about itself
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # bars of its own between ours
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a line from every worker that ends a run
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else every driver prints a FutureWarning
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else workers' prints appear twice
    "RAY_USAGE_STATS_ENABLED": "0",
}


def connect(num_cpus: int | None = None) -> None:
    """Connect this process to Ray; does nothing when it is connected already.

    With RAY_ADDRESS set the process joins that cluster, whose size is what it is: `num_cpus` is
    then ignored. Otherwise a local cluster starts with `num_cpus` (default: the cores of this
    machine), also when another cluster runs here: joining one must be asked for.

    Raises:
        ServiceError: no cluster answers at RAY_ADDRESS, it wants another token, or one of its nodes has other
            versions than this process.
        ConfigError: the project's packages cannot be found.
    """
    if ray.is_initialized():
        return
    for name, value in QUIET_DEFAULTS.items():
        os.environ.setdefault(name, value)
    _turn_off_uv_hook()
    # It warns that a local cluster is protected by a token, which needs nothing of anybody.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    folders = [_folder(name) for name in OWN_PACKAGES]
    if is_joined():
        _join_cluster(os.environ["RAY_ADDRESS"], folders)
    else:
        _start_local_cluster(num_cpus, folders)


def is_joined() -> bool:
    """Tell whether RAY_ADDRESS names a cluster, which may have other machines than this one."""
    return os.environ.get("RAY_ADDRESS", "") not in {"", "local"}


def disconnect() -> None:
    """Leave the cluster; one that `connect` started stops."""
    if ray.is_initialized():
        ray.shutdown()


def _join_cluster(address: str, folders: list[Path]) -> None:
    is_client = address.startswith("ray://")
    # Ray Client cannot take it over.
    logs: dict[str, Any] = {} if is_client else {"job_config": _worker_logs()}
    try:
        _probe(address)
        ray.init(
            address=address,
            runtime_env={"py_modules": [str(folder) for folder in folders]},
            **logs,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except AuthenticationError as error:
        raise ServiceError(
            f"the Ray cluster at RAY_ADDRESS={address!r} wants another token: {error}; {_TOKEN_REMEDY}"
        ) from error
    except OSError as error:  # ConnectionError, from Ray and from the probe, is one
        # Ray Client only tells that nobody answered when its token was refused.
        refused = is_client and "timeout" in str(error)
        raise ServiceError(
            f"no Ray cluster answers at RAY_ADDRESS={address!r}: {error}; start it (`ray up cluster.yaml`) "
            "or unset RAY_ADDRESS to run on this machine alone"
            + (f"; if it runs, it may want another token: {_TOKEN_REMEDY}" if refused else "")
        ) from error
    try:
        check_nodes()
    except BaseException:
        ray.shutdown()
        raise


def _probe(address: str) -> None:
    # Ray itself tries for minutes to reach a head that is not there.
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT_S).close()


def _start_local_cluster(num_cpus: int | None, folders: list[Path]) -> None:
    # The raylet hands its environment to every worker. That finds the code from any folder and costs
    # a worker nothing, where a runtime_env would keep it from using Ray's pool of started processes.
    before = os.environ.get("PYTHONPATH")
    paths = [*_source_roots(folders), *([before] if before else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            job_config=_worker_logs(),
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _worker_logs() -> JobConfig:
    """Let workers, and not the driver, log lines of JSON with job, node, actor and whatever `extra` says."""
    config = JobConfig()
    config.set_py_logging_config(ray.LoggingConfig(encoding="JSON", log_level="INFO"))
    return config


def _folder(package: str) -> Path:
    # Found without importing it: serve_apps alone would bring a second of imports.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the package {package!r} cannot be found from {os.getcwd()}; install the project "
            "(`pip install -e .`) or start in its root with PYTHONPATH=platform:."
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _source_roots(folders: list[Path]) -> list[str]:
    # Folders of installed packages are left out: workers run the same interpreter and have them,
    # and in front of the standard library they could hide parts of it.
    installed = {Path(sysconfig.get_path(key)).resolve() for key in ("purelib", "platlib")}
    roots = dict.fromkeys(folder.parent for folder in folders)
    return [str(root) for root in roots if root not in installed]


def _turn_off_uv_hook() -> None:
    # Under `uv run` Ray would start every worker through uv again, which can stall for minutes. Ray
    # reads the variable when it is imported, so this process needs the constant changed as well.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    constants = sys.modules.get("ray._private.ray_constants")
    if constants is not None:
        # Looked up by name: to mypy it is any module.
        constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False  # type: ignore[attr-defined]
