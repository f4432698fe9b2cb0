"""The command line answers at once: help, completion and refusals import nothing heavy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "ray", "mlflow", "transformers", "sklearn", "matplotlib"}
COMMANDS = {
    (): ["codecs", "data", "demo", "doctor", "fleet", "headroom", "plan", "policies", "tables", "train"],
    ("data",): ["describe", "prepare", "render"],
}
LEAVES = [
    (*parent, name) for parent, names in COMMANDS.items() for name in names if (*parent, name) not in COMMANDS
]
# Runs commands one after the other and prints, for each, its output, its status and the packages imported by
# then; the first that imports something heavy is the culprit.
RUN = """
import contextlib, io, json, re, sys
from pathlib import Path
from pipelines.cli import main

def answer(command):
    sys.argv = ["hyperfleet", *command]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
    return printed.getvalue(), status, sorted({name.partition(".")[0] for name in sys.modules})

answers = [answer(command) for command in json.loads(sys.argv[1])]
# getrusage would count the process that started this one.
peak_mb = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps([answers, peak_mb]))
"""
REFUSED = {
    "fleet --policy sometimes": "every-sample",
    "fleet --scenario flaky": "flaky_uplink",
    "fleet --scenario none.json": "none.json",
    "fleet --codec zip": "delta-int8",
    "fleet --networks 9g": "lte_walk",
    "fleet --devices 0": "active_devices",
    "fleet --hosts 0": "hosts must be >= 1",
    "fleet --clock real --resume": "cannot be resumed",
    "fleet --generator-url http://127.0.0.1:1": "virtual time asks no service",
    "fleet --scenario drift --samples-per-device 3": "run full_load",
    "fleet --record arrivals.txt": ".parquet or .csv",
    "fleet --replay log --policy sometimes": "every-sample",
    "fleet --replay log --clock real --resume": "cannot be resumed",
    "policies --policies never never": "different names",
    "policies --codecs zip": "delta-int8",
    "plan --measured log --devices 0": "fleet sizes >= 1",
    "train --train.method best": "cdc_mmpg",
    "train --train.task chess": "multiple-choice",
    "train --train.encoder huge": "all_in_one_ti",
    "train --train.method duet --train.num-frames 3": "5 frames",
    "train --num-workers 3": "evenly",
    "tables --tasks chess": "multiple-choice",
    "tables --train huge": "smoke",
    "tables --shift 0": "--personal",
    "tables --personal mood": "camera, taste, words",
    "codecs --seed one": "INTEGER",
    "demo --scale huge": "smoke",
    "demo --epochs 0": "epochs",
    "data render --scale huge": "smoke",
    "data render --cue-share 2": "0..1",
    "data prepare --dataset msvd-qa --annotations a --videos v --num-devices 0": "num_devices",
    "doctor --http-port web": "INTEGER",
    "compare --seeds 0 1": "hyperfleet tables --train demo --seeds 0 1 2",
}


COMPLETION = ("--tyro-print-completion", "bash")

Answers = dict[tuple[str, ...], tuple[str, int, set[str]]]


def run(commands: list[tuple[str, ...]], folder: Path) -> Answers:
    """Return what each command printed, its status, and the packages imported by then."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "300", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answers, peak_mb = json.loads(done.stdout.splitlines()[-1])
    assert peak_mb < 120
    assert list(folder.iterdir()) == []
    return {
        command: (text, status, set(packages))
        for command, (text, status, packages) in zip(commands, answers, strict=True)
    }


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Help of every command, and the completion of a shell."""
    commands = [(*words, "--help") for words in [*COMMANDS, *LEAVES]]
    return run([*commands, COMPLETION], tmp_path_factory.mktemp("helps"))


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Answers to wrong arguments."""
    return run([tuple(line.split()) for line in REFUSED], tmp_path_factory.mktemp("refusals"))


@pytest.mark.parametrize("words", [*COMMANDS, *LEAVES], ids=lambda words: " ".join(words) or "hyperfleet")
def test_help_imports_nothing_heavy_and_can_be_read(words: tuple[str, ...], helps: Answers) -> None:
    text, status, packages = helps[(*words, "--help")]
    assert status == 0
    assert packages & {*HEAVY, "numpy"} == set()
    # Types and defaults are words that a person knows.
    for unreadable in ("None", "STR", "INT ", "(default: )", "{["):
        assert unreadable not in text


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "hyperfleet")
def test_the_command_line_offers_these_commands_and_no_others(words: tuple[str, ...], helps: Answers) -> None:
    usage = helps[(*words, "--help")][0].split("\n\n")[0]
    assert sorted(usage[usage.rindex("{") + 1 : usage.rindex("}")].split(",")) == COMMANDS[words]


def test_completion_imports_nothing_heavy(helps: Answers) -> None:
    text, status, packages = helps[COMPLETION]
    assert status == 0
    assert "samples-per-device" in text
    assert packages & HEAVY == set()


@pytest.mark.parametrize("line", REFUSED)
def test_a_wrong_argument_is_refused_before_anything_heavy_is_imported(line: str, refusals: Answers) -> None:
    text, status, packages = refusals[tuple(line.split())]
    assert status != 0
    assert REFUSED[line] in text
    assert packages & HEAVY == set()
