"""Per-user cache folders on this machine, for copies that can be made again."""

import getpass
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

from hyperfleet.errors import DataError

# Copies unused for this long are removed; they can be fetched again.
FORGET_AFTER_S = 7 * 24 * 3600.0


def own_cache(name: str) -> Path:
    """Return this user's folder `name` below the temporary directory, created if needed.

    Raises:
        DataError: it cannot be created, or belongs to another user, who could put anything there.
    """
    try:
        # gettempdir raises if no folder is writable, and names those it tried.
        root = Path(tempfile.gettempdir()) / f"hyperfleet-{getpass.getuser()}"
        root.mkdir(mode=0o700, exist_ok=True)
        owner = root.lstat().st_uid
        if owner != os.getuid() or root.is_symlink():
            raise DataError(
                f"{root} belongs to another user (uid {owner}); remove it, or set TMPDIR to your own folder"
            )
        folder = root / name
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(
            f"no folder for copies of models and data on node {socket.gethostname()}: {error}; free some of "
            "its disk, or set TMPDIR to a writable folder"
        ) from error
    return folder


def mark_used(folder: Path) -> None:
    """Mark a cached folder as used, so that `forget_unused` keeps it."""
    os.utime(folder)


def forget_unused(cache: Path, older_than_s: float = FORGET_AFTER_S) -> None:
    """Remove folders not marked as used for `older_than_s`; another process may remove some first."""
    oldest_s = time.time() - older_than_s
    for entry in cache.iterdir():
        try:
            is_old = entry.is_dir() and entry.stat().st_mtime < oldest_s
        except FileNotFoundError:
            continue
        if is_old:
            shutil.rmtree(entry, ignore_errors=True)
