"""HyperFleet: personalized heads, generated in the cloud, for a fleet of devices.

What a scenario is made of, and the log that a run leaves, can be had from here:

    from dataclasses import replace

    from hyperfleet import EveryN, RunLog, scenario

    changed = replace(scenario("city_commute"), active_devices=200, policy=EveryN(n=16))

Names are looked up when they are first used: `import hyperfleet` imports nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyperfleet.client import PATIENT as PATIENT
    from hyperfleet.client import RetryPolicy as RetryPolicy
    from hyperfleet.emulation.run_log import RunLog as RunLog
    from hyperfleet.scenario.arrivals import Burst as Burst
    from hyperfleet.scenario.arrivals import Diurnal as Diurnal
    from hyperfleet.scenario.arrivals import Poisson as Poisson
    from hyperfleet.scenario.arrivals import Trace as Trace
    from hyperfleet.scenario.cloud_model import CloudModel as CloudModel
    from hyperfleet.scenario.definition import Scenario as Scenario
    from hyperfleet.scenario.drift import Drift as Drift
    from hyperfleet.scenario.faults import Blackout as Blackout
    from hyperfleet.scenario.faults import ClockSkew as ClockSkew
    from hyperfleet.scenario.faults import CorruptReplies as CorruptReplies
    from hyperfleet.scenario.faults import KillHost as KillHost
    from hyperfleet.scenario.faults import KillReplica as KillReplica
    from hyperfleet.scenario.faults import RefuseRequests as RefuseRequests
    from hyperfleet.scenario.faults import SlowDevices as SlowDevices
    from hyperfleet.scenario.named import SCENARIOS as SCENARIOS
    from hyperfleet.scenario.named import scenario as scenario
    from hyperfleet.scenario.policies import POLICIES as POLICIES
    from hyperfleet.scenario.policies import EveryN as EveryN
    from hyperfleet.scenario.policies import EverySample as EverySample
    from hyperfleet.scenario.policies import Never as Never
    from hyperfleet.scenario.policies import OncePerSession as OncePerSession
    from hyperfleet.scenario.policies import OnDrift as OnDrift
    from hyperfleet.scenario.profiles import CAMERA as CAMERA
    from hyperfleet.scenario.profiles import OLD_PHONE as OLD_PHONE
    from hyperfleet.scenario.profiles import PHONE as PHONE
    from hyperfleet.scenario.profiles import DeviceProfile as DeviceProfile

# The same once more for the interpreter; a test holds the two against each other.
_NAMES_OF = {
    "client": ("PATIENT", "RetryPolicy"),
    "emulation.run_log": ("RunLog",),
    "emulation.scenario.arrivals": ("Burst", "Diurnal", "Poisson", "Trace"),
    "emulation.scenario.cloud_model": ("CloudModel",),
    "emulation.scenario.drift": ("Drift",),
    "emulation.scenario.faults": (
        "Blackout",
        "ClockSkew",
        "CorruptReplies",
        "KillHost",
        "KillReplica",
        "RefuseRequests",
        "SlowDevices",
    ),
    "emulation.scenario.named": ("SCENARIOS", "scenario"),
    "emulation.scenario.policies": (
        "POLICIES",
        "EveryN",
        "EverySample",
        "Never",
        "OnDrift",
        "OncePerSession",
    ),
    "emulation.scenario.profiles": ("CAMERA", "OLD_PHONE", "PHONE", "DeviceProfile"),
    "emulation.scenario.scenario": ("Scenario",),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES_OF.items() for name in names}

__all__ = sorted(_MODULE_OF)

# A type checker that saw this would take any name for one of ours.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the module of a public name when it is first asked for."""
        if name not in _MODULE_OF:
            # The machinery of imports needs exactly this error to go on and look for a submodule.
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}"
            )
        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
