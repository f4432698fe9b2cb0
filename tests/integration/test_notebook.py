"""The notebook runs as it is committed, on a small data set and models that know nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from hyperfleet.bundle import BundleConfig, build_model, save_bundle
from hyperfleet.datasets import Corpus
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.emulation.run_log import RunLog
from hyperfleet.nn import ENCODERS, HeadGeneratorConfig
from pipelines.render_data import render

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "fleet_experiment.ipynb"
SCALE = FleetQAConfig(num_seen_devices=4, num_held_out_devices=2, history_clips=2, live_clips=1)
DEVICES, DURATION_S = 8, 40.0
POLICIES = {"every-sample", "never"}
# What somebody would type who has little time: each run starts processes of its own.
FEWER = "policies = {name: policies[name] for name in ('every sample', 'never')}"

# Starting Ray, a kernel and hosts takes a minute of computing, on a busy machine many of waiting.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make demo` leaves it: a data set, and models beside it."""
    root = tmp_path_factory.mktemp("project")
    (root / "notebooks").mkdir()
    corpus = Corpus.open(render(SCALE, root / "data", workers=0, show_progress=False))
    for method in ("cdc_mmpg", "fine_tuning"):
        torch.manual_seed(len(method))
        config = BundleConfig(
            task="open-ended-qa",
            method=method,
            seed=0,
            num_classes=corpus.vocabulary.num_classes,
            encoder=ENCODERS["tiny"](corpus.tokenizer.vocab_size),
            generator=HeadGeneratorConfig(static_base=False) if method == "cdc_mmpg" else None,
        )
        files = {"tokenizer_file": corpus.tokenizer_file, "answers_file": corpus.answers_file}
        save_bundle(root / method, config, build_model(config), **files)
    return root


@pytest.fixture(scope="module")
def executed(project: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, started where an editor starts it: in its own folder."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = [cell.id for cell in notebook.cells].index("scenario")
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(FEWER))
    paths = [str(ROOT), str(ROOT / "platform"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HYPERFLEET_DATA": "data",
        "HYPERFLEET_MODEL": "cdc_mmpg",
        "HYPERFLEET_STATIC_MODEL": "fine_tuning",
        "HYPERFLEET_DEVICES": str(DEVICES),
        "HYPERFLEET_DURATION_S": str(DURATION_S),
        "HYPERFLEET_HOSTS": "1",
    }
    # The kernel's own backend draws into the notebook; the suite's draws nowhere.
    environment.pop("MPLBACKEND", None)
    client = NotebookClient(
        notebook,
        timeout=None,  # the suite has one
        kernel_name="python3",
        resources={"metadata": {"path": str(project / "notebooks")}},
    )
    client.execute(env=environment)
    return notebook


def outputs_of(notebook: nbformat.NotebookNode, cell_id: str) -> list[Any]:
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return cell.outputs


def data_of(notebook: nbformat.NotebookNode, cell_id: str, mime: str) -> list[str]:
    return [o.data[mime] for o in outputs_of(notebook, cell_id) if mime in o.get("data", {})]


@pytest.mark.integration
def test_every_policy_is_run_and_leaves_a_log_of_the_same_samples(
    executed: nbformat.NotebookNode, project: Path
) -> None:
    (folder,) = (project / "outputs" / "notebook").iterdir()
    assert {path.name for path in folder.iterdir()} == POLICIES
    logs = {name: RunLog.open(folder / name) for name in POLICIES}
    for name, log in logs.items():
        fields = log.scenario
        assert (fields.policy.kind, fields.active_devices, fields.duration_s) == (name, DEVICES, DURATION_S)
        assert len(fields.faults) == 2
    samples = {name: sorted(log.answers()["example_id"].to_pylist()) for name, log in logs.items()}
    assert len(samples["never"]) > 10
    assert all(each == samples["never"] for each in samples.values())


@pytest.mark.integration
def test_it_shows_tables_and_plots(executed: nbformat.NotebookNode) -> None:
    (table,) = data_of(executed, "policies", "text/html")
    assert [name in table for name in ("every sample", "never", "every 8th")] == [True, True, False]
    assert [len(data_of(executed, cell, "image/png")) for cell in ("policies", "time", "log")] == [1, 1, 1]
    _, *tables, plots = data_of(executed, "detail", "text/html")
    assert len(tables) >= 6
    assert plots.count("<svg") == 8
    # The margin of the table made with pandas counts what the log holds.
    (counts,) = data_of(executed, "log", "text/html")
    text = "".join(o.text for o in outputs_of(executed, "runs") if o.output_type == "stream")
    said = re.search(r"every sample: ([\d,]+) samples", text)
    assert said is not None
    assert f"<td>{said[1].replace(',', '')}</td>" in counts


@pytest.mark.integration
def test_nothing_is_complained_about(executed: nbformat.NotebookNode) -> None:
    said = [
        output.text
        for cell in executed.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert said == []


def test_it_is_committed_without_outputs_and_says_how_to_begin() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)
    assert "make demo" in notebook.cells[0].source


@pytest.mark.parametrize("started_in", [".", "notebooks"])
def test_paths_are_those_of_the_root_wherever_it_is_started(tmp_path: Path, started_in: str) -> None:
    (tmp_path / "notebooks").mkdir()
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    first = "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])
    done = subprocess.run(
        # Twice, as somebody does who changes a parameter.
        [sys.executable, "-c", f"{first}\n{first}\nprint(Path.cwd())"],
        cwd=tmp_path / started_in,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == str(tmp_path)
