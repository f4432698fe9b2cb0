"""A small tmpfs that can be filled, so that writes fail as on a full disk."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

FILLER = "filler"


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[Path]:
    """Mount a disk of `num_bytes` at `folder`; skip the test where that is not allowed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs Linux and root")
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazy: takes effect at once, even if a process that is still ending has a file open there.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Fill the disk up to `leave` bytes, even while others write to it."""
    with (disk / FILLER).open("ab", buffering=0) as filler:
        while (free := shutil.disk_usage(disk).free - leave) > 0:
            size = filler.seek(0, os.SEEK_END)
            # Another process may have taken some of the space since.
            with suppress(OSError):
                os.posix_fallocate(filler.fileno(), size, max(1, free // 2))


def make_room(disk: Path) -> None:
    """Free the space that `fill` took."""
    (disk / FILLER).unlink()
