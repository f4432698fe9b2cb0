"""A folder of the driver on every node of the cluster, fetched once per node."""

import errno
import hashlib
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import ray
import xxhash
from filelock import FileLock

from hyperfleet.emulation.live_data import LiveData, open_live_data
from hyperfleet.errors import DataError
from hyperfleet.scratch import forget_unused, mark_used, own_cache

# Small enough that a node never holds a large file in memory twice, large enough to keep parts few.
PART_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _File:
    name: str
    num_bytes: int
    parts: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NodeFolder:
    """A folder that any process of the cluster can open; created by `on_this_node` or `ship_folder`.

    Attributes:
        origin: path on the driver's machine, and on all nodes if `files` is None.
        digest: digest of names and contents; "" if `files` is None.
        files: files in the object store; None if every node has the folder at `origin`.
    """

    origin: Path
    digest: str = ""
    files: tuple[_File, ...] | None = None

    def path(self) -> Path:
        """Return the folder's path on this node; the first caller fetches it.

        Raises:
            DataError: the node's disk is full or cannot be written.
        """
        if self.files is None:
            return self.origin
        cache = own_cache("folders")
        folder = cache / self.digest
        try:
            with FileLock(f"{folder}.lock"):
                if not folder.exists():
                    forget_unused(cache)
                    self._fetch(folder)
                mark_used(folder)
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            raise DataError(
                f"{self.origin} cannot be copied to node {socket.gethostname()}: {error}; "
                + ("free some of its disk" if full else "make that place writable")
                + ", set TMPDIR to another place before Ray starts there, or put the data set on storage "
                "that all nodes share and name it in HYPERFLEET_STORAGE"
            ) from error
        return folder

    def _fetch(self, folder: Path) -> None:
        assert self.files is not None
        needed, free = sum(file.num_bytes for file in self.files), shutil.disk_usage(folder.parent).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"{needed:,} bytes are needed, {free:,} are free", str(folder.parent))
        # Renamed when complete: a process that dies leaves no partial folder behind.
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as partial:
            whole = Path(partial) / "folder"
            for file in self.files:
                path = whole / file.name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as target:
                    for part in file.parts:
                        target.write(ray.get(part))
            whole.rename(folder)


def on_this_node(folder: Path) -> NodeFolder:
    """Return a folder that has the same path on every node."""
    return NodeFolder(origin=folder.absolute())


def ship_folder(folder: Path) -> NodeFolder:
    """Put the folder's files into the object store, from which each node fetches them once.

    Raises:
        DataError: a file cannot be read.
    """
    folder = folder.absolute()
    digest = hashlib.sha256()
    files = []
    try:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = str(PurePosixPath(path.relative_to(folder)))
            file, content = _put(path, name)
            digest.update(f"{name}\0{content}\0".encode())
            files.append(file)
    except OSError as error:
        raise DataError(f"{folder} cannot be sent to the other nodes: {error}") from error
    return NodeFolder(origin=folder, digest=digest.hexdigest()[:32], files=tuple(files))


def open_live_folder(folder: NodeFolder, text_length: int) -> LiveData:
    """Open the live part of a data set on this node; see `open_live_data`."""
    return open_live_data(folder.path(), text_length)


def _put(path: Path, name: str) -> tuple[_File, str]:
    num_bytes = path.stat().st_size
    content = xxhash.xxh3_128()
    parts = []
    # Arrays, which Ray passes without a copy.
    mapped = np.memmap(path, dtype=np.uint8, mode="r") if num_bytes else np.empty(0, np.uint8)
    for start in range(0, num_bytes, PART_BYTES):
        part = np.asarray(mapped[start : start + PART_BYTES])
        content.update(part.data)
        parts.append(ray.put(part))
    return _File(name=name, num_bytes=num_bytes, parts=tuple(parts)), content.hexdigest()
