"""What a run was: method, sizes, versions and costs, as plain values that survive as JSON."""

from dataclasses import dataclass
from pathlib import Path

import pydantic

from hyperfleet.errors import ConfigError, DataError
from hyperfleet.messages import FEATURE_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFact:
    """One step of a run: wall time in seconds and, where measured, peak memory in bytes."""

    name: str
    wall_s: float
    peak_memory_bytes: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.wall_s < 0:
            raise ConfigError(f"step {self.name!r}: wall_s must be >= 0, got {self.wall_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """Everything a report says about a run that is no score.

    Attributes:
        method: the generating method, e.g. "CDC-MMPG".
        data_set: name, scale and shift of the data, e.g. "FleetQA demo, shift 1.0".
        seed: root seed of the run.
        model_name: name in the model registry.
        model_version: version in the model registry.
        mlflow_run_id: id of the tracking run.
        mlflow_url: where that run is shown: a page, or the tracking store.
        encoder_preset: name of the encoder's preset.
        weights_origin: where the encoder's weights came from, e.g. "random initialisation".
        num_classes: classes of the head (C).
        device_params: parameters on the device (D-Param).
        cloud_params: parameters in the cloud that generate a head (C-Param).
        front_params: those of `cloud_params` before the layer that emits the head (ADR and f_p); their
            number does not depend on C.
        head_bytes: size of one generated head.
        feature_bytes: size of one upload.
        fleet_wall_s: wall time of the fleet run.
        num_hosts: device hosts that shared the fleet.
        steps: the steps of the whole run, in order.
        commands: command lines that repeat the run.
        versions: (name, version) of what it ran on.
        notes: sentences a reader must know; shown under the headline.
        link_note: how the times of the latency table arose.
        synthetic: the events were made up, e.g. to try out the report; says so on the page.

    Raises:
        ConfigError: a count that cannot be.
    """

    method: str
    data_set: str
    seed: int
    model_name: str
    model_version: str
    mlflow_run_id: str
    mlflow_url: str
    encoder_preset: str
    weights_origin: str
    num_classes: int
    device_params: int
    cloud_params: int
    front_params: int
    head_bytes: int
    fleet_wall_s: float
    num_hosts: int = 1
    feature_bytes: int = FEATURE_BYTES
    steps: tuple[StepFact, ...] = ()
    commands: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    link_note: str = (
        "Uplink and downlink are the emulated link; queue, generation and application are measured on the "
        "machine that ran the fleet."
    )
    synthetic: bool = False

    def __post_init__(self) -> None:
        counts = ("num_classes", "device_params", "cloud_params", "head_bytes", "feature_bytes", "num_hosts")
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.front_params <= self.cloud_params:
            raise ConfigError(
                f"front_params are part of cloud_params: expected 0 to {self.cloud_params}, "
                f"got {self.front_params}"
            )

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_bytes(_ADAPTER.dump_json(self, indent=2))

    @classmethod
    def load(cls, path: Path) -> "RunFacts":
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or holds something else.
        """
        try:
            return _ADAPTER.validate_json(path.read_bytes())
        except (OSError, pydantic.ValidationError) as error:
            raise DataError(f"{path} holds no facts of a run: {error}; run the fleet again") from error


_ADAPTER = pydantic.TypeAdapter(RunFacts)
