"""`make cluster-test`: cluster.local.yaml on three machines, from `ray up` to `ray down`, as a user would.

The machines are namespaces of this one (see machines.py). Each step is a command of a user; its output is
kept, and the table at the end lists its duration.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from load import Load
from machines import Machines, what_is_missing

from hyperfleet.client import served_model

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DEVICES = 2000
NO_TESTS_RUN = 5


@dataclass
class Launcher:
    """The user's machine, with its own home folder, so that the real one is left alone."""

    home: Path
    cluster: Path
    log: Path
    steps: list[tuple[str, float]] = field(default_factory=list)

    def run(self, *command: str, timeout_s: float = 300.0, env: dict[str, str] | None = None) -> str:
        """Run a command of this environment in the folder of the cluster file; return its output."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HYPERFLEET_"))
        }
        own = {"HOME": str(self.home), "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run(
            command,
            cwd=self.cluster.parent,
            env={**kept, **own, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
        if done.returncode:
            raise SystemExit(
                f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}\n"
                f"all output: {self.log}"
            )
        return done.stdout

    def exec(self, command: str, timeout_s: float = 300.0) -> str:
        """Run a shell command on the head, as `ray exec` does."""
        # Without colors and moving bars, which Ray's terminal would otherwise have.
        plain = f"export TERM=dumb NO_COLOR=1 COLUMNS=160; {command}"
        said = self.run("ray", "exec", self.cluster.name, plain, timeout_s=timeout_s)
        return said.replace("\x1b[0m", "").replace("\r", "")

    def step(self, name: str, do: Callable[[], object]) -> None:
        """Run a step; print its duration and, if it returns text, its result."""
        print(f"-- {name}", flush=True)
        started = time.monotonic()
        found = do()
        seconds = time.monotonic() - started
        self.steps.append((name, seconds))
        said = found.strip().splitlines()[-1] if isinstance(found, str) and found.strip() else ""
        print(f"   {seconds:.1f} s" + (f": {said[:200]}" if said else ""), flush=True)


def write_cluster(folder: Path, machines: Machines) -> Path:
    """Write the shipped cluster file with these machines in place of its examples."""
    config = yaml.safe_load((ROOT / "cluster.local.yaml").read_text())
    config["provider"]["head_ip"] = machines.head.address
    config["provider"]["worker_ips"] = [machine.address for machine in machines.workers]
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(machines.key)}
    first = config["setup_commands"][0]
    config["setup_commands"][0] = first.replace("/mnt/hyperfleet", str(machines.shared))
    assert config["setup_commands"][0] != first, "the cluster file sets no storage"
    (folder / "serve_apps").mkdir()
    for name in ("constraints.txt", "serve_apps/tuned.env"):
        shutil.copy(ROOT / name, folder / name)
    path = folder / "cluster.local.yaml"
    path.write_text(yaml.safe_dump(config, width=10_000))
    return path


def wait_for(what: str, is_there: Callable[[], bool], timeout_s: float = 180.0) -> None:
    """Poll until `is_there` holds."""
    deadline_s = time.monotonic() + timeout_s
    while not is_there():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"{what}: not in {timeout_s:.0f} s")
        time.sleep(2)


def nodes_alive(launcher: Launcher) -> int:
    """Return the number of live Ray nodes."""
    code = "import ray; ray.init(logging_level=40); print('alive', sum(n['Alive'] for n in ray.nodes()))"
    return int(re.findall(r"alive (\d+)", launcher.exec(f'python -c "{code}"'))[-1])


def accept(launcher: Launcher, machines: Machines) -> None:
    """Run every step."""
    step = launcher.step
    token = (launcher.home / ".ray" / "auth_token").read_text().strip()
    head = machines.head.address

    step(
        "ray up", lambda: launcher.run("ray", "up", "-y", "--no-config-cache", launcher.cluster.name) and None
    )
    step("all nodes are alive", lambda: wait_for("three nodes", lambda: nodes_alive(launcher) == 3))
    step("hyperfleet doctor", lambda: launcher.exec("hyperfleet doctor").strip().splitlines()[-1])
    step(
        "render",
        lambda: launcher.exec("hyperfleet data render --scale smoke"),
    )
    for method, warm in (("fine_tuning", ""), ("cdc_mmpg", "--warm-start outputs/fine_tuning/warm")):
        step(
            f"train {method} on two nodes",
            lambda method=method, warm=warm: (
                launcher.exec(
                    "hyperfleet train --data data/smoke --num-workers 2 "
                    f"--output outputs/{method} --train.method {method} --train.warm-epochs 1 "
                    f"--train.epochs 1 --train.batch-size 16 {warm}",
                    timeout_s=600,
                )
                .strip()
                .splitlines()[-1]
            ),
        )
    step("serve deploy", lambda: deploy(launcher))
    step("the service wants a token", lambda: stranger_is_refused(machines))
    step(f"{DEVICES} devices, virtual time", lambda: fleet(launcher, machines, "--clock virtual"))
    service = f"--clock real --generator-url http://{head}:8000"
    client = machines.head.run("cut -d' ' -f2 ~/hyperfleet/service.tokens").strip()
    step(
        f"{DEVICES} devices, real time",
        lambda: fleet(launcher, machines, service, before=f"HYPERFLEET_TOKEN={client} "),
    )
    step("a notebook's driver through Ray Client", lambda: ray_client(launcher, machines, token))
    step("a wrong token is refused", lambda: wrong_token(launcher, head))
    step("a worker node dies under load and comes back", lambda: lose_a_node(launcher, machines, client))
    step("a machine is cut off under load", lambda: cut_off(launcher, machines, client))
    alive = [machines.head, *machines.workers[1:]]
    step("ray down", lambda: launcher.run("ray", "down", "-y", launcher.cluster.name))
    step(
        "workers leave",
        lambda: wait_for("no raylet", lambda: not any(m.pids("raylet/[r]aylet") for m in alive)),
    )


def deploy(launcher: Launcher) -> str:
    """Deploy the production file and wait until its replicas run; return their number as text."""
    launcher.run(
        "ray",
        "rsync-up",
        launcher.cluster.name,
        str(ROOT / "serve_apps/production.yaml"),
        "~/production.yaml",
    )
    launcher.exec("serve deploy ~/production.yaml")

    def runs() -> bool:
        status = launcher.exec("serve status")
        if "DEPLOY_FAILED" in status:
            raise SystemExit(status)
        return status.count("RUNNING") >= 2 and re.search(r"RUNNING: 2", status) is not None

    wait_for("two replicas", runs)
    return "2 replicas"


def stranger_is_refused(machines: Machines) -> str:
    """Request the models without a token, from another machine."""
    (worker, *_) = machines.workers
    status = worker.run(
        "~/hyperfleet-venv/bin/python - <<'END'\n"
        "import urllib.error, urllib.request\n"
        f"try: print(urllib.request.urlopen('http://{machines.head.address}:8000/v1/models').status)\n"
        "except urllib.error.HTTPError as error: print(error.code)\nEND"
    ).strip()
    if status != "401":
        raise SystemExit(f"a stranger got {status}, expected 401")
    return status


def fleet(launcher: Launcher, machines: Machines, options: str, before: str = "") -> str:
    """Run a scenario of many devices on three hosts; check that they were spread and nothing was lost."""
    name = re.findall(r"--clock (\w+)", options)[0]
    output = f"$HYPERFLEET_STORAGE/fleet-{name}"
    said = launcher.exec(
        f"{before}hyperfleet fleet --scenario capacity --devices {DEVICES} --duration-s 20 --hosts 3 "
        f"--data data/smoke --output {output} {options}",
        timeout_s=600,
    )
    # The data set is on the head's own disk: a machine with a copy had a host, and its hosts share one copy.
    store = "/tmp/hyperfleet-*/folders/*/clips.arrow"
    copies = [int(machine.run(f"ls {store} | wc -l")) for machine in machines.machines]
    if copies != [1] * len(copies):
        raise SystemExit(f"copies of the data set on the machines: {copies}, expected one on each")
    return said.strip().splitlines()[-1]


CLIENT = """
import os
from pipelines.runtime import connect, disconnect
from actors.node_facts import node_facts
connect()
import ray
task = ray.remote(num_cpus=0)(lambda: node_facts().code)
print("same code", ray.get(task.remote()) == node_facts().code)
disconnect()
"""


def ray_client(launcher: Launcher, machines: Machines, token: str) -> str:
    """Connect from this machine, in a checkout, to the head's client port."""
    address = f"ray://{machines.head.address}:10001"
    environment = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    said = launcher.run(sys.executable, "-c", CLIENT, env=environment)
    if "same code True" not in said:
        raise SystemExit(said)
    return said.strip().splitlines()[-1]


def wrong_token(launcher: Launcher, head: str) -> str:
    """Check that a driver with another token gets one clear message, soon."""
    environment = {"RAY_ADDRESS": f"ray://{head}:10001", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    code = (
        "from pipelines.runtime import connect\nfrom hyperfleet.errors import ServiceError\n"
        "try: connect()\nexcept ServiceError as error: print('refused:', error)\n"
    )
    said = launcher.run(sys.executable, "-c", code, env=environment)
    if "refused:" not in said or "token" not in said:
        raise SystemExit(f"a wrong token was not refused in one message: {said[-2000:]}")
    return said.strip().splitlines()[-1][:160]


def lose_a_node(launcher: Launcher, machines: Machines, client: str) -> str:
    """Kill a worker's raylet under load; the autoscaler starts it again by ssh."""
    worker = machines.workers[-1]
    (raylet, *_) = worker.pids("raylet/[r]aylet")
    with under_load(machines, client) as load:
        struck_s = time.monotonic()
        worker.run(f"kill -9 {raylet}")
        wait_for("the death is noticed", lambda: nodes_alive(launcher) == 2)
        wait_for("the node is back", lambda: nodes_alive(launcher) == 3, timeout_s=240)
        seconds = time.monotonic() - struck_s
    return f"back after {seconds:.0f} s; {checked(load, struck_s)}"


def cut_off(launcher: Launcher, machines: Machines, client: str) -> str:
    """Take a whole machine away under load."""
    with under_load(machines, client) as load:
        struck_s = time.monotonic()
        machines.cut_off(machines.workers[0])
        wait_for("the loss is noticed", lambda: nodes_alive(launcher) == 2)
        seconds = time.monotonic() - struck_s
        wait_for(
            "two replicas again",
            lambda: re.search(r"RUNNING: 2", launcher.exec("serve status")) is not None,
        )
    return f"noticed after {seconds:.0f} s; {checked(load, struck_s)}"


@contextlib.contextmanager
def under_load(machines: Machines, client: str) -> Iterator[Load]:
    """Ask the service from this machine, as devices do."""
    url = f"http://{machines.head.address}:8000"
    model = served_model(url, task="open-ended-qa", token=client)
    with Load(url=url, model=model, devices=4, pause_s=0.1, token=client) as load:
        load.wait_for(50)
        yield load


def checked(load: Load, struck_s: float) -> str:
    """Check that no request failed, and return a summary of the requests."""
    if load.failed:
        raise SystemExit(f"{len(load.failed)} requests failed, the first: {load.failed[0].fault}")
    return load.summary(struck_s)


def prepare(folder: Path, machines: Machines) -> Launcher:
    """Make tokens and wheel in their own folder, as the cluster file's first lines say."""
    work = folder / "launcher" / "work"
    work.mkdir()
    cluster = write_cluster(work, machines)
    launcher = Launcher(home=machines.home, cluster=cluster, log=folder / "commands.log")
    launcher.run("ray", "get-auth-token", "--generate")
    (work / "service.tokens").write_text(f"fleet {os.urandom(32).hex()}\n")
    (work / "service.tokens").chmod(0o600)
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        "dist",
        str(ROOT),
    ]
    launcher.step("build the wheel", lambda: launcher.run(*wheel) and None)
    return launcher


def main() -> int:
    """Make the machines, run every step, print the table."""
    if missing := what_is_missing():
        print(f"cluster-test was not run: {missing}")
        return NO_TESTS_RUN
    folder = Path(tempfile.mkdtemp(prefix="hyperfleet-cluster-", dir=os.environ.get("CLUSTER_TEST_DIR")))
    started = time.monotonic()
    with Machines(folder) as machines:
        launcher = prepare(folder, machines)
        accept(launcher, machines)
    seconds = time.monotonic() - started
    print(f"\n{'step':42} seconds")
    for name, step_s in launcher.steps:
        print(f"{name:42} {step_s:7.1f}")
    print(json.dumps({"steps": len(launcher.steps), "wall_s": round(seconds, 1)}))
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
