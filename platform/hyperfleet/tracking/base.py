"""What a training or fleet run tells about itself, whatever keeps it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


@runtime_checkable
class Tracker(Protocol):
    """One run's record. Implementations: `MlflowTracker` and, in tests, `MemoryTracker`."""

    @property
    def run_id(self) -> str:
        """Name of the run in the store; the same in every process that writes to it."""
        ...

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record what the run was started with. A name may be set once; repeating its value is fine."""
        ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Record values at `step`; units belong in the names."""
        ...

    def log_artifacts(self, folder: Path, artifact_path: str) -> None:
        """Keep a copy of every file of `folder` with the run, under `artifact_path`."""
        ...

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Close the run."""
        ...
