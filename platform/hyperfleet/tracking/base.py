"""Interface for recording a run, independent of the store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


@runtime_checkable
class Tracker(Protocol):
    """Record of one run. `MlflowTracker` implements it; depending on this keeps MLflow out of an import."""

    @property
    def run_id(self) -> str:
        """Id of the run in the store, the same in every process that writes to it."""
        ...

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record the parameters of the run. A name has one value; recording it again is allowed."""
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
