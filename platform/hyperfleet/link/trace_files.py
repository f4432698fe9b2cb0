"""Recorded throughput: Mahimahi traces and tables of (time_s, mbit_per_s)."""

import csv
import math
from pathlib import Path

from hyperfleet.errors import ConfigError, DataError
from hyperfleet.link.network import BYTES_PER_MBIT
from hyperfleet.link.trace import RateTrace

# Each line of a Mahimahi trace is one opportunity to deliver a packet of this size.
MAHIMAHI_PACKET_BYTES = 1500
# A longer silence means an interrupted recording; intended outages belong in a scenario.
MAX_GAP_S = 60.0

_COLUMNS = ("time_s", "mbit_per_s")


def read_mahimahi(path: Path) -> RateTrace:
    """Return the trace of a Mahimahi file. The time of its last line is the period.

    Each line is the time, in whole milliseconds, at which a packet of 1,500 bytes may be delivered. The trace
    delivers it evenly over the millisecond that ends then (the first millisecond for a time of 0).

    Raises:
        DataError: the file cannot be read or is empty, a line is not a whole number or is earlier than the
            one before, or there is no delivery for more than 60 s.
    """
    packets: dict[int, int] = {}  # by the number of the millisecond, from 0
    last_ms = 0
    for number, line in enumerate(_lines(path), start=1):
        text = line.strip()
        if not (text.isascii() and text.isdigit()):
            raise DataError(
                f"{path}:{number}: expected the time of a delivery in whole milliseconds, got {text!r}; "
                "a Mahimahi trace holds one such number per line and nothing else"
            )
        ms = int(text)
        _check_step(path, number, last_ms / 1000, ms / 1000, "delivery")
        bin_ms = max(ms - 1, 0)
        packets[bin_ms] = packets.get(bin_ms, 0) + 1
        last_ms = ms
    if last_ms == 0:
        raise DataError(
            f"{path}: the last delivery must be later than 0 ms, because its time is the period; "
            "add the missing deliveries"
        )
    return _of_milliseconds(packets, last_ms)


def _of_milliseconds(packets: dict[int, int], period_ms: int) -> RateTrace:
    """Merge neighbouring milliseconds of equal rate: fewer segments make lookups faster."""
    starts: list[int] = []
    rates: list[float] = []

    def begin(ms: int, count: int) -> None:
        rate = count * MAHIMAHI_PACKET_BYTES * 1000.0
        if not rates or rates[-1] != rate:
            starts.append(ms)
            rates.append(rate)

    reached_ms = 0
    for bin_ms, count in packets.items():  # in the order of the file, sorted by time
        if bin_ms > reached_ms:
            begin(reached_ms, 0)
        begin(bin_ms, count)
        reached_ms = bin_ms + 1
    return RateTrace.of([ms / 1000 for ms in starts], rates, period_ms / 1000)


def read_throughput_csv(path: Path) -> RateTrace:
    """Return the trace of a CSV file with the columns `time_s` and `mbit_per_s` (10^6 bit/s).

    A row applies from its time until that of the next row, the last one as long as the one before it; then
    the trace repeats. The first time may be any number.

    Raises:
        DataError: the file cannot be read, lacks these columns or has fewer than two rows; a value is not a
            finite number, a time does not rise, a step exceeds 60 s, a rate is negative, or no rate is above
            zero.
    """
    rows = csv.reader(_lines(path))
    header = [name.strip() for name in next(rows)]
    if any(column not in header for column in _COLUMNS):
        raise DataError(
            f"{path}:1: expected a header with the columns {' and '.join(_COLUMNS)}, got {header}; "
            "write it as the first line"
        )
    time_column, rate_column = (header.index(column) for column in _COLUMNS)
    times: list[float] = []
    rates: list[float] = []
    for row in rows:
        number = rows.line_num
        if not row:
            continue
        second = _number(path, number, row, time_column, "time_s")
        rate = _number(path, number, row, rate_column, "mbit_per_s")
        if rate < 0:
            raise DataError(f"{path}:{number}: mbit_per_s must be >= 0, got {rate}; correct the row")
        if times:
            if second == times[-1]:
                raise DataError(
                    f"{path}:{number}: time_s must rise, got {second} twice; keep one row per time"
                )
            _check_step(path, number, times[-1], second, "row")
        times.append(second)
        rates.append(rate * BYTES_PER_MBIT)
    if len(times) < 2 or not any(rates):
        raise DataError(
            f"{path}: expected at least two rows, one of them with mbit_per_s > 0, got {len(times)} rows, "
            f"the fastest with {max(rates, default=0.0)} bytes/s; a link of constant speed needs no file"
        )
    period_s = times[-1] - times[0] + (times[-1] - times[-2])
    try:
        return RateTrace.of([second - times[0] for second in times], rates, period_s)
    except ConfigError as error:  # e.g. steps lost to rounding of large times
        raise DataError(f"{path}: the rows do not form a trace: {error}") from error


def _lines(path: Path) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot read the trace: {error}; expected a text file of throughput"
        ) from error
    if not lines:
        raise DataError(f"{path}: the trace is empty, expected at least one line; give another file")
    return lines


def _number(path: Path, number: int, row: list[str], column: int, name: str) -> float:
    text = row[column].strip() if column < len(row) else ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}:{number}: {name} must be a finite number, got {text!r}; correct the row")
    return value


def _check_step(path: Path, number: int, before_s: float, now_s: float, what: str) -> None:
    if now_s < before_s:
        raise DataError(
            f"{path}:{number}: time goes backwards, from {before_s} s to {now_s} s; sort the lines by time"
        )
    if now_s - before_s > MAX_GAP_S:
        raise DataError(
            f"{path}:{number}: no {what} for {now_s - before_s:g} s after {before_s} s, expected gaps of at "
            f"most {MAX_GAP_S:g} s; split the recording there and put the outage into the scenario"
        )
