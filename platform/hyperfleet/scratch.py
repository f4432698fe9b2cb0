"""Where copies lie that can be made again: a folder of this user on this machine."""

import getpass
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

from hyperfleet.errors import DataError

# What nobody has opened for so long can be fetched again.
FORGET_AFTER_S = 7 * 24 * 3600.0


def own_cache(name: str) -> Path:
    """Return the folder `name` of this user below the temporary directory, made if it does not exist.

    Raises:
        DataError: it cannot be made, or it belongs to somebody else, who could put anything there.
    """
    try:
        # Also raises where no byte can be written, with names of the folders that were tried.
        root = Path(tempfile.gettempdir()) / f"hyperfleet-{getpass.getuser()}"
        root.mkdir(mode=0o700, exist_ok=True)
        owner = root.lstat().st_uid
        if owner != os.getuid() or root.is_symlink():
            raise DataError(
                f"{root} belongs to another user (uid {owner}); remove it, or set TMPDIR to one of your own"
            )
        folder = root / name
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(
            f"no folder for copies of models and data on node {socket.gethostname()}: {error}; free some of "
            "its disk, or set TMPDIR to a folder that can be written"
        ) from error
    return folder


def mark_used(folder: Path) -> None:
    """Note that a folder of a cache is in use, so that `forget_unused` leaves it."""
    os.utime(folder)


def forget_unused(cache: Path, older_than_s: float = FORGET_AFTER_S) -> None:
    """Remove what was not marked as used for long; what another process removes first is no fault."""
    oldest_s = time.time() - older_than_s
    for entry in cache.iterdir():
        try:
            is_old = entry.is_dir() and entry.stat().st_mtime < oldest_s
        except FileNotFoundError:
            continue
        if is_old:
            shutil.rmtree(entry, ignore_errors=True)
