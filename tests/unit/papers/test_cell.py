"""Cells: their names, their files, and reuse of a finished one."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperfleet.cloud.training import TrainConfig
from hyperfleet.errors import CheckpointError
from hyperfleet.papers.experiments.cell import RESULT_FILE, CellResult, CellSpec, finished, measure_start
from hyperfleet.papers.experiments.cost import Cost
from hyperfleet.tasks import MULTIPLE_CHOICE
from tests.worlds.toy_training import NUM_CLASSES, trainer

SPEC = CellSpec(
    dataset="fleetqa",
    train=TrainConfig(method="duet", seed=3, learning_rate=3e-4, captions_per_video=4, warm_up_fraction=0.05),
    data_digest="before",
)
RESULT = CellResult(
    spec=SPEC,
    measures={"accuracy": 0.25},
    in_vocabulary=1 / 3,
    num_samples=40,
    cost=Cost(device_params=10, cloud_params=20, front_macs=3, generator_macs=4, upload_bytes=768),
    epoch_s=1.5,
    train_s=12.25,
    start_logit_std=5.7,
    start_loss=math.log(7),
    run_id="abc",
    weights_origin="random",
)


def test_key_names_data_set_task_method_and_seed() -> None:
    assert SPEC.key == "fleetqa/open-ended-qa/duet/seed-3"
    frames = replace(SPEC, train=replace(SPEC.train, method="fine_tuning", num_frames=5))
    assert frames.key == "fleetqa/open-ended-qa/fine_tuning-5frames/seed-3"
    assert frames.num_frames == 5
    choice = replace(SPEC, train=replace(SPEC.train, task=MULTIPLE_CHOICE))
    assert choice.key == "fleetqa/multiple-choice/duet/seed-3"


@pytest.mark.parametrize(
    "result",
    [RESULT, replace(RESULT, measures={"VR@1": 0.5, "TR@10": 1.0}, in_vocabulary=None, epoch_s=None)],
    ids=["question answering", "retrieval, frozen encoder"],
)
def test_a_result_comes_back_from_json_as_it_was(result: CellResult) -> None:
    assert CellResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("change", ["missing", "unknown", "invalid", "no json"])
def test_results_of_other_versions_are_refused(change: str) -> None:
    fields = json.loads(RESULT.to_json())
    if change == "missing":
        del fields["cost"]
    elif change == "unknown":
        fields["spec"]["train"]["optimiser"] = "adam"
    elif change == "invalid":
        fields["spec"]["train"]["method"] = "prompting"
    text = "{" if change == "no json" else json.dumps(fields)
    with pytest.raises(CheckpointError, match="delete the cell's folder"):
        CellResult.from_json(text)


def test_a_finished_cell_stands_for_the_same_settings_alone(tmp_path: Path) -> None:
    assert finished(tmp_path, SPEC) is None
    (tmp_path / RESULT_FILE).write_text(RESULT.to_json())
    assert finished(tmp_path, SPEC) == RESULT
    changed = replace(SPEC, train=replace(SPEC.train, epochs=7, batch_size=16))
    with pytest.raises(CheckpointError, match=r"other batch_size, epochs \(\[64, 2\], now \[16, 7\]\)"):
        finished(tmp_path, changed)
    with pytest.raises(CheckpointError, match=r"other data \(\['before'\], now \['rendered anew'\]\)"):
        finished(tmp_path, replace(SPEC, data_digest="rendered anew"))


def test_start_is_measured_on_samples_with_a_label_and_changes_nothing() -> None:
    run = trainer(method="fine_tuning")
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    deviation, loss = measure_start(run)
    assert deviation > 0
    # An untrained classifier loses about as much as a guess.
    assert loss == pytest.approx(math.log(NUM_CLASSES), abs=0.7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
    label = run.train.split.label.copy()
    label[::2] = -1
    run.train = replace(run.train, split=replace(run.train.split, label=label))
    _, of_half = measure_start(run)
    assert np.isfinite(of_half)
    assert of_half != loss
