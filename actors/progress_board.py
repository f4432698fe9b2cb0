"""Board on which a training worker posts progress and metrics for the driver."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainProgress:
    """Last progress reported by rank 0; `note` is shown beside the bar."""

    step: int = 0
    num_steps: int = 0
    note: str = "starting workers"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRecord:
    """Parameters of a run reported by rank 0, and the metrics of each epoch by its last step."""

    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[int, Mapping[str, float]] = field(default_factory=dict)


class ProgressBoard:
    """The last `TrainProgress` and the metrics of every epoch.

    An epoch that is repeated after a worker died replaces its earlier metrics.
    """

    def __init__(self) -> None:
        self._progress = TrainProgress()
        self._params: dict[str, str] = {}
        self._metrics: dict[int, Mapping[str, float]] = {}

    def post(self, progress: TrainProgress) -> None:
        """Replace the progress."""
        self._progress = progress

    def post_params(self, params: Mapping[str, str]) -> None:
        """Add parameters known only to a worker."""
        self._params.update(params)

    def post_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Store the metrics of the epoch that ended at `step`."""
        self._metrics[step] = metrics

    def read(self) -> TrainProgress:
        """Return the last progress."""
        return self._progress

    def record(self, after_step: int) -> TrainRecord:
        """Return the parameters and the metrics after `after_step`."""
        later = {step: metrics for step, metrics in self._metrics.items() if step > after_step}
        return TrainRecord(params=dict(self._params), metrics=later)


RemoteProgressBoard: Any = ray.remote(num_cpus=0)(ProgressBoard)


def start_progress_board() -> Any:
    """Start a board that takes no core and return its handle.

    It runs on the driver's node, so that it survives the nodes of workers.
    """
    node = ray.get_runtime_context().get_node_id()
    beside = NodeAffinitySchedulingStrategy(node, soft=False)
    return RemoteProgressBoard.options(scheduling_strategy=beside).remote()
