"""Features of every live sample of a data set, computed once and kept."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import xxhash
from jaxtyping import Float32, Int32, Int64

from hyperfleet.bundle import CONFIG_FILE, WEIGHTS_FILE, replace_folder
from hyperfleet.datasets.corpus import STORE_FILE
from hyperfleet.device import DeviceGroup, Samples, gather_samples
from hyperfleet.emulation.live_data import LiveData
from hyperfleet.errors import DataError, EmptyStreamError

# Samples encoded together. Not a setting: features differ in their last bits with the batch size, and kept
# features must not depend on who computed them.
ENCODE_BATCH = 32
_DESCRIPTION_FILE = "features.json"
_FORMAT = "hyperfleet features 1"


def live_samples(data: LiveData) -> Samples:
    """Return every live sample of the data set, by device and in each stream's order of time.

    Raises:
        EmptyStreamError: there is none.
    """
    samples = gather_samples(data.stream, sorted(data.seen))
    if samples is None:
        raise EmptyStreamError(
            f"none of {len(data.seen)} devices has a live question; render the data set again"
        )
    return samples


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FeatureTable:
    """Features and static answers of every live sample; row i is sample i of `live_samples`.

    Attributes:
        anchor: feature of the drawn anchor frame; a head is generated from it.
        hidden: phi(F_g); a head is applied to it.
        base_answer: answer of the personal model's own static head.
        static_answer: answer of the static model.
        digest: models and data that it was computed from, see `features_digest`; "" if unknown.

    Raises:
        DataError: columns of different lengths, or rows not in the order of devices.
    """

    device_id: Int64[np.ndarray, " _sample"]
    example_id: Int64[np.ndarray, " _sample"]
    anchor: Float32[np.ndarray, "_sample 192"]
    hidden: Float32[np.ndarray, "_sample 96"]
    base_answer: Int32[np.ndarray, " _sample"]
    static_answer: Int32[np.ndarray, " _sample"]
    digest: str = ""

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        if len(set(lengths.values())) != 1:
            raise DataError(f"a feature table has columns of one length, got {lengths}; compute it again")
        if (np.diff(self.device_id) < 0).any():
            raise DataError(
                "FeatureTable.device_id must not decrease: rows of a device must be contiguous; compute the "
                "table from `live_samples`"
            )

    def __len__(self) -> int:
        return len(self.device_id)

    def save(self, folder: Path) -> Path:
        """Write the table as plain arrays into `folder`, all or nothing, and return the folder."""

        def write(partial: Path) -> None:
            partial.mkdir()
            for name in _COLUMNS:
                np.save(partial / f"{name}.npy", getattr(self, name), allow_pickle=False)
            description = {"format": _FORMAT, "digest": self.digest, "num_samples": len(self)}
            (partial / _DESCRIPTION_FILE).write_text(json.dumps(description) + "\n")

        replace_folder(folder, write)
        return folder

    @classmethod
    def load(cls, folder: Path, *, mmap: bool = True) -> "FeatureTable":
        """Read a saved table; if mapped, the processes of a machine share one copy.

        Raises:
            DataError: no such table, or a damaged one.
        """
        try:
            description = json.loads((folder / _DESCRIPTION_FILE).read_text())
            arrays = {
                # A plain view: a memmap is pickled with the class and without the map.
                name: np.load(
                    folder / f"{name}.npy", mmap_mode="r" if mmap else None, allow_pickle=False
                ).view(np.ndarray)
                for name in _COLUMNS
            }
        except (OSError, ValueError) as error:
            raise DataError(f"no feature table in {folder}: {error}; delete it, it is made again") from error
        got = {name: (array.dtype.name, *array.shape[1:]) for name, array in arrays.items()}
        if description.get("format") != _FORMAT or got != _COLUMNS:
            raise DataError(
                f"{folder} holds {got} of format {description.get('format')!r}, expected {_COLUMNS} of "
                f"{_FORMAT!r}; delete it, it is made again"
            )
        return cls(**arrays, digest=str(description["digest"]))


_COLUMNS: Mapping[str, tuple[object, ...]] = {
    "device_id": ("int64",),
    "example_id": ("int64",),
    "anchor": ("float32", 192),
    "hidden": ("float32", 96),
    "base_answer": ("int32",),
    "static_answer": ("int32",),
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FeaturePart:
    """Computed columns of some rows of a `FeatureTable`."""

    rows: Int64[np.ndarray, " sample"]
    anchor: Float32[np.ndarray, "sample 192"]
    hidden: Float32[np.ndarray, "sample 96"]
    base_answer: Int32[np.ndarray, " sample"]
    static_answer: Int32[np.ndarray, " sample"]


def encoding_batches(samples: Samples) -> list[Int64[np.ndarray, " row"]]:
    """Return rows to encode together, the questions of a clip contiguous, so that it is decoded once."""
    order = np.argsort(samples.clip_row, kind="stable")
    return [order[start : start + ENCODE_BATCH] for start in range(0, len(order), ENCODE_BATCH)]


def encode_rows(group: DeviceGroup, samples: Samples, rows: Int64[np.ndarray, " row"]) -> FeaturePart:
    """Encode one batch of `encoding_batches`."""
    batch = Samples(**{each.name: getattr(samples, each.name)[rows] for each in fields(Samples)})
    encoded = group.encode(batch)
    return FeaturePart(
        rows=rows,
        anchor=encoded.anchor,
        hidden=encoded.hidden,
        base_answer=encoded.base_answer.astype(np.int32),
        static_answer=encoded.static_answer.astype(np.int32),
    )


def join_parts(samples: Samples, parts: Iterable[FeaturePart], *, digest: str = "") -> FeatureTable:
    """Join the parts of a table, in any order.

    Raises:
        DataError: a row is missing or came twice.
    """
    computed = [each.name for each in fields(FeaturePart)][1:]
    columns = {name: np.zeros((len(samples), *_COLUMNS[name][1:]), _COLUMNS[name][0]) for name in computed}
    times = np.zeros(len(samples), np.int64)
    for part in parts:
        np.add.at(times, part.rows, 1)
        for name in computed:
            columns[name][part.rows] = getattr(part, name)
    if (times != 1).any():
        raise DataError(
            f"of {len(samples)} samples {int((times == 0).sum())} were not encoded and "
            f"{int((times > 1).sum())} more than once; give each batch of `encoding_batches` to one host"
        )
    return FeatureTable(
        device_id=samples.device_id.astype(np.int64),
        example_id=samples.example_id.astype(np.int64),
        **columns,
        digest=digest,
    )


def encode_all(group: DeviceGroup, samples: Samples, *, digest: str = "") -> FeatureTable:
    """Encode every sample in this process."""
    parts = (encode_rows(group, samples, rows) for rows in encoding_batches(samples))
    return join_parts(samples, parts, digest=digest)


def features_digest(*, personal: Path, static: Path, data: Path, seed: int) -> str:
    """Return the digest (32 hexadecimal digits) of everything that a feature table depends on.

    Args:
        personal: bundle of the personalized model.
        static: bundle of the static model.
        data: folder of the data set.
        seed: draws the anchor frames.

    Raises:
        DataError: a file is missing.
    """
    files = [bundle / name for bundle in (personal, static) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    files += sorted(path for path in data.glob("*") if path.suffix in {".json", ".jsonl", ".csv"})
    files.append(data / STORE_FILE)
    content = xxhash.xxh3_128(f"{_FORMAT} {ENCODE_BATCH} {seed}".encode())
    for path in files:
        try:
            with path.open("rb") as file:
                content.update(f"\n{path.name} {path.stat().st_size}\n".encode())
                while block := file.read(1 << 22):
                    content.update(block)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}; render or train it again") from error
    return content.hexdigest()


def kept_features(folder: Path, digest: str, compute: Callable[[], FeatureTable]) -> FeatureTable:
    """Return the table of `digest` below `folder`; compute and keep it first if it is missing.

    Raises:
        DataError: the kept table is damaged, or `compute` returned one with another digest.
    """
    own = folder / digest
    if not own.is_dir():
        computed = compute()
        if computed.digest != digest:
            raise DataError(f"expected a feature table of digest {digest!r}, got {computed.digest!r}")
        computed.save(own)
    return FeatureTable.load(own)
