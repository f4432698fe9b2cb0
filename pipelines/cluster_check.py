"""Check of a cluster: every node runs the same code and versions as the driver's machine."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.node_facts import NodeFacts, node_facts
from actors.placement import alive_nodes
from hyperfleet.errors import ServiceError

ANSWER_TIMEOUT_S = 90.0
REMEDY = (
    "install the same wheel with the same constraints.txt on every node, which `ray up` does for the nodes "
    "of its cluster file, or start this program in the environment that the nodes have"
)


def check_nodes(timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    """Compare the code and versions of every node of the connected cluster with this machine's.

    Raises:
        ServiceError: a node has other versions of Python, a library or hyperfleet, lacks one of them, or
            does not answer in time.
    """
    here = node_facts()
    asked = {address: _ask(node_id, node_facts) for node_id, address in alive_nodes().items()}
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s)
    faults = {address: _fault(here, ref, timeout_s) for address, ref in asked.items()}
    bad = [f"node {address} {fault}" for address, fault in faults.items() if fault]
    if bad:
        raise ServiceError(f"{'; '.join(bad)}; {REMEDY}")


def clock_skews() -> dict[str, float]:
    """Return by how many seconds the clock of each node is ahead, with an error of one call's duration."""
    skews = {}
    for node_id, address in alive_nodes().items():
        ray.get(_ask(node_id, time.time))  # starts the worker, which takes a while
        before_s = time.time()
        theirs_s: float = ray.get(_ask(node_id, time.time))
        skews[address] = theirs_s - (before_s + time.time()) / 2
    return skews


def _ask(node_id: str, question: Callable[[], Any]) -> Any:
    on_node = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task: Any = ray.remote(num_cpus=0, max_retries=0)(_call)
    return task.options(scheduling_strategy=on_node).remote(question)


def _call(question: Callable[[], Any]) -> Any:
    return question()


def _fault(here: NodeFacts, ref: Any, timeout_s: float) -> str:
    try:
        there: NodeFacts = ray.get(ref, timeout=0)
    except GetTimeoutError:
        return f"has not answered in {timeout_s:.0f} s"
    except RuntimeEnvSetupError as error:
        return f"could not install the code of this program: {_first_line(error)}"
    except (RayError, ImportError) as error:
        return f"cannot run our code: {_first_line(error)}"
    differences = here.differences(there)
    return f"has {', '.join(differences)}" if differences else ""


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
