"""Folders that the nodes of a cluster share, for data and results.

One machine shares all of them. On a cluster, $HYPERFLEET_STORAGE names a folder that every node mounts at the
same path (NFS), or an object store (s3://bucket/prefix).
"""

import os
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.node_folder import NodeFolder, on_this_node, ship_folder
from actors.placement import is_outside
from hyperfleet.errors import ConfigError
from pipelines.runtime import is_joined

VARIABLE = "HYPERFLEET_STORAGE"


def shared_storage() -> str | None:
    """Return the storage that $HYPERFLEET_STORAGE names; None if it is not set.

    Raises:
        ConfigError: it names neither a folder of this machine nor the URI of an object store.
    """
    storage = os.environ.get(VARIABLE, "").rstrip("/")
    if not storage:
        return None
    if "://" not in storage and not Path(storage).is_absolute():
        raise ConfigError(
            f"{VARIABLE} must be an absolute path that every node mounts, or a URI such as "
            f"s3://bucket/prefix, got {storage!r}"
        )
    return storage


def is_everywhere(folder: Path) -> bool:
    """Return whether every process that works for this one finds `folder` at its path."""
    storage = shared_storage()
    on_mount = storage is not None and "://" not in storage and folder.absolute().is_relative_to(storage)
    return not is_joined() or on_mount


def for_all_nodes(folder: Path) -> NodeFolder:
    """Return a data set for workers on any node: at its path, or sent once per node by the object store."""
    return on_this_node(folder) if is_everywhere(folder) else ship_folder(folder)


def writing_to(folder: Path) -> dict[str, Any]:
    """Return the Ray options of tasks that write into `folder`: they run on its node.

    Raises:
        ConfigError: no node of the cluster has it, since this program runs outside.
    """
    if is_everywhere(folder):
        return {}
    if is_outside():
        raise ConfigError(
            f"{folder} is on this machine, and the tasks that write into it run on the cluster: run the "
            f"command on the cluster (`ray exec`, `ray job submit`), or name a folder under ${VARIABLE}"
        )
    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def checkpoints_of(run_id: str, output: Path) -> str:
    """Return the folder or URI of the checkpoints of a run whose results go to `output`.

    Raises:
        ConfigError: workers on other nodes cannot write there.
    """
    if is_everywhere(output):
        return str(output)
    storage = shared_storage()
    if storage is None:
        raise ConfigError(
            f"{output} is only on this machine, and workers on other nodes write checkpoints: set "
            f"{VARIABLE} to a folder that every node mounts, or to s3://bucket/prefix"
        )
    return f"{storage}/train/{run_id}"
