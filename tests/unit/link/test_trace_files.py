import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.errors import DataError
from hyperfleet.link.trace_files import MAHIMAHI_PACKET_BYTES, read_mahimahi, read_throughput_csv


@pytest.fixture
def write(tmp_path):
    def to(text, name="link.trace"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return to


def test_each_line_delivers_one_packet_by_its_millisecond(write):
    trace = read_mahimahi(write("1\n2\n2\n5\n10\n"))
    assert trace.period_s == 0.010
    assert trace.bytes_between(0.0, trace.period_s) / trace.period_s == pytest.approx(5 * 1500 / 0.010)
    for packets, ms in [(1, 1), (3, 2), (4, 5), (5, 10), (6, 11), (8, 12), (10, 20)]:
        assert trace.duration_s(0.0, 1500.0 * packets) == pytest.approx(ms / 1000)


def test_a_delivery_at_time_zero_belongs_to_the_first_millisecond(write):
    assert read_mahimahi(write("0\n0\n4\n")).duration_s(0.0, 3000.0) == pytest.approx(0.001)


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=60).filter(lambda times: max(times) > 0))
def test_a_mahimahi_file_delivers_its_packets_in_time(tmp_path_factory, times):
    path = tmp_path_factory.getbasetemp() / "drawn.trace"
    path.write_text("".join(f"{ms}\n" for ms in sorted(times)))
    trace = read_mahimahi(path)
    for index, ms in enumerate(sorted(times), start=1):
        finish_s = trace.duration_s(0.0, float(index * MAHIMAHI_PACKET_BYTES))
        assert finish_s <= max(ms, 1) / 1000 + 1e-9
        assert finish_s > (max(ms, 1) - 1) / 1000
    assert trace.bytes_between(0.0, 3 * trace.period_s) == pytest.approx(3 * 1500 * len(times))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"link\.trace: the trace is empty"),
        ("1\nx\n", r"link\.trace:2: expected the time of a delivery in whole milliseconds, got 'x'"),
        ("1\n\n3\n", r"link\.trace:2: expected the time"),
        ("-1\n", r"link\.trace:1: expected the time"),
        ("1.5\n", r"link\.trace:1: expected the time"),
        ("5\n4\n", r"link\.trace:2: time goes backwards, from 0.005 s to 0.004 s"),
        ("5\n60006\n", r"link\.trace:2: no delivery for 60\.001 s"),
        ("60001\n", r"link\.trace:1: no delivery for 60\.001 s"),
        ("0\n0\n", r"link\.trace: the last delivery must be later than 0 ms"),
    ],
)
def test_broken_mahimahi_files_are_refused_with_their_line(write, text, message):
    with pytest.raises(DataError, match=message):
        read_mahimahi(write(text))


def test_a_silence_of_exactly_a_minute_is_still_a_recording(write):
    assert read_mahimahi(write("1\n60001\n")).period_s == 60.001


def test_a_table_of_throughput_holds_from_row_to_row(write):
    trace = read_throughput_csv(write("cell, time_s ,mbit_per_s\na,100,8\nb,101,0\n\nc,103,16.0\n"))
    assert trace.start_s == (0.0, 1.0, 3.0)
    assert trace.bytes_per_s == (1e6, 0.0, 2e6)
    assert trace.period_s == 5  # the last row as long as the one before it
    assert trace.duration_s(0.0, 2e6) == 3.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the trace is empty"),
        ("0,1\n1,2\n", r"link\.trace:1: expected a header with the columns time_s and mbit_per_s"),
        (
            "time_s,mbit_per_s\n0,1\n1,fast\n",
            r":3: mbit_per_s must be a finite number, got 'fast'",
        ),
        ("time_s,mbit_per_s\n0,1\n1\n", r"link\.trace:3: mbit_per_s must be a finite number, got ''"),
        ("time_s,mbit_per_s\n0,1\nnan,1\n", r"link\.trace:3: time_s must be a finite number, got 'nan'"),
        ("time_s,mbit_per_s\n0,1\n1,-2\n", r"link\.trace:3: mbit_per_s must be >= 0, got -2.0"),
        ("time_s,mbit_per_s\n2,1\n1,2\n", r"link\.trace:3: time goes backwards, from 2.0 s to 1.0 s"),
        ("time_s,mbit_per_s\n1,1\n1,2\n", r"link\.trace:3: time_s must rise, got 1.0 twice"),
        ("time_s,mbit_per_s\n0,1\n60.5,2\n", r"link\.trace:3: no row for 60.5 s after 0.0 s"),
        ("time_s,mbit_per_s\n", "at least two rows"),
        ("time_s,mbit_per_s\n0,1\n", "at least two rows"),
        ("time_s,mbit_per_s\n0,0\n1,0\n", "one of them with mbit_per_s > 0"),
        ("time_s,mbit_per_s\n1e300,1\n1.0000000001e300,1\n", "no row for"),
    ],
)
def test_broken_tables_are_refused_with_their_line(write, text, message):
    with pytest.raises(DataError, match=message):
        read_throughput_csv(write(text))


@pytest.mark.parametrize("reader", [read_mahimahi, read_throughput_csv])
def test_files_that_cannot_be_read_are_refused(tmp_path, reader):
    with pytest.raises(DataError, match="cannot read the trace"):
        reader(tmp_path / "none")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read the trace"):
        reader(binary)
