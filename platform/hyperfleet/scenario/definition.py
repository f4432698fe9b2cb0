"""The scenario of a run as one frozen object, and its JSON form."""

import json
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pydantic
import xxhash
from pydantic_core import ErrorDetails

from hyperfleet.client.retry import RetryPolicy
from hyperfleet.errors import ConfigError, DataError
from hyperfleet.head_codecs import CODECS, DEFAULT_CODEC
from hyperfleet.link.conditions import link_conditions
from hyperfleet.scenario.arrivals import Arrivals, ClosedLoop, Poisson, Trace
from hyperfleet.scenario.cloud_model import CloudModel
from hyperfleet.scenario.drift import Drift
from hyperfleet.scenario.faults import Blackout, Fault
from hyperfleet.scenario.policies import EverySample, RequestPolicy
from hyperfleet.scenario.profiles import PHONE, DeviceProfile

# In JSON, `kind` names the class of a value.
_BY_KIND: Any = pydantic.Field(discriminator="kind")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """Everything that decides what happens in a run.

    Attributes:
        name: shown in reports.
        description: one sentence.
        seed: root seed of all draws.
        duration_s: time during which samples arrive; requests made by then are still answered.
        registered_devices: devices that exist. If the data set has only n devices, device d films the
            material of device d modulo n.
        active_devices: registered devices that take part, drawn at random.
        profiles: kinds of devices, drawn by their shares.
        arrivals: when samples arrive.
        drift: how the filmed material changes.
        networks: names of `hyperfleet.link`, drawn uniformly per device; a name given twice is drawn twice
            as often.
        policy: when a device asks for a new head.
        codec: encoding of heads on the link.
        retry: when a device asks again and when it gives up.
        cloud: the generator in virtual time.
        faults: what goes wrong, and when.

    Raises:
        ConfigError: a scenario that cannot run; the message names the field.
    """

    # Refuse misspelt fields instead of ignoring them.
    __pydantic_config__: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    name: str
    description: str = ""
    seed: int = 0
    duration_s: float = 600.0
    registered_devices: int = 1000
    active_devices: int = 1000
    profiles: tuple[DeviceProfile, ...] = (PHONE,)
    arrivals: Annotated[Arrivals, _BY_KIND] = field(default_factory=lambda: Poisson(per_device_per_s=0.01))
    drift: Drift = field(default_factory=Drift)
    networks: tuple[str, ...] = ("4g-5", "4g-15", "5g-50", "5g-100")
    policy: Annotated[RequestPolicy, _BY_KIND] = field(default_factory=EverySample)
    codec: str = DEFAULT_CODEC
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    cloud: CloudModel = field(default_factory=CloudModel)
    faults: tuple[Annotated[Fault, _BY_KIND], ...] = ()

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"Scenario.seed must be >= 0, got {self.seed}")
        if not 0 < self.duration_s < float("inf"):
            raise ConfigError(f"Scenario.duration_s must be finite and > 0 seconds, got {self.duration_s}")
        if not 1 <= self.active_devices <= self.registered_devices:
            raise ConfigError(
                f"Scenario.active_devices must be between 1 and registered_devices "
                f"({self.registered_devices}), got {self.active_devices}"
            )
        if not self.profiles:
            raise ConfigError("Scenario.profiles is empty, expected at least one DeviceProfile")
        names = [profile.name for profile in self.profiles]
        if len(set(names)) != len(names):
            raise ConfigError(f"Scenario.profiles must have different names, got {', '.join(names)}")
        if not self.networks:
            raise ConfigError("Scenario.networks is empty, expected names of networks, e.g. '4g-5'")
        for name in self.networks:
            link_conditions(name)
        CODECS.check(self.codec)
        if isinstance(self.arrivals, ClosedLoop) and self.drift.kind != "none":
            raise ConfigError(
                f"Scenario.drift must be none in a closed loop, whose arrival times are not known before the "
                f"run, got {self.drift.kind!r}; use arrivals of another kind"
            )
        for fault in self.faults:
            if isinstance(fault, Blackout) and fault.network not in (None, *self.networks):
                raise ConfigError(
                    f"Blackout.network must be one of the scenario's networks ({', '.join(self.networks)}) "
                    f"or None for all, got {fault.network!r}"
                )

    def to_json(self) -> str:
        """Return the scenario as JSON, which `from_json` reads."""
        text: str = _adapter().dump_json(self, indent=2).decode()
        return text

    @classmethod
    def from_json(cls, text: str | bytes) -> "Scenario":
        """Read a scenario.

        Raises:
            ConfigError: no valid scenario; the message names the fields.
        """
        try:
            scenario: Scenario = _adapter().validate_json(text)
        except pydantic.ValidationError as error:
            wrong = "; ".join(map(_describe, error.errors()[:5]))
            raise ConfigError(f"no scenario that can run: {wrong}") from error
        return scenario

    @classmethod
    def load(cls, path: Path) -> "Scenario":
        """Read a scenario from a JSON file.

        Raises:
            DataError: the file cannot be read.
            ConfigError: it holds no valid scenario.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read as a scenario: {error}; expected a JSON file") from error
        try:
            return cls.from_json(text)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def save(self, path: Path) -> Path:
        """Write the scenario as JSON and return the path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json() + "\n", encoding="utf-8")
        return path

    @property
    def digest_fields(self) -> dict[str, object]:
        """All fields but name and description; scenarios that are equal in these give the same log."""
        values: dict[str, object] = json.loads(self.to_json())
        if isinstance(self.arrivals, Trace):
            # The content of the file counts, not its path.
            values["arrivals"] = xxhash.xxh3_128_hexdigest(self.arrivals.path.read_bytes())
        return {name: value for name, value in values.items() if name not in ("name", "description")}


@cache
def _adapter() -> Any:
    # Created on first use: it costs more than all other checks of an option. Beartype refuses its own type.
    return pydantic.TypeAdapter(Scenario)


def _describe(error: ErrorDetails) -> str:
    """Name the field of an error; for an unknown one, also the parts of a scenario that have this field."""
    place = [str(part) for part in error["loc"]]
    text = f"{'.'.join(place) or 'Scenario'}: {error['msg']}"
    if error["type"] != "unexpected_keyword_argument":
        return text
    parts = _adapter().json_schema()["$defs"]
    owners = {owner: list(schema.get("properties", ())) for owner, schema in parts.items()}
    owners["Scenario"] = [each.name for each in fields(Scenario)]
    named = [owner for owner, names in owners.items() if place[-1] in names]
    if named:
        return f"{text}; this field belongs to {' or '.join(named)}"
    return f"{text}; expected {', '.join(owners['Scenario'])}" if len(place) == 1 else text
