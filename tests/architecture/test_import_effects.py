"""Importing any of our modules only defines names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Runs in a bare interpreter in an empty folder. `opened` records every file opened for writing, every
# folder made and every address connected to or bound while one of our modules is being executed, told
# apart from what libraries do while they are imported by who calls: the innermost frame that is ours.
PROBE = """
import importlib, json, logging, os, pkgutil, sys, threading
import torch, ray, mlflow

ROOTS = json.loads(sys.argv[1])
opened = []

def ours():
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.split(".")[0] in ROOTS:
            return name
        if name.startswith("importlib") or name.startswith("<frozen importlib"):
            return None
        frame = frame.f_back
    return None

def audit(event, args):
    written = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if written or event in ("os.mkdir", "subprocess.Popen", "os.fork", "socket.connect", "socket.bind"):
        name = ours()
        if name:
            opened.append([name, event, str(args[0])])

def state():
    return {
        "torch_threads": torch.get_num_threads(),
        "torch_interop_threads": torch.get_num_interop_threads(),
        "torch_seed": torch.initial_seed(),
        "torch_grad": torch.is_grad_enabled(),
        "ray_started": ray.is_initialized(),
        "tracking_uri_set": mlflow.is_tracking_uri_set(),
        "root_log_handlers": len(logging.getLogger().handlers),
        "root_log_level": logging.getLogger().level,
    }

sys.addaudithook(audit)
before = state()
imported = []
for root in ROOTS:
    package = importlib.import_module(root)
    imported.append(root)
    for module in pkgutil.walk_packages(package.__path__, root + "."):
        importlib.import_module(module.name)
        imported.append(module.name)
print(json.dumps({
    "before": before, "after": state(), "effects": opened, "imported": imported,
    "left_behind": sorted(os.listdir(".")),
}))
"""


@pytest.mark.heavy
def test_importing_every_module_has_no_effect(tmp_path: Path) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    roots = ["hyperfleet", "actors", "pipelines", "serve_apps"]
    env = {**os.environ, "HOME": str(home), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(roots)],
        cwd=work,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert len(seen["imported"]) > len(roots)
    assert seen["after"] == seen["before"]
    assert seen["effects"] == []
    assert seen["left_behind"] == []
