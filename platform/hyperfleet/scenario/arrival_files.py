"""Arrival files: Parquet, or CSV with a header, with the columns time_s and device."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from hyperfleet.datasets.records import convert, read_csv_records
from hyperfleet.errors import ConfigError, DataError

_SCHEMA = pa.schema([pa.field("time_s", pa.float64()), pa.field("device", pa.int64())])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ArrivalFile:
    """Arrivals of a file: ascending times, devices of at least 0.

    Attributes:
        place: returns the position of an arrival in the file, e.g. "trace.csv, line 3".
    """

    time_s: Float64[np.ndarray, " arrival"]
    device: Int64[np.ndarray, " arrival"]
    place: Callable[[int], str]

    @classmethod
    def read(cls, path: Path) -> "ArrivalFile":
        """Read and check a file.

        Raises:
            ConfigError: the name ends neither in .parquet nor in .csv.
            DataError: the file is missing or broken; the message names the line or row.
        """
        file = _read_csv(path) if _is_csv(path) else _read_parquet(path)
        for wrong, expected in (
            (~(np.isfinite(file.time_s) & (file.time_s >= 0)), "a finite time_s of at least 0 seconds"),
            (file.device < 0, "a device of at least 0, its position among the active ones"),
            (np.diff(file.time_s, prepend=0.0) < 0, "times that never go backwards; sort the file by time_s"),
        ):
            rows = np.flatnonzero(wrong)
            if len(rows):
                first = int(rows[0])
                before = f" after {file.time_s[first - 1]}" if first else ""
                raise DataError(
                    f"{file.place(first)}: time_s {file.time_s[first]}{before}, device {file.device[first]}; "
                    f"expected {expected}"
                )
        return file


def write_trace(
    path: Path, time_s: Float64[np.ndarray, " arrival"], device: Int64[np.ndarray, " arrival"]
) -> Path:
    """Write arrivals that `Trace` reads and return `path`; its suffix selects Parquet or CSV.

    Args:
        path: ends in .parquet or .csv; its folder is created.
        time_s: seconds since the start of the run, ascending.
        device: positions among the active devices, from 0.

    Raises:
        ConfigError: another suffix.
        DataError: arrivals that `Trace` would refuse.
    """
    as_csv = _is_csv(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial{path.suffix}")
    table = pa.table([time_s, device], schema=_SCHEMA)
    try:
        pa_csv.write_csv(table, partial) if as_csv else pq.write_table(table, partial, compression="zstd")
        # Refuse a broken trace now, not in the run that replays it.
        ArrivalFile.read(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _is_csv(path: Path) -> bool:
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"Trace.path must end in .parquet or .csv, got {path}")
    return path.suffix == ".csv"


def _read_csv(path: Path) -> ArrivalFile:
    types = {field.name: field.type for field in _SCHEMA}
    try:
        table = pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(ignore_empty_lines=False),
            convert_options=pa_csv.ConvertOptions(
                column_types=types, include_columns=_SCHEMA.names, null_values=[]
            ),
        )
    except FileNotFoundError as error:
        raise _unreadable(path, error) from error
    except (OSError, pa.ArrowException):
        # A second, slower pass names the line.
        return _read_csv_by_line(path)
    return _file(table, lambda row: f"{path}, line {row + 2}")


def _read_csv_by_line(path: Path) -> ArrivalFile:
    records = read_csv_records(path, _SCHEMA.names)

    def to_pair(_: int, row: dict[str, str]) -> tuple[float, int]:
        try:
            return float(row["time_s"]), int(np.int64(int(row["device"])))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{error}; expected a time_s in seconds and a whole device") from error

    pairs = convert(path, records, to_pair)
    table = pa.table([[time_s for time_s, _ in pairs], [device for _, device in pairs]], schema=_SCHEMA)
    return _file(table, lambda row: f"{path}, {records[row].place}")


def _read_parquet(path: Path) -> ArrivalFile:
    try:
        table = pq.read_table(path, columns=_SCHEMA.names)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    missing = [name for name in _SCHEMA.names if name not in table.column_names]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; expected time_s and device")
    for name in _SCHEMA.names:
        empty = np.flatnonzero(table[name].is_null().to_numpy())
        if len(empty):
            raise DataError(
                f"{path}, row {empty[0]}: no {name}; expected a number in every row, counted from 0"
            )
    try:
        table = table.select(_SCHEMA.names).cast(_SCHEMA)
    except pa.ArrowException as error:
        raise DataError(
            f"{path}: columns of types {table.schema.types}: {error}; expected float64 and int64"
        ) from error
    return _file(table, lambda row: f"{path}, row {row}")


def _file(table: pa.Table, place: Callable[[int], str]) -> ArrivalFile:
    return ArrivalFile(time_s=table["time_s"].to_numpy(), device=table["device"].to_numpy(), place=place)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"no arrivals in {path}: {error}; expected a Parquet or CSV file with columns time_s and device"
    )
