import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hyperfleet.emulation.timeline.plan import Material, Plan, active_devices, draw_plan
from hyperfleet.errors import ConfigError, EmptyStreamError
from hyperfleet.scenario.arrival_files import write_trace
from hyperfleet.scenario.arrivals import Burst, Poisson, Trace
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.drift import Drift
from hyperfleet.scenario.profiles import DeviceProfile

# Devices with 1 to 4 rows each, numbered with gaps; every third was held out.
DEVICE_ID = 10 * np.arange(1, 25)
NUM_ROWS = 1 + np.arange(24) % 4
DEVICE_OF_ROW = np.repeat(DEVICE_ID, NUM_ROWS)
SEEN = {int(device): index % 3 != 0 for index, device in enumerate(DEVICE_ID)}
MATERIAL = Material.of(DEVICE_OF_ROW, SEEN)


def scenario(**changes: object) -> Scenario:
    fields: dict[str, object] = {
        "name": "plan",
        "registered_devices": 500,
        "active_devices": 40,
        "duration_s": 100.0,
        "arrivals": Poisson(per_device_per_s=0.1),
    }
    return Scenario(**{**fields, **changes})  # type: ignore[arg-type]


def numbers_and_rows_one_by_one(plan: Plan, source_of: dict[int, int]) -> tuple[list[int], list[int]]:
    """Count as a device would, sample after sample."""
    seen: Counter[int] = Counter()
    numbers, rows = [], []
    for device in plan.device.tolist():
        own = np.flatnonzero(source_of[device] == DEVICE_OF_ROW)
        numbers.append(seen[device])
        rows.append(int(own[seen[device] % len(own)]))
        seen[device] += 1
    return numbers, rows


def assert_equal_plans(first: Plan, second: Plan, names: tuple[str, ...] = ()) -> None:
    for name in names or tuple(field.name for field in dataclasses.fields(Plan)):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_material_knows_where_the_rows_of_each_device_are() -> None:
    assert MATERIAL.device_id.tolist() == DEVICE_ID.tolist()
    assert MATERIAL.num_rows.tolist() == NUM_ROWS.tolist()
    assert MATERIAL.seen.tolist() == [SEEN[int(device)] for device in DEVICE_ID]
    for first, count, device in zip(MATERIAL.first_row, MATERIAL.num_rows, DEVICE_ID, strict=True):
        assert set(DEVICE_OF_ROW[first : first + count]) == {device}


def test_material_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(EmptyStreamError, match="no live sample"):
        Material.of(np.empty(0, np.int64), SEEN)
    with pytest.raises(ConfigError, match="order of their devices"):
        Material.of(DEVICE_OF_ROW[::-1], SEEN)
    with pytest.raises(ConfigError, match="order of their devices"):
        Material.of(np.array([10, 20, 10]), SEEN)


@pytest.mark.parametrize("cameras", ["seen", "held-out"])
def test_a_profile_that_nobody_can_film_like_is_refused(cameras: str) -> None:
    everybody = Material.of(DEVICE_OF_ROW, dict.fromkeys(SEEN, cameras == "held-out"))
    profile = DeviceProfile(name="odd one", cameras=cameras)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"'odd one' films like {cameras} devices.*cameras='all'"):
        draw_plan(scenario(profiles=(profile,)), everybody)


def test_active_devices_are_some_of_the_registered_ones_and_each_as_often() -> None:
    chosen = np.concatenate([active_devices(scenario(seed=seed)) for seed in range(250)])
    assert all(len(np.unique(part)) == 40 for part in chosen.reshape(-1, 40))
    assert (np.diff(chosen.reshape(-1, 40), axis=1) > 0).all()
    counts = np.bincount(chosen, minlength=500)
    assert len(counts) == 500
    assert stats.chisquare(counts).pvalue > 1e-3
    assert active_devices(scenario(registered_devices=40)).tolist() == list(range(40))


def test_registered_devices_cost_nothing() -> None:
    # Anything that is kept for each of these would not fit into any memory.
    plan = draw_plan(scenario(registered_devices=10**12), MATERIAL)
    assert len(plan.device_id) == len(plan.profile) == len(plan.network) == 40
    assert plan.device_id.max() > 10**9


def test_profiles_are_drawn_by_their_shares_and_networks_alike() -> None:
    shares = {"a": 6.0, "b": 3.0, "c": 0.5}
    profiles = tuple(DeviceProfile(name=name, share=share) for name, share in shares.items())
    many = scenario(
        registered_devices=4000,
        active_devices=4000,
        duration_s=1.0,
        profiles=profiles,
        networks=("4g-5", "5g-50", "4g-5", "4g-5"),
    )
    plan = draw_plan(many, MATERIAL)
    expected = 4000 * np.array(list(shares.values())) / sum(shares.values())
    assert stats.chisquare(np.bincount(plan.profile, minlength=3), expected).pvalue > 1e-3
    assert stats.chisquare(np.bincount(plan.network, minlength=4)).pvalue > 1e-3
    both = np.histogram2d(plan.profile, plan.network, bins=(3, 4))[0]
    assert stats.chi2_contingency(both).pvalue > 1e-3


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    active=st.integers(1, 60),
    rate=st.floats(0.001, 0.5),
    cameras=st.lists(st.sampled_from(["all", "seen", "held-out"]), min_size=1, max_size=3),
)
def test_each_device_films_its_own_stream_from_the_beginning_and_again(
    seed: int, active: int, rate: float, cameras: list[str]
) -> None:
    profiles = tuple(
        DeviceProfile(name=str(index), cameras=each)  # type: ignore[arg-type]
        for index, each in enumerate(cameras)
    )
    plan = draw_plan(
        scenario(
            seed=seed,
            active_devices=active,
            profiles=profiles,
            duration_s=60.0,
            arrivals=Poisson(per_device_per_s=rate),
        ),
        MATERIAL,
    )
    allowed = {
        "all": DEVICE_ID.tolist(),
        "seen": [device for device in SEEN if SEEN[device]],
        "held-out": [device for device in SEEN if not SEEN[device]],
    }
    source_of = {
        index: (own := allowed[cameras[profile]])[device % len(own)]
        for index, (device, profile) in enumerate(
            zip(plan.device_id.tolist(), plan.profile.tolist(), strict=True)
        )
    }
    numbers, rows = numbers_and_rows_one_by_one(plan, source_of)
    assert plan.number.tolist() == numbers
    assert plan.row.tolist() == rows
    assert (np.diff(plan.time_s) >= 0).all()
    assert ((plan.time_s >= 0) & (plan.time_s < 60)).all()


def test_a_stream_that_is_over_begins_again() -> None:
    plan = draw_plan(scenario(active_devices=3, arrivals=Poisson(per_device_per_s=1.0)), MATERIAL)
    for device in range(3):
        rows = plan.row[plan.device == device]
        count = len(set(rows.tolist()))
        assert len(rows) > 50 > 4 >= count
        np.testing.assert_array_equal(rows[count:], rows[:-count])


def test_samples_at_one_time_are_counted_in_their_order(tmp_path: Path) -> None:
    time_s = np.array([0.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    device = np.array([1, 0, 0, 1, 1, 1])
    path = write_trace(tmp_path / "trace.csv", time_s, device)
    plan = draw_plan(scenario(active_devices=2, arrivals=Trace(path=path)), MATERIAL)
    assert plan.device.tolist() == device.tolist()
    assert plan.number.tolist() == [0, 0, 1, 1, 2, 3]


def test_a_run_without_a_sample_has_a_plan() -> None:
    plan = draw_plan(scenario(arrivals=Poisson(per_device_per_s=1e-9)), MATERIAL)
    assert len(plan.time_s) == len(plan.number) == len(plan.row) == 0
    assert len(plan.device_id) == 40


def test_what_drifts_shows_rows_of_donors() -> None:
    before = draw_plan(scenario(), MATERIAL)
    after = draw_plan(scenario(drift=Drift(kind="abrupt", at_s=50.0)), MATERIAL)
    assert_equal_plans(before, after, ("device_id", "profile", "network", "time_s", "device", "number"))
    early = before.time_s < 50
    np.testing.assert_array_equal(before.row[early], after.row[early])
    own, shown = DEVICE_OF_ROW[before.row], DEVICE_OF_ROW[after.row]
    assert (own[~early] != shown[~early]).all()
    # Each row is the one that the donor would have shown: its stream goes on, counted by the device.
    place = np.searchsorted(DEVICE_ID, shown)
    np.testing.assert_array_equal(
        after.row, MATERIAL.first_row[place] + after.number % MATERIAL.num_rows[place]
    )


def test_each_thing_is_drawn_for_itself() -> None:
    plan = draw_plan(scenario(), MATERIAL)
    assert_equal_plans(plan, draw_plan(scenario(name="other name"), MATERIAL))
    burst = Burst(per_device_per_s=0.2, at_s=10.0, burst_s=10.0, factor=5.0, share=0.5)
    other = draw_plan(scenario(arrivals=burst), MATERIAL)
    assert_equal_plans(plan, other, ("device_id", "profile", "network"))
    assert len(other.time_s) != len(plan.time_s)
    reseeded = draw_plan(scenario(seed=1), MATERIAL)
    for name in ("device_id", "network"):
        assert (getattr(plan, name) != getattr(reseeded, name)).any(), name
