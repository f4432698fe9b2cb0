"""`hyperfleet doctor`: find what prevents a run on this machine, and the remedy. Nothing is changed."""

import dataclasses
import importlib.metadata
import os
import platform
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

import psutil
import torch
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from actors.node_facts import OWN_PACKAGES
from actors.placement import alive_nodes, resources_line
from hyperfleet.errors import HyperFleetError, ServiceError
from hyperfleet.tracking.mlflow_store import absolute_uri, connect, default_tracking_uri, shown, sqlite_file
from hyperfleet.tracking.model_names import NEWEST, NEWEST_STATIC
from hyperfleet.tracking.registry import resolve_bundle
from pipelines import runtime
from pipelines.cluster_check import clock_skews
from pipelines.commands.first_run import DoctorConfig
from pipelines.storage import VARIABLE, shared_storage

DISTRIBUTION = "hyperfleet"
# An actor keeps about 50 files open, a real-time run a thousand connections.
MIN_OPEN_FILES = 8192
MIN_FREE_BYTES = 5 << 30
MAX_SKEW_S = 1.0
TIMEOUT_S = 5.0

Status = Literal["ok", "note", "bad"]
_STYLE: dict[Status, str] = {"ok": "green", "note": "yellow", "bad": "bold red"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Result of one check; `remedy` is empty if nothing needs to be done.

    A status of "note" is no fault; "bad" prevents a run.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


def doctor(config: DoctorConfig, console: Console) -> bool:
    """Run every check, print the findings, and return whether nothing prevents a run."""
    findings = list(examine(config))
    table = Table("", "checked", "found", "what to do", title="hyperfleet doctor")
    for finding in findings:
        status = f"[{_STYLE[finding.status]}]{finding.status}[/]"
        table.add_row(status, finding.name, finding.found, finding.remedy)
    console.print(table)
    num_bad = sum(finding.status == "bad" for finding in findings)
    num_notes = sum(finding.status == "note" for finding in findings)
    console.print(f"{len(findings)} checks: {num_bad} prevent a run, {num_notes} notes", highlight=False)
    return num_bad == 0


def examine(config: DoctorConfig) -> Iterator[Finding]:
    """Run the checks one after the other; a check that crashes is a finding as well."""
    uri = absolute_uri(config.tracking_uri) if config.tracking_uri else default_tracking_uri()
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("interpreter", _interpreter),
        ("libraries", _libraries),
        ("open files", _open_files),
        ("disk", _disk),
        ("GPU", _gpu),
        ("HTTP port", lambda: _port(config.http_port)),
        ("storage", _storage),
        ("tracking store", lambda: _store(uri)),
        ("clock", lambda: _clock(uri)),
        ("personalized model", lambda: _model(NEWEST, uri)),
        ("static model", lambda: _model(NEWEST_STATIC, uri)),
        ("cluster", _cluster),
    ]
    for name, check in checks:
        try:
            finding = check()
        except HyperFleetError as error:
            finding = _bad(str(error), "see the message")
        except Exception as error:
            finding = _bad(f"{type(error).__name__}: {error}", "this is a fault of hyperfleet: report it")
        yield dataclasses.replace(finding, name=name)


def _ok(found: str) -> Finding:
    return Finding(name="", status="ok", found=found)


def _note(found: str, remedy: str = "") -> Finding:
    return Finding(name="", status="note", found=found, remedy=remedy)


def _bad(found: str, remedy: str) -> Finding:
    return Finding(name="", status="bad", found=found, remedy=remedy)


def _interpreter() -> Finding:
    where = platform.__file__ or ""
    if OWN_PACKAGES[0] in {path.name for path in Path(where).parent.iterdir()}:
        return _bad(
            f"{where} hides the standard library's platform", "delete it: platform/ must have no __init__.py"
        )
    return _ok(f"Python {platform.python_version()} at {sys.executable}")


def _libraries() -> Finding:
    faults = []
    requirements = [Requirement(line) for line in importlib.metadata.requires(DISTRIBUTION) or []]
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            faults.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            faults.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if faults:
        return _bad("; ".join(faults), f"pip install -c constraints.txt {DISTRIBUTION}")
    own = importlib.metadata.version(DISTRIBUTION)
    ray_version, torch_version = (importlib.metadata.version(name) for name in ("ray", "torch"))
    return _ok(f"{DISTRIBUTION} {own}, ray {ray_version}, torch {torch_version}")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < MIN_OPEN_FILES:
        may = hard < 0 or hard >= MIN_OPEN_FILES
        more = "ulimit -n 65536" if may else "raise it in /etc/security/limits.conf"
        return _bad(
            f"at most {soft:,} per process, {MIN_OPEN_FILES:,} are needed", f"{more}, before Ray starts"
        )
    return _ok(f"at most {soft:,} per process")


def _disk() -> Finding:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    memory = psutil.virtual_memory().available
    found = f"{free / 2**30:.1f} GiB free in {folder}, {memory / 2**30:.1f} GiB of memory"
    if free < MIN_FREE_BYTES:
        return _bad(
            found,
            f"free {MIN_FREE_BYTES >> 30} GiB or set TMPDIR: Ray and data sets use it on each node",
        )
    return _ok(found)


def _gpu() -> Finding:
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return _ok(f"{torch.cuda.device_count()} x {', '.join(sorted(names))}")
    if shutil.which("nvidia-smi") is not None:
        return _bad(
            f"there is a driver, but torch {torch.__version__} finds no GPU",
            "install a torch built for its CUDA, and check `nvidia-smi`",
        )
    return _note("none: training runs on the CPU")


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.settimeout(TIMEOUT_S)
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return _ok(f"{port} is free")
    return _note(
        f"{port} is in use",
        "unless that is your generator, serve on another port (`serve start --http-port`)",
    )


def _storage() -> Finding:
    storage = shared_storage()
    if storage is None:
        if runtime.is_joined():
            return _note(
                f"{VARIABLE} is not set",
                "training on several nodes needs it: a folder on all of them or s3://...",
            )
        return _ok("this machine's own disk")
    if "://" in storage:
        return _ok(storage)
    try:
        with tempfile.TemporaryDirectory(dir=storage, prefix=".hyperfleet-doctor-"):
            return _ok(f"{storage} can be written")
    except OSError as error:
        return _bad(f"{storage} is not writable: {error.strerror}", f"mount it here, or correct {VARIABLE}")


def _store(uri: str) -> Finding:
    database = sqlite_file(uri)
    if database is not None and not database.exists():
        if not os.access(database.parent, os.W_OK):
            return _bad(f"{database.parent} cannot be written", "name another place with MLFLOW_TRACKING_URI")
        return _note(f"{shown(uri)} does not exist yet", "the first run creates it")
    connect(uri)
    return _ok(f"{shown(uri)} answers")


def _clock(uri: str) -> Finding:
    if sqlite_file(uri) is not None:
        return _ok("no other machine to compare with")
    try:
        with urlopen(f"{uri}/health", timeout=TIMEOUT_S) as reply:
            theirs = parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except OSError:
        return _note("the tracking server does not answer")
    skew_s = abs(time.time() - theirs)
    # The header has whole seconds.
    if skew_s > MAX_SKEW_S + 1:
        return _bad(
            f"{skew_s:.0f} s away from the tracking server's", "synchronize both with a time server (chrony)"
        )
    return _ok(f"within {MAX_SKEW_S + 1:.0f} s of the tracking server's")


def _model(model: str, uri: str) -> Finding:
    database = sqlite_file(uri)
    if database is not None and not database.exists():
        return _note(f"no {model} yet", "`make demo` or `hyperfleet train` registers one")
    try:
        resolved = resolve_bundle(model, uri)
    except ServiceError as error:
        return _bad(str(error), "repair the tracking store first")
    except HyperFleetError as error:
        return _note(str(error))
    return _ok(f"{resolved.name} version {resolved.version}")


def _cluster() -> Finding:
    if not runtime.is_joined():
        return _ok("RAY_ADDRESS names none: each run starts Ray on this machine")
    runtime.connect()  # compares the nodes with this machine
    try:
        num_nodes = len(alive_nodes())
        late = {host: skew_s for host, skew_s in clock_skews().items() if abs(skew_s) > MAX_SKEW_S}
        has = resources_line()
    finally:
        runtime.disconnect()
    if late:
        skews = ", ".join(f"{host} {skew_s:+.1f} s" for host, skew_s in late.items())
        return _bad(f"clocks differ: {skews}", "synchronize the nodes with a time server (chrony)")
    return _ok(f"{num_nodes} nodes with the same code and versions; {has}")
