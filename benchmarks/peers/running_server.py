"""Start, query and measure the CPU of the servers of benchmarks/service_peers.py."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".benchmarks-env" / "serving"
PYTHON = ENVIRONMENT / "bin" / "python"
# The numpy that PyTorch needs, and the HTTP stack of our own service.
REQUIREMENTS = {
    "bentoml": "1.4.39",
    "fastapi": "0.165.0",
    "httptools": "0.9.0",
    "litserve": "0.2.19",
    "mosec": "0.9.8",
    "numpy": "2.4.6",
    "starlette": "1.10.0",
    "uvicorn": "0.54.0",
    "uvloop": "0.23.0",
}
HOST = "127.0.0.1"
START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 30.0
ASK_TIMEOUT_S = 30.0
# Share of a hardware thread; an idle cluster takes a seventh, one that has just started more than one thread.
IDLE_SHARE, IDLE_TIMEOUT_S = 0.3, 60.0
OCTETS = "application/octet-stream"


def installed_versions() -> dict[str, str]:
    """Return the versions of the relevant packages in the peers' environment; empty if any is missing."""
    if not PYTHON.exists():
        return {}
    code = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    shown = subprocess.run([PYTHON, "-c", code, *REQUIREMENTS, "torch"], capture_output=True, text=True)
    versions: dict[str, str] = json.loads(shown.stdout) if shown.returncode == 0 else {}
    return versions


def prepare_environment() -> dict[str, str]:
    """Create the peers' environment if it is missing, and return its versions."""
    versions = installed_versions()
    if REQUIREMENTS.items() <= versions.items():
        return versions
    print(f"Installing the other servers into {ENVIRONMENT} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
    packages = [f"{name}=={version}" for name, version in REQUIREMENTS.items()]
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    shown = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    # PyTorch is not installed a second time. This file is written and read last, so the peers' own packages
    # come first.
    link = Path(shown.stdout.strip()) / "torch_of_the_project.pth"
    link.write_text(sysconfig.get_path("purelib") + "\n")
    return installed_versions()


class RunningServer:
    """A server and its child processes.

    Args:
        command: command to run; it reads its port from $PEER_PORT and ends on end of input or SIGTERM.
        environment: its full environment.
        port: port to listen on.
        folder: its working directory, which also holds its log.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], port: int, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.port = port
        self._log = folder / "server.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                env={**environment, "PEER_PORT": str(port)},
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._root = psutil.Process(self._process.pid)

    def ask(self, path: str, body: bytes, accept: str) -> bytes:
        """Return the reply to one request as soon as the server answers with status 200.

        Raises:
            RuntimeError: it ended, or sent no reply with status 200 in time.
        """
        status, reply = 0, b""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            connection = http.client.HTTPConnection(HOST, self.port, timeout=ASK_TIMEOUT_S)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
                connection.request("POST", path, body, {"Content-Type": OCTETS, "Accept": accept})
                answer = connection.getresponse()
                status, reply = answer.status, answer.read()
            if status == 200:
                return reply
            # A server that is not ready yet may answer 404 or 5xx.
            if 400 <= status < 500 and status != 404:
                break
            time.sleep(0.5)
        said = self._log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"no reply on port {self.port}: last status {status}, {reply[:300]!r}\n{said}")

    def cpu_s(self) -> dict[psutil.Process, float]:
        """Return the CPU seconds so far of each process of the server."""
        seconds = {}
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds[process] = times.user + times.system
        return seconds

    def wait_until_idle(self) -> None:
        """Wait until its start-up work is done."""
        deadline_s = time.monotonic() + IDLE_TIMEOUT_S
        while time.monotonic() < deadline_s:
            before = self.cpu_s()
            time.sleep(2.0)
            if used_s(before, self.cpu_s()) < 2.0 * IDLE_SHARE:
                return

    def stop(self) -> None:
        """Stop the server and any processes it leaves behind."""
        tree = self._tree()
        assert self._process.stdin is not None
        self._process.stdin.close()
        # Ours ends when its input closes, and stops its cluster.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0.0 if len(tree) == 1 else 5.0)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, left = psutil.wait_procs(tree, timeout=STOP_TIMEOUT_S)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._root, *self._root.children(recursive=True)]
        return []


def used_s(before: Mapping[psutil.Process, float], after: Mapping[psutil.Process, float]) -> float:
    """Return the CPU seconds between two readings."""
    return sum(seconds - before.get(process, 0.0) for process, seconds in after.items())


def free_port() -> int:
    """Return a free TCP port of this machine."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def fast_path(folder: Path) -> dict[str, str]:
    """Return the flags of Serve's fast path, with files and ports separate from any other cluster's."""
    lines = (ROOT / "serve_apps" / "tuned.env").read_text().splitlines()
    flags = dict(line.split("=") for line in lines if line and not line.startswith("#"))
    places = {
        "HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
        "HAPROXY_SOCKET_PATH": "admin.sock",
        "HAPROXY_SERVER_STATE_BASE": ".",
        "HAPROXY_SERVER_STATE_FILE": "server-state",
        "HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
    }
    ports = ("HAPROXY_METRICS", "HAPROXY_STATS", "FALLBACK_PROXY_HTTP", "FALLBACK_PROXY_GRPC")
    first = {"DIRECT_INGRESS_MIN_HTTP_PORT": 30_000, "DIRECT_INGRESS_MIN_GRPC_PORT": 40_000}
    own = {
        **{variable: folder / file for variable, file in places.items()},
        **{f"{variable}_PORT": free_port() for variable in ports},
        **{variable: port + os.getpid() % 900 for variable, port in first.items()},
    }
    return {**flags, **{f"RAY_SERVE_{variable}": str(value) for variable, value in own.items()}}


def own_environment(told: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without variables of another cluster, updated with `told`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PEER_"))}
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0"}
    # Serve gives up on a proxy that a busy machine takes longer than 5 s to start.
    patient = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
    # Ray would give its workers a lower priority than the load generator and the other servers.
    equal = {"RAY_worker_niceness": "0"}
    return {**kept, **quiet, **patient, **equal, "OMP_NUM_THREADS": "1", **told}
