"""Where a training worker leaves how far it is, and the driver's progress bar reads it."""

from dataclasses import dataclass
from typing import Any

import ray


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainProgress:
    """State of a training run as rank 0 last told it; `note` is shown beside the bar."""

    step: int = 0
    num_steps: int = 0
    note: str = "starting workers"


class ProgressBoard:
    """Keeps the last `TrainProgress`."""

    def __init__(self) -> None:
        self._progress = TrainProgress()

    def post(self, progress: TrainProgress) -> None:
        """Replace what is shown."""
        self._progress = progress

    def read(self) -> TrainProgress:
        """Return what was posted last."""
        return self._progress


RemoteProgressBoard: Any = ray.remote(num_cpus=0)(ProgressBoard)


def start_progress_board() -> Any:
    """Start a board and return its handle; it takes no core."""
    return RemoteProgressBoard.remote()
