"""Machines for `ray up` on one Linux machine: network, process and mount namespaces with an ssh server each.

Needs root. The machines share kernel, cores and memory; each has its own address, processes, host name, home
and /tmp. Their environment uses this interpreter's libraries, so nothing is downloaded; the cluster file
installs only the wheel.
"""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

BRIDGE = "hfbridge"
NETWORK = "10.77.0"
TOOLS = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "rsync": "rsync",
    "sshd": "openssh-server",
}
# Private folders of a machine. Subfolders that this interpreter needs are mounted back.
PRIVATE = ("/root", "/tmp", "/run", "/dev/shm")
START_TIMEOUT_S = 30.0
SSHD_CONFIG = """\
Port 22
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
Subsystem sftp internal-sftp
MaxStartups 100
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """One machine: address, host name, and the ancestor of all its processes."""

    name: str
    address: str
    pid: int

    def run(self, command: str, *, timeout_s: float = 60.0) -> str:
        """Run a shell command on the machine as root, and return its output."""
        enter = ["nsenter", "--target", str(self.pid), "--all", "bash", "-c", command]
        done = subprocess.run(enter, capture_output=True, text=True, timeout=timeout_s)
        if done.returncode:
            raise RuntimeError(
                f"{self.name}: {command!r} ended with {done.returncode}: {done.stderr[-2000:]}"
            )
        return done.stdout

    def pids(self, pattern: str) -> list[int]:
        """Return the machine's own ids of its processes whose command line matches."""
        return [int(line) for line in self.run(f"pgrep -f '{pattern}' || true").split()]


def what_is_missing() -> str:
    """Return the reason why machines cannot be made here; empty if they can."""
    if sys.platform != "linux":
        return "namespaces need Linux"
    if os.geteuid() != 0:
        return "making network namespaces needs root: sudo -E make cluster-test"
    missing = {package for tool, package in TOOLS.items() if not _tool(tool)}
    if missing:
        return f"install first: apt-get install {' '.join(sorted(missing))}"
    return ""


class Machines:
    """A head and workers on a network bridge, for use in `with`. All their processes end with it.

    Args:
        folder: an empty folder for their private folders, keys and the launcher's home.
        names: host names; the first is the head.
    """

    def __init__(self, folder: Path, names: tuple[str, ...] = ("head", "worker1", "worker2")) -> None:
        self._folder = folder
        self._names = names
        self._processes: list[subprocess.Popen[bytes]] = []
        self.machines: list[Machine] = []
        self.key = folder / "launcher" / ".ssh" / "id_ed25519"
        self.shared = folder / "shared"

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    @property
    def head(self) -> Machine:
        """The first of them."""
        return self.machines[0]

    @property
    def workers(self) -> list[Machine]:
        """All but the head."""
        return self.machines[1:]

    @property
    def home(self) -> Path:
        """The launcher's home, with the key that the machines accept."""
        return self._folder / "launcher"

    def cut_off(self, machine: Machine) -> None:
        """Remove a machine as a power cut would: every process on it dies at once."""
        index = self.machines.index(machine)
        _kill(self._processes[index], machine.pid)

    def _make(self) -> None:
        self._remove_cables()  # of a run that was killed
        self.key.parent.mkdir(parents=True, mode=0o700)
        self.shared.mkdir()
        _sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        host_key = self._folder / "host_key"
        _sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key))
        _sh("ip", "link", "add", BRIDGE, "type", "bridge")
        _sh("ip", "addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _sh("ip", "link", "set", BRIDGE, "up")
        for number, name in enumerate(self._names):
            self.machines.append(self._start(number, name))
        for machine in self.machines:
            _wait_for_port(machine.address, 22)

    def _start(self, number: int, name: str) -> Machine:
        address = f"{NETWORK}.{10 + number}"
        own = self._folder / name
        _make_private(own, self.key.with_suffix(".pub"), [self._folder])
        outer, inner = f"hfveth{number}", f"hfeth{number}"
        _sh("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
        _sh("ip", "link", "set", outer, "master", BRIDGE, "up")
        script = own / "start.sh"
        script.write_text(_start_script(name, own, inner, address, self._folder))
        process = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--pid",
                "--mount",
                "--ipc",
                "--uts",
                "--fork",
                "--mount-proc",
                "bash",
                str(script),
            ],
            stdin=subprocess.DEVNULL,
            stdout=(own / "start.log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._processes.append(process)
        pid = _child_of(process.pid)
        # The machine's script waits for its end of the cable.
        _sh("ip", "link", "set", inner, "netns", str(pid))
        return Machine(name=name, address=address, pid=pid)

    def _remove(self) -> None:
        for process, machine in zip(self._processes, self.machines, strict=False):
            _kill(process, machine.pid)
        for process in self._processes[len(self.machines) :]:
            process.kill()
        self._remove_cables()

    def _remove_cables(self) -> None:
        for device in (*(f"hfveth{number}" for number in range(len(self._names))), BRIDGE):
            subprocess.run(["ip", "link", "del", device], capture_output=True)


def _make_private(own: Path, public_key: Path, more: list[Path]) -> None:
    for folder in PRIVATE:
        (own / folder.strip("/")).mkdir(parents=True)
    (own / "tmp").chmod(0o1777)
    (own / "run" / "sshd").mkdir()
    ssh = own / "root" / ".ssh"
    ssh.mkdir(mode=0o700)
    shutil.copy(public_key, ssh / "authorized_keys")
    _make_environment(own / "root" / "hyperfleet-venv")
    for path in (*_needed(), *more):
        for folder in PRIVATE:
            if path.is_relative_to(folder):
                (own / path.relative_to("/")).mkdir(parents=True, exist_ok=True)


def _make_environment(folder: Path) -> None:
    """Create the environment of the cluster file, with this one's libraries in place of downloads."""
    _sh(sys.executable, "-m", "venv", "--copies", "--without-pip", str(folder))
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in ("pip", "ray", "serve", "mlflow"):
        script = Path(sys.executable).parent / name
        body = script.read_text().split("\n", 1)[1]
        copy = folder / "bin" / name
        # By name: on the machine, this environment comes first on the PATH and has another path.
        copy.write_text(f"#!/usr/bin/env python\n{body}")
        copy.chmod(copy.stat().st_mode | stat.S_IXUSR)


def _needed() -> list[Path]:
    """Return the folders that this interpreter reads, libraries included."""
    return [Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()]


def _start_script(name: str, own: Path, cable: str, address: str, folder: Path) -> str:
    back = "\n".join(
        f"mount --rbind {path} {own}{path}"
        for path in dict.fromkeys((*_needed(), folder))
        if any(path.is_relative_to(each) for each in PRIVATE)
    )
    over = "\n".join(f"mount --rbind {own}{each} {each}" for each in PRIVATE if each != "/dev/shm")
    return f"""\
set -e
mount --make-rprivate /
hostname {name}
{back}
cp {folder}/host_key {own}/run/host_key
cat > {own}/run/sshd_config <<'END'
{SSHD_CONFIG}HostKey /run/host_key
END
{over}
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ip link set lo up
while ! ip link show {cable} > /dev/null 2>&1; do sleep 0.05; done
ip link set {cable} name eth0
ip addr add {address}/24 dev eth0
ip link set eth0 up
ip route add default via {NETWORK}.1
export HOME=/root
cd /root
exec {_tool("sshd")} -D -e -f /run/sshd_config
"""


def _tool(name: str) -> str | None:
    # sshd must be called by its full path, and /usr/sbin is not on every PATH.
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _sh(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")


def _child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in _tries():
        found = children.read_text().split()
        if found:
            return int(found[0])
    raise RuntimeError("unshare did not start; see start.log of the machine")


def _wait_for_port(address: str, port: int) -> None:
    for _ in _tries():
        with contextlib.suppress(OSError):
            socket.create_connection((address, port), timeout=1).close()
            return
    raise RuntimeError(f"no ssh server answers at {address}:{port}; see start.log of the machine")


def _tries() -> Iterator[None]:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        yield
        time.sleep(0.05)


def _kill(process: "subprocess.Popen[bytes]", init: int) -> None:
    # A process namespace ends with its first process; unshare itself ignores SIGTERM.
    with contextlib.suppress(ProcessLookupError):
        os.kill(init, signal.SIGKILL)
    process.kill()
    process.wait(timeout=30)
