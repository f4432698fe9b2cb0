import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hyperfleet.errors import ConfigError
from hyperfleet.scenario.drift import Drift

NUM_SOURCES = 7
KINDS = ("none", "abrupt", "gradual", "recurring")


def arrivals(num_devices, num_each=400, duration_s=1000.0):
    """Each device gets samples at the same, regular times."""
    time_s = np.repeat(np.arange(num_each) * (duration_s / num_each), num_devices)
    return np.tile(np.arange(num_devices), num_each), time_s


def shown(drift, num_devices=20, seed=0, **kwargs):
    device, time_s = arrivals(num_devices, **kwargs)
    own = np.arange(num_devices) % NUM_SOURCES
    sources = drift.sources(np.random.default_rng(seed), device, time_s, own, NUM_SOURCES)
    return device, time_s, own[device], sources


def test_without_drift_every_device_shows_its_own():
    _, _, own, sources = shown(Drift())
    np.testing.assert_array_equal(sources, own)


@given(
    kind=st.sampled_from(KINDS),
    at_s=st.floats(0.0, 1200.0, allow_subnormal=False),
    width_s=st.floats(1.0, 500.0),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_one_other_donor_a_device_and_nothing_before_the_drift(kind, at_s, width_s, share, seed):
    drift = Drift(kind=kind, at_s=at_s, width_s=width_s, share=share)
    device, time_s, own, sources = shown(drift, seed=seed, num_each=50)
    assert sources.dtype == np.int64
    assert ((sources >= 0) & (sources < NUM_SOURCES)).all()
    np.testing.assert_array_equal(sources[time_s < at_s], own[time_s < at_s])
    strange = sources != own
    pairs = set(zip(device[strange].tolist(), sources[strange].tolist(), strict=True))
    assert len(pairs) == len({one for one, _ in pairs}) <= max(1, round(share * 20))
    np.testing.assert_array_equal(shown(drift, seed=seed, num_each=50)[3], sources)


@pytest.mark.parametrize("share", [0.001, 0.25, 1.0])
def test_an_abrupt_drift_changes_the_whole_stream_of_its_share_at_once(share):
    device, time_s, own, sources = shown(Drift(kind="abrupt", at_s=500.0, share=share))
    late = time_s >= 500
    drifting = np.unique(device[sources != own])
    assert len(drifting) == {0.001: 1, 0.25: 5, 1.0: 20}[share]
    assert (sources != own)[late & np.isin(device, drifting)].all()
    assert late.sum() == len(late) / 2


def test_a_gradual_drift_has_a_probability_that_rises_linearly():
    drift = Drift(kind="gradual", at_s=200.0, width_s=400.0)
    _, time_s, own, sources = shown(drift, num_devices=300)
    strange = sources != own
    for from_s in range(200, 600, 50):
        part = (time_s >= from_s) & (time_s < from_s + 50)
        expected = (time_s[part] - 200).mean() / 400
        assert strange[part].mean() == pytest.approx(expected, abs=5 * 0.5 / np.sqrt(part.sum()))
    assert strange[time_s >= 600].all()


def test_a_recurring_drift_takes_turns():
    _, time_s, own, sources = shown(Drift(kind="recurring", at_s=100.0, width_s=200.0))
    strange = sources != own
    donors = ((time_s >= 100) & (time_s < 300)) | ((time_s >= 500) & (time_s < 700)) | (time_s >= 900)
    np.testing.assert_array_equal(strange, donors)


def test_donors_and_drifting_devices_do_not_depend_on_the_arrivals():
    drift = Drift(kind="gradual", at_s=0.0, width_s=10.0, share=0.5)
    few, many = (shown(drift, num_each=num_each) for num_each in (4, 400))
    last_of_few, last_of_many = few[3][-20:], many[3][-20:]
    np.testing.assert_array_equal(last_of_few, last_of_many)


def test_every_other_device_is_a_donor_as_often():
    own = np.full(6000, 3)
    device = np.arange(6000)
    sources = Drift(kind="abrupt", at_s=0.0).sources(
        np.random.default_rng(0), device, np.ones(6000), own, NUM_SOURCES
    )
    counts = np.bincount(sources, minlength=NUM_SOURCES)
    assert counts[3] == 0
    assert stats.chisquare(np.delete(counts, 3)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "sudden"),
        ("at_s", -1.0),
        ("at_s", float("inf")),
        ("width_s", 0.0),
        ("width_s", float("nan")),
        ("share", 0.0),
        ("share", 1.1),
        ("share", float("nan")),
    ],
)
def test_values_out_of_range_are_refused_by_field(field, value):
    with pytest.raises((ConfigError, TypeError), match=f"Drift.{field} must|{field}"):
        Drift(**{field: value})


def test_a_drift_without_another_device_is_refused():
    nothing = np.zeros(1, np.int64), np.zeros(1), np.zeros(1, np.int64), 1
    with pytest.raises(ConfigError, match="at least 2 devices in the data set, got 1"):
        Drift(kind="abrupt").sources(np.random.default_rng(0), *nothing)
    assert Drift().sources(np.random.default_rng(0), *nothing).tolist() == [0]


@pytest.mark.parametrize("own", [[0, 7], [-1, 2]])
def test_own_devices_that_the_data_set_has_not_are_refused(own):
    with pytest.raises(ConfigError, match="own devices must be between 0 and 6"):
        Drift().sources(np.random.default_rng(0), np.array([0]), np.array([0.0]), np.array(own), NUM_SOURCES)
