import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hyperfleet.errors import ConfigError, DataError
from hyperfleet.scenario.arrival_files import write_trace
from hyperfleet.scenario.arrivals import MAX_ARRIVALS, Burst, ClosedLoop, Diurnal, Poisson, Trace


def rng(seed=0):
    return np.random.default_rng(seed)


def expect_poisson(count, mean):
    """A count that this mean gives but for one time in 10 million."""
    assert stats.poisson.ppf(5e-8, mean) <= count <= stats.poisson.ppf(1 - 5e-8, mean)


PROCESSES = st.one_of(
    st.builds(Poisson, per_device_per_s=st.floats(0.0, 2.0, allow_subnormal=False)),
    st.builds(
        Diurnal,
        per_device_per_s=st.floats(0.0, 2.0, allow_subnormal=False),
        period_s=st.floats(1.0, 1e5),
        amplitude=st.floats(0.0, 1.0, allow_subnormal=False),
        peak_at_s=st.floats(-1e5, 1e5),
    ),
    st.builds(
        Burst,
        per_device_per_s=st.floats(0.0, 2.0, allow_subnormal=False),
        at_s=st.floats(0.0, 100.0, allow_subnormal=False),
        burst_s=st.floats(0.1, 100.0),
        factor=st.floats(1.0, 10.0),
        share=st.floats(0.01, 1.0),
    ),
    st.builds(ClosedLoop, ramp_s=st.floats(0.0, 100.0)),
)


@given(process=PROCESSES, num_devices=st.integers(1, 30), duration_s=st.floats(0.1, 60.0))
@settings(max_examples=100, deadline=None)
def test_arrivals_ascend_within_the_run_at_devices_that_exist_and_can_be_repeated(
    process, num_devices, duration_s
):
    time_s, device = process.draw(rng(), num_devices, duration_s)
    assert (time_s.dtype, device.dtype) == (np.float64, np.int64)
    assert time_s.shape == device.shape
    assert ((time_s >= 0) & (time_s < duration_s)).all()
    assert ((device >= 0) & (device < num_devices)).all()
    assert (np.diff(time_s) >= 0).all()
    again = process.draw(rng(), num_devices, duration_s)
    np.testing.assert_array_equal(again[0], time_s)
    np.testing.assert_array_equal(again[1], device)


def test_poisson_arrivals_are_uniform_over_time_and_devices_and_their_number_is_poisson():
    process = Poisson(per_device_per_s=0.5)
    time_s, device = process.draw(rng(), 50, 2000.0)
    expect_poisson(len(time_s), 50_000)
    assert stats.kstest(time_s / 2000, "uniform").pvalue > 1e-4
    assert stats.chisquare(np.bincount(device, minlength=50)).pvalue > 1e-4
    # Gaps of one device have no memory.
    assert stats.kstest(np.diff(time_s[device == 7]), "expon", (0, 2)).pvalue > 1e-4
    counts = [len(process.draw(rng(seed), 10, 10.0)[0]) for seed in range(400)]
    assert np.var(counts) / np.mean(counts) == pytest.approx(1.0, abs=0.35)
    expect_poisson(sum(counts), 400 * 50)


@pytest.mark.parametrize("amplitude", [0.0, 0.6, 1.0])
def test_diurnal_arrivals_follow_their_rate(amplitude):
    process = Diurnal(per_device_per_s=0.2, period_s=100.0, amplitude=amplitude, peak_at_s=30.0)
    time_s, device = process.draw(rng(), 100, 2050.0)

    def integral(t):
        return t + amplitude * 100 / (2 * np.pi) * (
            np.sin(2 * np.pi * (t - 30) / 100) + np.sin(2 * np.pi * 30 / 100)
        )

    edges = np.linspace(0.0, 2050.0, 206)
    expected = 20 * np.diff(integral(edges))
    counts = np.histogram(time_s, edges)[0]
    expect_poisson(len(time_s), expected.sum())
    busy = expected > 5
    assert stats.chi2.sf(((counts - expected) ** 2 / expected)[busy].sum(), busy.sum()) > 1e-4
    assert stats.chisquare(np.bincount(device, minlength=100)).pvalue > 1e-4


def test_a_burst_multiplies_the_rate_of_its_share_while_it_lasts():
    process = Burst(per_device_per_s=0.2, at_s=300.0, burst_s=200.0, factor=6.0, share=0.25)
    time_s, device = process.draw(rng(), 80, 1000.0)
    within = (time_s >= 300) & (time_s < 500)
    per_device = np.bincount(device[within], minlength=80)
    crowd = np.argsort(per_device)[-20:]
    # 40 of a calm device, 240 of one of the crowd: far enough apart to tell them by their numbers.
    assert per_device[crowd].min() > 1.3 * np.sort(per_device)[-21]
    expect_poisson(per_device[crowd].sum(), 20 * 200 * 1.2)
    expect_poisson(per_device.sum() - per_device[crowd].sum(), 60 * 200 * 0.2)
    expect_poisson((~within).sum(), 80 * 800 * 0.2)
    expect_poisson(np.isin(device[~within], crowd).sum(), 20 * 800 * 0.2)


@pytest.mark.parametrize(("at_s", "during_s"), [(90.0, 10.0), (100.0, 0.0), (5000.0, 0.0)])
def test_a_burst_that_outlasts_the_run_is_cut_off(at_s, during_s):
    process = Burst(per_device_per_s=1.0, at_s=at_s, burst_s=50.0, factor=100.0)
    time_s, _ = process.draw(rng(), 100, 100.0)
    expect_poisson(len(time_s), 100 * (100 + 99 * during_s))


def test_at_least_one_device_joins_a_burst():
    process = Burst(per_device_per_s=0.01, at_s=0.0, burst_s=100.0, factor=1000.0, share=0.001)
    _, device = process.draw(rng(), 5, 100.0)
    assert np.bincount(device).max() > 700


@pytest.mark.parametrize(
    "process",
    [
        Poisson(per_device_per_s=0.1),
        Diurnal(per_device_per_s=0.1, period_s=1000.0),
        Burst(per_device_per_s=0.05, at_s=200.0, burst_s=100.0, factor=11.0),
    ],
    ids=lambda process: process.kind,
)
def test_a_million_arrivals_take_a_moment(process):
    start_s = time.process_time()
    time_s, _ = process.draw(rng(), 10_000, 1000.0)
    took_s = time.process_time() - start_s
    assert len(time_s) > 990_000
    # A tenth to four tenths of a second; a loop over arrivals would take longer than this.
    assert took_s < 1.5


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (Poisson, "per_device_per_s", -0.1),
        (Poisson, "per_device_per_s", float("nan")),
        (Diurnal, "per_device_per_s", float("inf")),
        (Diurnal, "period_s", 0.0),
        (Diurnal, "amplitude", 1.01),
        (Diurnal, "amplitude", -0.1),
        (Diurnal, "peak_at_s", float("nan")),
        (Burst, "per_device_per_s", -1.0),
        (Burst, "at_s", -1.0),
        (Burst, "burst_s", 0.0),
        (Burst, "factor", 0.5),
        (Burst, "share", 0.0),
        (Burst, "share", 1.5),
    ],
)
def test_values_out_of_range_are_refused_by_field(cls, field, value):
    good = {"per_device_per_s": 1.0}
    if cls is Burst:
        good |= {"at_s": 1.0, "burst_s": 1.0, "factor": 2.0}
    cls(**good)
    with pytest.raises(ConfigError, match=rf"{cls.__name__}\.{field} must .*got {value}"):
        cls(**{**good, field: value})


def test_a_run_that_cannot_be_drawn_is_refused():
    process = Poisson(per_device_per_s=1.0)
    with pytest.raises(ConfigError, match="num_devices must be >= 1"):
        process.draw(rng(), 0, 1.0)
    with pytest.raises(ConfigError, match="duration_s must be finite and > 0"):
        process.draw(rng(), 1, float("inf"))
    with pytest.raises(ConfigError, match="lower per_device_per_s"):
        process.draw(rng(), 1000, 1.01 * MAX_ARRIVALS / 1000)


# ---- traces


@pytest.fixture(params=["parquet", "csv"])
def path(request, tmp_path) -> Path:
    return tmp_path / "runs" / f"trace.{request.param}"


@given(
    rows=st.lists(st.tuples(st.floats(0.0, 1e6, allow_subnormal=False), st.integers(0, 99)), max_size=30),
    ending=st.sampled_from(["csv", "parquet"]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_to_the_last_bit_in_order(tmp_path_factory, rows, ending):
    rows = sorted(rows, key=lambda row: row[0])
    path = tmp_path_factory.mktemp("trace") / f"trace.{ending}"
    times = np.array([time_s for time_s, _ in rows], np.float64)
    written = write_trace(path, times, np.array([device for _, device in rows], np.int64))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    time_s, device = Trace(path=written).draw(rng(), 100, 2e6)
    # Equal times stand by device, whatever their order in the file.
    assert list(zip(time_s.tolist(), device.tolist(), strict=True)) == sorted(rows)


def test_a_drawn_process_replays_from_its_trace(path):
    drawn = Poisson(per_device_per_s=0.3).draw(rng(), 20, 50.0)
    replayed = Trace(path=write_trace(path, *drawn)).draw(rng(99), 20, 50.0)
    np.testing.assert_array_equal(replayed[0], drawn[0])
    np.testing.assert_array_equal(replayed[1], drawn[1])


def test_a_trace_is_cut_at_the_end_of_the_run(path):
    write_trace(path, np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 1, 0, 9]))
    time_s, device = Trace(path=path).draw(rng(), 2, 2.0)
    assert (time_s.tolist(), device.tolist()) == ([0.0, 1.0], [0, 1])


def test_a_device_beyond_the_active_ones_is_named_by_its_row(path):
    trace = Trace(path=write_trace(path, np.array([0.0, 1.0]), np.array([0, 5])))
    place = "line 3" if path.suffix == ".csv" else "row 1"
    with pytest.raises(DataError, match=rf"{place}: device 5 of a run with 5 active devices"):
        trace.draw(rng(), 5, 10.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the columns time_s, device"),
        ("time,device\n1,2\n", "lacks the columns time_s"),
        ("time_s,device\n1,2\nx,2\n", "line 3: could not convert string to float: 'x'"),
        ("time_s,device\n1,2\n2,1.5\n", "line 3: invalid literal .* a whole device"),
        ("time_s,device\n1,2\n\n2,\n", "line 4: invalid literal"),
        ("time_s,device\n1,2\n2,2,3\n", "line 3: has 3 cells, expected 2"),
        ("time_s,device\n1,2\n2,99999999999999999999\n", "line 3: .*too large"),
        ("time_s,device\n1,2\n0.5,2\n", r"line 3: time_s 0.5 after 1.0.*never go backwards"),
        ("time_s,device\n1,2\n\n0.5,2\n", r"line 4: time_s 0.5 after 1.0.*never go backwards"),
        ("time_s,device\n-1,2\n", "line 2: time_s -1.0.*at least 0 seconds"),
        ("time_s,device\n1,2\nnan,2\n", "line 3: time_s nan.*finite"),
        ("time_s,device\n1,2\ninf,2\n", "line 3: time_s inf.*finite"),
        ("time_s,device\n1,-2\n", "line 2: .*a device of at least 0"),
    ],
)
def test_a_broken_csv_is_refused_by_line(tmp_path, text, message):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        Trace(path=path)
    assert str(path) in str(caught.value)


def test_a_csv_may_have_more_columns_in_any_order(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("place,device,time_s\nhome,1,0.5\nwork,0,3\n")
    time_s, device = Trace(path=path).draw(rng(), 2, 10.0)
    assert (time_s.tolist(), device.tolist()) == ([0.5, 3.0], [1, 0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time_s": [1.0], "node": [1]}, "device"),
        ({"time_s": [1.0, None], "device": [1, 2]}, "row 1: no time_s"),
        ({"time_s": [1.0, 2.0], "device": [None, 2]}, "row 0: no device"),
        ({"time_s": [1.0, 2.0], "device": [0.5, 2.0]}, "expected float64 and int64"),
        ({"time_s": ["one"], "device": [2]}, "expected float64 and int64"),
        ({"time_s": [1.0, 2.0, 1.5], "device": [0, 0, 0]}, "row 2: time_s 1.5 after 2.0"),
    ],
)
def test_a_broken_parquet_file_is_refused_by_row(tmp_path, columns, message):
    path = tmp_path / "trace.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=message) as caught:
        Trace(path=path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_cut_short_or_of_another_kind_is_refused(path):
    with pytest.raises(DataError, match="expected a Parquet or CSV file"):
        Trace(path=path)
    write_trace(path, np.array([1.0]), np.array([0]))
    path.write_bytes(path.read_bytes()[:-1][1:])
    with pytest.raises(DataError):
        Trace(path=path)
    with pytest.raises(ConfigError, match=r"Trace\.path must end in \.parquet or \.csv"):
        Trace(path=path.with_suffix(".json"))


def test_arrivals_that_could_not_be_read_are_not_written(path):
    write_trace(path, np.array([1.0]), np.array([0]))
    with pytest.raises(DataError, match="never go backwards"):
        write_trace(path, np.array([2.0, 1.0]), np.array([0, 0]))
    with pytest.raises(ConfigError, match="must end in"):
        write_trace(path.with_suffix(".txt"), np.array([2.0]), np.array([0]))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert Trace(path=path).draw(rng(), 1, 9.0)[0].tolist() == [1.0]


@given(num_devices=st.integers(1, 200), ramp_s=st.floats(0.0, 100.0), duration_s=st.floats(0.1, 60.0))
@settings(max_examples=50, deadline=None)
def test_a_closed_loop_starts_each_device_once_within_ramp_and_run(num_devices, ramp_s, duration_s):
    time_s, device = ClosedLoop(ramp_s=ramp_s).draw(rng(), num_devices, duration_s)
    assert len(np.unique(device)) == len(device)
    assert (time_s <= ramp_s).all()
    if ramp_s < duration_s:
        assert len(device) == num_devices


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"samples_per_device": 0}, "samples_per_device must be >= 1, or None for the whole stream, got 0"),
        ({"ramp_s": -1.0}, "ramp_s must be finite and >= 0 seconds, got -1.0"),
        ({"ramp_s": float("nan")}, "ramp_s must be finite and >= 0 seconds, got nan"),
    ],
)
def test_a_closed_loop_that_cannot_be_is_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        ClosedLoop(**fields)
