import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.client import RetryPolicy
from hyperfleet.errors import ConfigError, DataError, UnknownNameError
from hyperfleet.scenario.arrivals import Burst, Diurnal, Poisson
from hyperfleet.scenario.cloud_model import CloudModel
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.faults import (
    Blackout,
    ClockSkew,
    CorruptReplies,
    KillHost,
    KillReplica,
    RefuseRequests,
    SlowDevices,
)
from hyperfleet.scenario.named import SCENARIOS, scenario
from hyperfleet.scenario.policies import POLICIES, EveryN, OncePerSession, OnDrift
from hyperfleet.scenario.profiles import CAMERA, PHONE, DeviceProfile


@pytest.mark.parametrize("name", SCENARIOS)
def test_named_scenarios_survive_a_file(name: str, tmp_path: Path) -> None:
    made = scenario(name)
    assert made.name == name
    assert made.description
    assert Scenario.load(made.save(tmp_path / "scenario.json")) == made


@given(
    policy=st.sampled_from([make() for make in POLICIES.values()]),
    arrivals=st.sampled_from(
        [
            Poisson(per_device_per_s=1.0),
            Diurnal(per_device_per_s=0.1),
            Burst(per_device_per_s=0.1, at_s=1.0, burst_s=2.0, factor=3.0),
        ]
    ),
)
def test_every_kind_comes_back_as_itself(policy, arrivals) -> None:
    made = Scenario(name="x", policy=policy, arrivals=arrivals, faults=(KillHost(at_s=1.0), ClockSkew()))
    assert Scenario.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"active_devices": 11, "registered_devices": 10}, "active_devices.*10.*11"),
        ({"active_devices": 0}, "active_devices"),
        ({"duration_s": 0.0}, "duration_s"),
        ({"duration_s": float("inf")}, "duration_s"),
        ({"seed": -1}, "seed"),
        ({"profiles": ()}, "profiles"),
        ({"profiles": (PHONE, dataclasses.replace(CAMERA, name="phone"))}, "different names"),
        ({"networks": ()}, "networks"),
        ({"networks": ("6g",)}, "6g"),
        ({"codec": "zip"}, "zip"),
        ({"faults": (Blackout(from_s=1.0, to_s=2.0, network="lte_walk"),)}, "Blackout.network.*lte_walk"),
    ],
)
def test_a_scenario_that_cannot_run_is_refused_with_its_field(changes: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Scenario(name="x", **changes)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Blackout(from_s=2.0, to_s=1.0), "Blackout"),
        (lambda: KillHost(at_s=-1.0), "KillHost.at_s"),
        (lambda: KillReplica(at_s=1.0, restart_s=0.0), "KillReplica.restart_s"),
        (lambda: SlowDevices(from_s=0.0, to_s=1.0, factor=1.0), "SlowDevices.factor"),
        (lambda: CorruptReplies(from_s=0.0, to_s=1.0, share=0.0), "CorruptReplies.share"),
        (lambda: RefuseRequests(from_s=0.0, to_s=1.0, retry_after_s=-1.0), "RefuseRequests.retry_after_s"),
        (lambda: ClockSkew(skew_s=0.0), "ClockSkew.skew_s"),
        (lambda: CloudModel(replicas=0), "CloudModel.replicas"),
        (lambda: CloudModel(batch_s=0.0, head_s=0.0), "CloudModel"),
        (lambda: EveryN(n=0), "EveryN.n"),
        (lambda: OnDrift(window=2), "OnDrift.window"),
        (lambda: OnDrift(p_value=1.0), "OnDrift.p_value"),
        (lambda: OncePerSession(gap_s=0.0), "OncePerSession.gap_s"),
        (lambda: DeviceProfile(name="x", gmac_per_s=0.0), "DeviceProfile.gmac_per_s"),
        (lambda: DeviceProfile(name="x", battery_j=0.0), "DeviceProfile.battery_j"),
        (lambda: RetryPolicy(max_tries=0), "RetryPolicy.max_tries"),
    ],
)
def test_parts_refuse_what_cannot_be(make, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        make()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("sed",), 1, "sed.*expected.*seed"),
        (("replicas",), 2, "replicas.*belongs to CloudModel"),
        (("retry", "active_devices"), 2, "retry.active_devices.*belongs to Scenario"),
        (("policy", "window"), 3, "policy.*window"),
        (("retry", "max_tries"), 0, "RetryPolicy.max_tries"),
        (("seed",), "many", "seed.*integer"),
        (("policy", "kind"), "sometimes", "sometimes"),
        (("duration_s",), -1, "Scenario.duration_s"),
    ],
)
def test_a_file_with_a_wrong_field_says_which(path: tuple[str, ...], value: object, said: str) -> None:
    fields = json.loads(Scenario(name="x").to_json())
    inner = fields
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    with pytest.raises(ConfigError, match=said):
        Scenario.from_json(json.dumps(fields))


def test_a_file_that_holds_no_scenario_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"name": "x", "policy": "every-n"}')
    with pytest.raises(ConfigError, match=r"other\.json.*policy"):
        Scenario.load(path)


def test_a_missing_file_and_no_json_are_errors_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        Scenario.load(tmp_path / "nowhere.json")
    with pytest.raises(ConfigError, match="JSON"):
        Scenario.from_json("{")
    with pytest.raises(UnknownNameError, match="flash_crowd"):
        scenario("flash_mob")
