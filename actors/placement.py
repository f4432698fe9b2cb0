"""Placement of processes by role: `cluster.yaml` marks nodes with custom resources of these names."""

from typing import Any, Literal

import ray
import ray.util.client

Role = Literal["device_host", "generator", "train_worker"]


def placed(role: Role) -> dict[str, float]:
    """Return the custom resources of a process of `role`; empty on a cluster that does not know the role."""
    return {role: 1.0} if _amount(role) else {}


def num_places(role: Role) -> int:
    """Return how many processes of `role` fit on the cluster: its CPUs if it does not know the role."""
    return max(1, int(_amount(role) or _amount("CPU")))


def num_available(resource: str) -> int:
    """Return the cluster's units of a resource, e.g. "CPU" or "GPU", rounded down."""
    return int(_amount(resource))


def alive_nodes() -> dict[str, str]:
    """Return the addresses of all live nodes by node id."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    return {node["NodeID"]: str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]}


def resources_line() -> str:
    """Return the cluster's resources as a line for error messages."""
    resources = _resources()
    named = {name: amount for name, amount in resources.items() if ":" not in name and "memory" not in name}
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(named.items())) or "no nodes"


def is_outside() -> bool:
    """Return whether this process is connected through Ray Client and thus on no node of the cluster."""
    return bool(ray.util.client.ray.is_connected())  # type: ignore[no-untyped-call]  # Ray leaves it untyped


def _amount(resource: str) -> float:
    return _resources().get(resource, 0.0)


def _resources() -> dict[str, float]:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    return resources
