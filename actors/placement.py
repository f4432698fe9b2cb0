"""On which nodes processes of a role run: `cluster.yaml` marks nodes by custom resources of these names."""

from typing import Any, Literal

import ray
import ray.util.client

Role = Literal["device_host", "generator", "train_worker"]


def placed(role: Role) -> dict[str, float]:
    """Return the custom resources that a process of `role` takes.

    None on a cluster that does not know the role: there every node will do.
    """
    return {role: 1.0} if _amount(role) else {}


def num_places(role: Role) -> int:
    """Return how many processes of `role` the cluster has room for: its CPUs where it knows no roles."""
    return max(1, int(_amount(role) or _amount("CPU")))


def num_available(resource: str) -> int:
    """Return how many whole units of a resource the cluster has, e.g. of "CPU" or "GPU"."""
    return int(_amount(resource))


def alive_nodes() -> dict[str, str]:
    """Return the address of each node that is alive by its id."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    return {node["NodeID"]: str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]}


def resources_line() -> str:
    """Say what the cluster has, for an error that something finds no room."""
    resources = _resources()
    named = {name: amount for name, amount in resources.items() if ":" not in name and "memory" not in name}
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(named.items())) or "no nodes"


def is_outside() -> bool:
    """Tell whether this process is on no node of the cluster: it came through Ray Client."""
    return bool(ray.util.client.ray.is_connected())  # type: ignore[no-untyped-call]  # Ray leaves it untyped


def _amount(resource: str) -> float:
    return _resources().get(resource, 0.0)


def _resources() -> dict[str, float]:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    return resources
