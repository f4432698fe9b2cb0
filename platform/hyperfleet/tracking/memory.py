"""A tracker that keeps everything in memory."""

from collections.abc import Mapping
from pathlib import Path

from hyperfleet.errors import ConfigError
from hyperfleet.tracking.base import RunStatus


class MemoryTracker:
    """The record of one run as plain dictionaries, for tests and runs nobody wants to keep.

    Attributes:
        params: what `log_params` was given.
        metrics: for each name the list of (step, value) in the order of logging.
        artifacts: for each "artifact_path/file" its content.
        status: "RUNNING" until `finish`.
    """

    def __init__(self, run_id: str = "memory") -> None:
        self.run_id = run_id
        self.params: dict[str, object] = {}
        self.metrics: dict[str, list[tuple[int, float]]] = {}
        self.artifacts: dict[str, bytes] = {}
        self.status: RunStatus | str = "RUNNING"

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters.

        Raises:
            ConfigError: a name was logged before with another value.
        """
        for name, value in params.items():
            if self.params.setdefault(name, value) != value:
                raise ConfigError(f"parameter {name!r} is {self.params[name]!r} already, got {value!r}")

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Append one value to each named series."""
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append((step, value))

    def log_artifacts(self, folder: Path, artifact_path: str) -> None:
        """Read the files of `folder` into `artifacts`."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.artifacts[f"{artifact_path}/{file.relative_to(folder).as_posix()}"] = file.read_bytes()

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Set the status."""
        self.status = status
