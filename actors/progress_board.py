"""Where a training worker leaves how far it is and what it measured, for the driver to show and record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainProgress:
    """State of a training run as rank 0 last told it; `note` is shown beside the bar."""

    step: int = 0
    num_steps: int = 0
    note: str = "starting workers"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRecord:
    """What rank 0 found out: `params` of the run, and the metrics of each step that ended an epoch."""

    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[int, Mapping[str, float]] = field(default_factory=dict)


class ProgressBoard:
    """Keeps the last `TrainProgress` and every epoch's metrics.

    An epoch that is done again after a worker died takes the place of the one before: it counts once.
    """

    def __init__(self) -> None:
        self._progress = TrainProgress()
        self._params: dict[str, str] = {}
        self._metrics: dict[int, Mapping[str, float]] = {}

    def post(self, progress: TrainProgress) -> None:
        """Replace what is shown."""
        self._progress = progress

    def post_params(self, params: Mapping[str, str]) -> None:
        """Add parameters that only a worker knows."""
        self._params.update(params)

    def post_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of an epoch that ended at `step`."""
        self._metrics[step] = metrics

    def read(self) -> TrainProgress:
        """Return what was posted last."""
        return self._progress

    def record(self, after_step: int) -> TrainRecord:
        """Return the parameters, and the metrics of steps later than `after_step`."""
        later = {step: metrics for step, metrics in self._metrics.items() if step > after_step}
        return TrainRecord(params=dict(self._params), metrics=later)


RemoteProgressBoard: Any = ray.remote(num_cpus=0)(ProgressBoard)


def start_progress_board() -> Any:
    """Start a board and return its handle; it takes no core.

    It runs beside the driver, so that it does not go with the node of a worker.
    """
    node = ray.get_runtime_context().get_node_id()
    beside = NodeAffinitySchedulingStrategy(node, soft=False)
    return RemoteProgressBoard.options(scheduling_strategy=beside).remote()
