"""Options of the commands that run or plan a fleet: fleet, policies, plan."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from hyperfleet.errors import ConfigError, unknown_name
from hyperfleet.tracking.model_names import NEWEST, NEWEST_STATIC
from pipelines.commands.models import OWN_STORE
from pipelines.commands.parsing import default

if TYPE_CHECKING:
    from hyperfleet.scenario.definition import Scenario

# Scenarios need NumPy: the functions below import them, so that help does not wait for it.
Clock = Literal["virtual", "real"]
TRACE_SUFFIXES = (".parquet", ".csv")
FULL_LOAD = "full_load"
OF_SCENARIO = default("the scenario's")
ONE_PER_CPU = default("one per CPU of the cluster")


def check_run(
    scenario: "Scenario", *, clock: Clock, hosts: int | None, resume: bool, generator_url: str | None
) -> None:
    """Refuse impossible combinations of options.

    Raises:
        ConfigError: the options contradict each other or the scenario.
    """
    from hyperfleet.scenario.faults import KillReplica

    if hosts is not None and hosts < 1:
        raise ConfigError(f"FleetConfig.hosts must be >= 1, or left out, got {hosts}")
    if resume and clock == "real":
        raise ConfigError(
            "FleetConfig.resume: a run in real time cannot be resumed; start it again with another output, "
            "or run it in virtual time"
        )
    if generator_url is None:
        return
    if clock == "virtual":
        raise ConfigError("FleetConfig.generator_url: virtual time asks no service; leave it out")
    if any(isinstance(fault, KillReplica) for fault in scenario.faults):
        raise ConfigError(
            "FleetConfig.generator_url: a scenario with KillReplica kills a replica of a service that is "
            "started for the run; leave out the URL, or the fault"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """Data and models of a fleet.

    Attributes:
        data: a rendered data set (`hyperfleet data render`).
        model: personalized model: models:/name@alias, models:/name/3 or a bundle folder.
        static_model: Fine-tuning model that answers the same questions, named the same way.
        tracking_uri: MLflow store.
    """

    data: Path = Path("data/demo")
    model: str = NEWEST
    static_model: str = NEWEST_STATIC
    tracking_uri: Annotated[str | None, OWN_STORE] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenarioOptions(ModelOptions):
    """Fields of a scenario that the command line changes, and the processes that run it.

    Attributes:
        devices: devices that take part.
        duration_s: seconds in which samples arrive.
        seed: root of every draw.
        hosts: processes that compute for the devices.
    """

    devices: Annotated[int | None, OF_SCENARIO] = None
    duration_s: Annotated[float | None, OF_SCENARIO] = None
    seed: Annotated[int | None, OF_SCENARIO] = None
    hosts: Annotated[int | None, ONE_PER_CPU] = None

    def changed(self, base: "Scenario", **more: Any) -> "Scenario":
        """Return a scenario with the fields that options change; None changes nothing.

        Raises:
            ConfigError: the result cannot run.
        """
        changes = {
            "active_devices": self.devices,
            "registered_devices": max(self.devices or 0, base.registered_devices),
            "duration_s": self.duration_s,
            "seed": self.seed,
            **{name: value for name, value in more.items() if value is not None},
        }
        return dataclasses.replace(base, **{k: value for k, value in changes.items() if value is not None})


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetCommand(ScenarioOptions):
    """Run a scenario on an emulated fleet; options that are given change its fields.

    Attributes:
        scenario: name of a scenario, or a JSON file with one.
        clock: virtual computes every delay; real waits for it and asks the running service.
        registered: devices that exist.
        policy: when a device asks for a new head: every-sample, once-per-session, every-n, on-drift, never.
        networks: names of the devices' networks, each equally frequent.
        codec: encoding of heads on the link, e.g. fp32 (exact), int8 or rank4; see `hyperfleet codecs`.
        generator_url: a running generator.
        replicas: replicas of the generator.
        samples_per_device: most samples per device, where devices take one after the other (full_load).
        output: folder of log and report.
        resume: continue the log in `output` that a stopped run left.
        replay: run the scenario of this log again, on the samples that arrived in it.
        record: write the arrival times of the samples to this .parquet or .csv file, for `Trace` arrivals.
    """

    scenario: Annotated[str | None, default(FULL_LOAD)] = None
    clock: Clock = "virtual"
    registered: Annotated[int | None, OF_SCENARIO] = None
    policy: Annotated[str | None, OF_SCENARIO] = None
    networks: Annotated[tuple[str, ...] | None, OF_SCENARIO] = None
    codec: Annotated[str | None, OF_SCENARIO] = None
    generator_url: Annotated[str | None, default("start one in real time")] = None
    replicas: Annotated[int | None, OF_SCENARIO] = None
    samples_per_device: Annotated[int | None, OF_SCENARIO] = None
    output: Annotated[Path | None, default("outputs/scenarios/<name>")] = None
    resume: bool = False
    replay: Annotated[Path | None, default("none")] = None
    record: Annotated[Path | None, default("none")] = None

    def __post_init__(self) -> None:
        if self.scenario is not None and self.replay is not None:
            raise ConfigError("FleetCommand.scenario and .replay: a log has its own scenario; give one")
        if self.record is not None and self.record.suffix not in TRACE_SUFFIXES:
            raise ConfigError(
                f"FleetCommand.record must end in {' or '.join(TRACE_SUFFIXES)}, got {self.record}"
            )
        if self.replay is not None and self.samples_per_device is not None:
            raise ConfigError(
                "FleetCommand.replay and .samples_per_device: a replay has the samples of its log; give one"
            )
        if self.replay is not None:
            # The run reads the scenario of the log. Until then, all other checks use full load.
            dataclasses.replace(self, replay=None, devices=None, registered=None)
            return
        check_run(
            self.chosen(self.base()),
            clock=self.clock,
            hosts=self.hosts,
            resume=self.resume,
            generator_url=self.generator_url,
        )

    def base(self) -> "Scenario":
        """Return the named scenario, or full load.

        Raises:
            HyperFleetError: there is none, or its file cannot be read.
        """
        from hyperfleet.scenario.named import scenario

        return scenario(self.scenario or FULL_LOAD)

    def chosen(self, base: "Scenario") -> "Scenario":
        """Return the scenario to run: `base` with the fields that options change.

        Raises:
            ConfigError: the result cannot run.
        """
        from hyperfleet.scenario.policies import POLICIES

        if self.policy is not None and self.policy not in POLICIES:
            raise unknown_name("policy", self.policy, POLICIES)
        return self.changed(
            base,
            registered_devices=self.registered,
            policy=None if self.policy is None else POLICIES[self.policy](),
            networks=self.networks,
            codec=self.codec,
            cloud=None if self.replicas is None else dataclasses.replace(base.cloud, replicas=self.replicas),
            arrivals=self._arrivals(base),
        )

    def _arrivals(self, base: "Scenario") -> Any:
        from hyperfleet.scenario.arrivals import ClosedLoop

        if self.samples_per_device is None:
            return None
        if not isinstance(base.arrivals, ClosedLoop):
            raise ConfigError(
                f"FleetCommand.samples_per_device: in scenario {base.name!r} the arrivals are "
                f"{base.arrivals.kind}, not closed-loop; change duration_s instead, or run full_load"
            )
        return dataclasses.replace(base.arrivals, samples_per_device=self.samples_per_device)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoliciesConfig(ScenarioOptions):
    """Compare request policies and codecs on the same samples: accuracy against bytes and joules.

    Attributes:
        scenario: name of a scenario, or a JSON file with one.
        policies: every-sample, once-per-session, every-n, on-drift, never; the first is the baseline.
        codecs: encodings of heads on the link; every policy runs with each.
        output: folder of page, Markdown and CSV, and of the runs' logs.
    """

    scenario: str = "drift"
    policies: Annotated[tuple[str, ...] | None, default("all")] = None
    codecs: tuple[str, ...] = ("fp32",)
    output: Path = Path("outputs/policies")

    def __post_init__(self) -> None:
        from hyperfleet.head_codecs import CODECS
        from hyperfleet.scenario.policies import POLICIES

        for name in ("policies", "codecs"):
            values = getattr(self, name)
            if values is not None and (not values or len(set(values)) != len(values)):
                raise ConfigError(f"PoliciesConfig.{name} needs different names, at least one, got {values}")
        for policy in self.policies or ():
            if policy not in POLICIES:
                raise unknown_name("policy", policy, POLICIES)
        for codec in self.codecs:
            CODECS.check(codec)
        check_run(self.base(), clock="virtual", hosts=self.hosts, resume=False, generator_url=None)

    def base(self) -> "Scenario":
        """Return the scenario that every policy runs.

        Raises:
            HyperFleetError: there is none, or it cannot run.
        """
        from hyperfleet.scenario.named import scenario

        return self.changed(scenario(self.scenario))


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig(ModelOptions):
    """Plan replicas and bandwidth for a fleet, from a run measured in real time.

    Attributes:
        measured: log of a run with `--clock real`, of the fleet's scenario with fewer devices.
        devices: fleet sizes to plan for.
        p99_s: 99 of 100 samples must be answered within this many seconds.
        output: folder of page, Markdown and CSV.
    """

    measured: Path
    devices: tuple[int, ...] = (1_000, 10_000)
    p99_s: float = 1.0
    output: Path = Path("outputs/plan")

    def __post_init__(self) -> None:
        if not self.devices or min(self.devices) < 1:
            raise ConfigError(f"PlanConfig.devices needs fleet sizes >= 1, got {self.devices}")
        if not 0 < self.p99_s < float("inf"):
            raise ConfigError(f"PlanConfig.p99_s must be finite and > 0 seconds, got {self.p99_s}")
