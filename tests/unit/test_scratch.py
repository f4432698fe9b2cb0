import errno
import os
import tempfile
import time

import pytest

from hyperfleet.errors import DataError
from hyperfleet.scratch import forget_unused, mark_used, own_cache
from hyperfleet.tracking.mlflow_store import shown


@pytest.fixture(autouse=True)
def _temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_cache_is_the_users_own_and_closed_to_others():
    folder = own_cache("bundles")
    assert folder == own_cache("bundles")
    assert folder.parent.stat().st_mode & 0o077 == 0


def test_a_folder_of_somebody_else_is_not_used(monkeypatch):
    own_cache("bundles")
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(DataError, match=r"belongs to another user.*set TMPDIR"):
        own_cache("bundles")


def test_a_link_to_somewhere_is_not_followed(tmp_path):
    root = own_cache("bundles").parent
    moved = root.rename(tmp_path / "elsewhere")
    root.symlink_to(moved)
    with pytest.raises(DataError, match="belongs to another user"):
        own_cache("bundles")


def test_a_disk_without_a_byte_left_says_so(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    # Makes Python search for a temporary folder and find no writable one.
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile._os, "open", full)
    with pytest.raises(DataError, match=r"No usable temporary directory.*free some of its disk.*TMPDIR"):
        own_cache("bundles")


def test_what_was_not_used_for_long_goes_and_the_rest_stays():
    cache = own_cache("bundles")
    for name in ("old", "used", "new"):
        (cache / name).mkdir()
        (cache / name / "file").write_text("x")
    week_ago_s = time.time() - 8 * 24 * 3600
    for name in ("old", "used"):
        os.utime(cache / name, (week_ago_s, week_ago_s))
    mark_used(cache / "used")
    forget_unused(cache)
    assert sorted(each.name for each in cache.iterdir()) == ["new", "used"]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql://mlflow:s3cret@db:5432/runs", "postgresql://mlflow:***@db:5432/runs"),
        ("https://user:s3cret@host/mlflow", "https://user:***@host/mlflow"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////tmp/a b/mlflow.db", "sqlite:////tmp/a b/mlflow.db"),
    ],
)
def test_a_password_is_not_shown(uri, said):
    assert shown(uri) == said
