"""Faults on purpose: what a scenario in real time does to the service."""

import ray
from ray.util import list_named_actors

from hyperfleet.errors import ServiceError

_REPLICA_PREFIX = "SERVE_REPLICA::"


def kill_replica() -> str:
    """Kill one replica of what Serve runs on this cluster, without warning, and return its name.

    Serve notices and starts another one.

    Raises:
        ServiceError: there is none on this cluster.
    """
    named = list_named_actors(all_namespaces=True)
    replicas = sorted(
        (actor["name"], actor["namespace"]) for actor in named if actor["name"].startswith(_REPLICA_PREFIX)
    )
    if not replicas:
        raise ServiceError(
            "no replica of Serve runs on this cluster, so none can be killed; start the generator here "
            "instead of naming a generator_url, or leave KillReplica out"
        )
    name, namespace = replicas[0]
    ray.kill(ray.get_actor(name, namespace=namespace))
    return str(name)
