"""Connection to Ray: the only `ray.init` of the project.

Without RAY_ADDRESS a cluster starts on this machine, and its workers find the code where the driver found it.
With RAY_ADDRESS the code is sent along, since other nodes do not have it.
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

# The object store holds tables and models. Ray's default (30% of the memory) would be wasted on a small
# machine.
OBJECT_STORE_BYTES = 1 << 30

PROBE_TIMEOUT_S = 10.0

_TOKEN_REMEDY = (
    "set RAY_AUTH_MODE=token and put the token it was started with, which `ray get-auth-token` prints on its "
    "head, into ~/.ray/auth_token"
)

# Defaults that keep a terminal readable; a value already in the environment wins.
QUIET_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a run reports to nobody outside
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # its bars would mix with ours
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # one line per worker that ends a run
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise every driver prints a FutureWarning
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # otherwise prints of workers appear twice
    "RAY_USAGE_STATS_ENABLED": "0",
}


def connect(num_cpus: int | None = None) -> None:
    """Connect this process to Ray, unless it is connected.

    With RAY_ADDRESS the process joins that cluster, and `num_cpus` is ignored. Otherwise a local cluster
    starts with `num_cpus` (default: the cores of this machine), even if another cluster runs here.

    Raises:
        ServiceError: no cluster answers at RAY_ADDRESS, it wants another token, or one of its nodes has
            versions that differ from this process.
        ConfigError: the project's packages cannot be found.
    """
    if ray.is_initialized():
        return
    for name, value in QUIET_DEFAULTS.items():
        os.environ.setdefault(name, value)
    _turn_off_uv_hook()
    # It warns that a local cluster is protected by a token, which requires no action.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    folders = [_folder(name) for name in OWN_PACKAGES]
    if is_joined():
        _join_cluster(os.environ["RAY_ADDRESS"], folders)
    else:
        _start_local_cluster(num_cpus, folders)


def is_joined() -> bool:
    """Return whether RAY_ADDRESS names a cluster, which may span several machines."""
    return os.environ.get("RAY_ADDRESS", "") not in {"", "local"}


def disconnect() -> None:
    """Leave the cluster; a cluster that `connect` started stops."""
    if ray.is_initialized():
        ray.shutdown()


def _join_cluster(address: str, folders: list[Path]) -> None:
    is_client = address.startswith("ray://")
    # Ray Client does not accept it.
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
    except OSError as error:  # includes ConnectionError, from Ray and from the probe
        # Ray Client reports a refused token as a timeout.
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
    # Ray itself tries for minutes to reach a head that does not exist.
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT_S).close()


def _start_local_cluster(num_cpus: int | None, folders: list[Path]) -> None:
    # Every worker inherits the raylet's environment, which finds the code from any folder at no cost. A
    # runtime_env would keep workers out of Ray's pool of started processes.
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
    """Let workers, but not the driver, log JSON lines with job, node, actor and the fields of `extra`."""
    config = JobConfig()
    config.set_py_logging_config(ray.LoggingConfig(encoding="JSON", log_level="INFO"))
    return config


def _folder(package: str) -> Path:
    # Found without importing it, which would take seconds.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the package {package!r} cannot be found from {os.getcwd()}; install the project "
            "(`pip install -e .`) or start in its root with PYTHONPATH=platform:."
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _source_roots(folders: list[Path]) -> list[str]:
    # Folders of installed packages are left out: workers run the same interpreter and have them, and ahead of
    # the standard library they could hide parts of it.
    installed = {Path(sysconfig.get_path(key)).resolve() for key in ("purelib", "platlib")}
    roots = dict.fromkeys(folder.parent for folder in folders)
    return [str(root) for root in roots if root not in installed]


def _turn_off_uv_hook() -> None:
    # Under `uv run` Ray would start every worker through uv again, which can stall for minutes. Ray reads the
    # variable when it is imported, so the constant of this process must change as well.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    constants = sys.modules.get("ray._private.ray_constants")
    if constants is not None:
        # Found by name, so that mypy knows no more than that it is a module.
        constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False  # type: ignore[attr-defined]
