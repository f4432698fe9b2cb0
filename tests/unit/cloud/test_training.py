from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import AdamW

from hyperfleet.bundle import load_device_model, load_generator, load_model, read_config
from hyperfleet.cloud.batches import _grouped
from hyperfleet.cloud.checkpoint import BundleFiles, resume, save_checkpoint, save_trained, warm_start
from hyperfleet.cloud.optimisation import adamw, warm_up_then_decay
from hyperfleet.cloud.training import TrainConfig, Trainer, train_step
from hyperfleet.errors import CheckpointError, ConfigError, EmptyStreamError
from hyperfleet.methods.base import GENERATOR_RATE, outputs
from hyperfleet.nn import apply_heads
from hyperfleet.papers.experiments.plan import preset
from hyperfleet.tasks import MULTIPLE_CHOICE, OPEN_ENDED_QA, RETRIEVAL
from tests.worlds.toy_training import bundle_files, source, trainer


@pytest.fixture
def files(tmp_path: Path) -> BundleFiles:
    return bundle_files(tmp_path)


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    # `generator.base` is a copy that only saved models hold; training never reads it.
    state = run.model.state_dict()
    return {name: tensor.detach().clone() for name, tensor in state.items() if name != "generator.base"}


@pytest.mark.heavy
def test_static_and_generated_heads_learn_grey_levels() -> None:
    for name in ("fine_tuning", "cdc_mmpg"):
        results = list(trainer(method=name, warm_epochs=30, epochs=4).run())
        assert results[-1].metrics["validation_accuracy"] > 0.7


def test_each_stage_moves_its_own_parameters_only() -> None:
    run = trainer()
    before = weights(run)
    for result in run.run():
        after = weights(run)
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        if result.stage == "warm":
            assert not any(name.startswith("generator") for name in moved)
        elif result.stage == "reason":
            assert moved
            assert all(name.startswith("generator.adr.") for name in moved)
        else:
            assert not any(name.startswith("generator.adr.") for name in moved)
            assert any(name.startswith("generator.f_h") for name in moved)
            assert any(name.startswith("device.encoder") for name in moved)
        before = after


@pytest.mark.heavy
def test_resumed_run_equals_an_undisturbed_one(tmp_path: Path, files: BundleFiles) -> None:
    whole = trainer()
    for number, result in enumerate(whole.run()):
        save_checkpoint(tmp_path / str(number), whole, result.position, files)
    expected = weights(whole)
    # After 0: inside the first stage; after 4: inside the ADR's; after 10: inside the last.
    for number in (0, 4, 10):
        again = trainer()
        start, restore = resume(tmp_path / str(number), again)
        list(again.run(start=start, restore=restore))
        got = weights(again)
        assert all(torch.equal(got[name], expected[name]) for name in expected)
        assert again.best_score == whole.best_score


def test_warm_start_equals_training_the_first_stage(tmp_path: Path, files: BundleFiles) -> None:
    static = trainer(method="fine_tuning")
    for result in static.run():
        if result.stage == "warm" and result.ends_stage:
            save_trained(tmp_path / "warm", static, files)
    whole = trainer()
    for result in whole.run():
        if result.ends_stage and result.stage == "warm":
            break
    started = trainer()
    assert warm_start(tmp_path / "warm", started).stage == 1
    # Without a first stage of its own there is none to skip.
    assert warm_start(tmp_path / "warm", trainer(warm_epochs=0)).stage == 0
    device = {n: t for n, t in weights(whole).items() if n.startswith("device")}
    assert all(torch.equal(t, weights(started)[n]) for n, t in device.items())


def test_samples_of_a_step_do_not_depend_on_the_number_of_workers() -> None:
    one = trainer()
    stage = one.config.stages()[0]
    alone = [batch["labels"] for batch in one._batches(stage, 0, None)]
    pairs = []
    for rank in range(2):
        worker = trainer()
        worker.rank, worker.world_size = rank, 2
        pairs.append([batch["labels"] for batch in worker._batches(stage, 0, None)])
    for whole, first, second in zip(alone, *pairs, strict=True):
        assert torch.equal(whole, torch.stack([first, second], dim=1).flatten())


def test_workers_get_whole_groups_of_a_category() -> None:
    for rank in range(2):
        worker = trainer(method="stable_synth_net")
        worker.rank, worker.world_size = rank, 2
        drive = next(stage for stage in worker.config.stages() if stage.samples_per_category)
        for batch in worker._batches(drive, 0, None):
            assert len(batch["categories"]) == 4
            assert len(batch["categories"].unique()) == 1


def test_the_same_pass_over_the_encoder_sees_the_same_samples_whatever_the_method() -> None:
    seen = {}
    for name, last in (("fine_tuning", "continue"), ("cdc_mmpg", "adapt"), ("cdc_mmpg_as_printed", "adapt")):
        run = trainer(method=name)
        stage = next(stage for stage in run.config.stages() if stage.name == last)
        # Without a warm stage the last stage makes its passes too.
        epoch = 3 if name == "cdc_mmpg_as_printed" else 1
        seen[name] = [batch["labels"].tolist() for batch in run._batches(stage, epoch, None)]
    assert seen["fine_tuning"] == seen["cdc_mmpg"] == seen["cdc_mmpg_as_printed"]


SERVED = [
    *((name, OPEN_ENDED_QA) for name in ("cdc_mmpg", "cdc_mmpg_rank8", "cdc_mmpg_film")),
    *((name, OPEN_ENDED_QA) for name in ("f_hyper", "stable_synth_net")),
    *(("cdc_mmpg", task) for task in (MULTIPLE_CHOICE, RETRIEVAL)),
]


@pytest.mark.parametrize(("name", "task"), SERVED)
def test_served_heads_answer_as_training_does(
    tmp_path: Path, files: BundleFiles, name: str, task: str
) -> None:
    run = trainer(method=name, task=task, epochs=2)
    assert run.model.generator is not None
    # What training leaves behind: heads that differ from the static one, and templates that were seen.
    torch.nn.init.normal_(run.model.generator.f_h.weight, std=0.05)
    if run.model.generator.templates is not None:
        run.model.generator.templates.templates.normal_()
        run.model.generator.templates.seen[:3] = True
    folder = save_trained(tmp_path / "bundle", run, files)
    features = run.features(run.validation)
    run.model.eval()
    with torch.inference_mode():
        anchor = run.model.task.frames(features)[:, 1]
        expected = outputs(run.model, features, anchor)
        device, generator = load_device_model(folder), load_generator(folder)
        hidden = run.model.task.hidden(device, features)
        served = apply_heads(generator(anchor), hidden, generator.layout)
        static = device.head(hidden)
    torch.testing.assert_close(served, expected, rtol=1e-4, atol=1e-4)
    assert (served - static).abs().max() > 0.01
    assert read_config(folder).generator == run.model.generator.config
    assert not any(parameter.requires_grad for parameter in device.parameters())


def test_bundles_of_other_models_are_refused(tmp_path: Path, files: BundleFiles) -> None:
    static = trainer(method="fine_tuning")
    folder = save_trained(tmp_path / "static", static, files)
    with pytest.raises(CheckpointError, match="static head and no generator"):
        load_generator(folder)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"num_classes": 12', '"num_classes": 13'))
    with pytest.raises(CheckpointError, match=r"head.bias \(12,\) instead of \(13,\)"):
        load_device_model(folder)
    (folder / "config.json").write_text(text.replace('"depth"', '"dpeth"'))
    with pytest.raises(CheckpointError, match="dpeth"):
        read_config(folder)
    (folder / "config.json").write_text(text)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(folder)
    with pytest.raises(CheckpointError, match="hyperfleet train"):
        read_config(tmp_path / "nowhere")


def test_checkpoint_of_other_settings_is_refused(tmp_path: Path, files: BundleFiles) -> None:
    run = trainer()
    result = next(run.run())
    save_checkpoint(tmp_path / "c", run, result.position, files)
    with pytest.raises(CheckpointError, match="learning_rate"):
        resume(tmp_path / "c", trainer(learning_rate=0.5))


def test_empty_split_and_bad_settings_are_refused() -> None:
    with pytest.raises(EmptyStreamError, match="no question"):
        source(0)
    with pytest.raises(ConfigError, match="cdc_mmpg"):
        TrainConfig(method="cdc")
    with pytest.raises(ConfigError, match="open-ended-qa"):
        TrainConfig(task="captioning")
    with pytest.raises(ConfigError, match="needs 2 or more epochs"):
        TrainConfig(method="stable_synth_net", epochs=1).stages()
    with pytest.raises(ConfigError, match="epochs"):
        TrainConfig(epochs=0)
    with pytest.raises(ConfigError, match="learning_rate"):
        TrainConfig(learning_rate=0.0)


@pytest.mark.parametrize("method", ["f_linear", "f_hyper"])
def test_kept_features_are_judged_without_dropout(method: str) -> None:
    """Checkpoints of a frozen encoder would otherwise be chosen by chance."""
    run = trainer(method=method)
    for module in run.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    expected = run.judge(run.validation)
    run.kept_validation = run.features(run.validation)
    run.model.train()
    assert torch.equal(run.judge(run.validation), expected)


def test_gradients_are_clipped_by_part_whatever_their_rates() -> None:
    parts = {"device": (0.5, 1.0), "reader": (1.0,), "adaptor": (1.0, 0.04)}
    members = {(part, rate): torch.nn.Parameter(torch.zeros(3)) for part in parts for rate in parts[part]}
    optimiser = adamw(((each, rate, part) for (part, rate), each in members.items()), weight_decay=0.0)
    warm_up_then_decay(optimiser, num_steps=10, warm_up_fraction=0.1)

    class Sum(torch.nn.Module):
        def forward(self, _: object) -> dict[str, torch.Tensor]:
            return {"answer": torch.stack([(100 * each).sum() for each in members.values()]).sum()}

    train_step(Sum(), {}, optimiser)
    for part, rates in parts.items():
        norm = torch.stack([members[part, rate].grad for rate in rates]).norm()
        assert norm.item() == pytest.approx(1.0, abs=1e-4)


def test_only_what_writes_heads_learns_slowly() -> None:
    """DUET's GRU and MLP read; its linear layer writes 192 numbers into each weight of a head."""
    model = trainer(method="duet").model
    stage = TrainConfig(method="duet").stages()[-1]
    rates = {name: stage.rate_of(name) / stage.learning_rate for name, _ in model.named_parameters()}
    assert {rate for name, rate in rates.items() if name.startswith("generator.sequence.")} == {1.0}
    assert {rate for name, rate in rates.items() if name.startswith("generator.f_h.")} == {GENERATOR_RATE}
    assert {rate for name, rate in rates.items() if name.startswith("device.")} == {1.0}


@pytest.mark.parametrize(
    ("method", "first"),
    [("cdc_mmpg", "reason"), ("stable_synth_net", "drive"), ("stable_synth_net_as_printed", "drive")],
)
def test_the_published_schedule_is_the_papers(method: str, first: str) -> None:
    config = replace(preset("paper").train, method=method)
    stages = [(stage.name, stage.epochs, stage.learning_rate, stage.rate_left) for stage in config.stages()]
    assert stages == [
        (first, 10, pytest.approx(2e-5), 0.0),
        ("adapt", 40, pytest.approx(1e-4), 0.0),
    ]
    short = replace(config, epochs=1)
    assert [stage.epochs for stage in short.stages()] == [10, 1]
    baseline = replace(config, method="fine_tuning").stages()
    assert [(stage.epochs, stage.learning_rate) for stage in baseline] == [(40, pytest.approx(1e-4))]


def test_literal_methods_have_the_passes_and_the_rates_of_each_other() -> None:
    """All eight passes are their own; the contrastive stage has a fifth of the rate, as printed."""
    drive, adapt = TrainConfig(method="stable_synth_net_as_printed", warm_epochs=6, epochs=2).stages()
    (_, theirs) = TrainConfig(method="cdc_mmpg_as_printed", warm_epochs=6, epochs=2).stages()
    assert drive.epochs + adapt.epochs == theirs.epochs == 8
    assert adapt.learning_rate == theirs.learning_rate == 1e-3
    assert (drive.learning_rate, drive.rate_left) == (pytest.approx(2e-4), 0.0)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    optimiser = adamw([(parameter, 1.0, "device")], weight_decay=0.0)
    assert isinstance(optimiser, AdamW)
    schedule = warm_up_then_decay(optimiser, num_steps=20, warm_up_fraction=0.1)
    rates = []
    for _ in range(20):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert np.all(np.diff(rates[2:]) < 0)
    assert optimiser.param_groups[0]["lr"] == 0


@pytest.mark.parametrize("name", ["fine_tuning", "cdc_mmpg", "duet", "f_hyper_trained", "stable_synth_net"])
def test_shared_and_own_passes_have_one_schedule(name: str) -> None:
    """But for each stage's warm-up, the encoder's rate falls as in one stage over all passes."""
    moving = [
        s for s in TrainConfig(method=name, warm_epochs=6, epochs=2).stages() if not s.encoder_is_frozen
    ]
    assert sum(stage.epochs for stage in moving) == 8
    passed = 0
    for stage in moving:
        assert stage.learning_rate == pytest.approx(1e-3 * (8 - passed) / 8)
        passed += stage.epochs
        assert stage.learning_rate * stage.rate_left == pytest.approx(1e-3 * (8 - passed) / 8)


def test_the_rate_ends_where_the_next_stage_begins() -> None:
    optimiser = adamw([(torch.nn.Parameter(torch.zeros(2, 2)), 1.0, "device")], weight_decay=0.0)
    schedule = warm_up_then_decay(optimiser, num_steps=20, warm_up_fraction=0.1, rate_left=0.25)
    for _ in range(20):
        optimiser.step()
        schedule.step()
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.25)


@settings(max_examples=50, deadline=None)
@given(
    category=st.lists(st.integers(-1, 6), min_size=1, max_size=60),
    size=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_samples_of_a_category_stand_together_and_each_occurs_once(
    category: list[int], size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    of = np.array(category)
    grouped = _grouped(rng.permutation(len(of)), of, size, rng)
    assert sorted(grouped.tolist()) == list(range(len(of)))
    # Cut where the category changes: no run is shorter than the groups it consists of can make it.
    starts = np.flatnonzero(np.r_[True, np.diff(of[grouped]) != 0])
    lengths = np.diff(np.r_[starts, len(of)])
    for each in np.unique(of):
        whole, rest = divmod(int((of == each).sum()), size)
        runs = lengths[of[grouped][starts] == each]
        assert runs.sum() == whole * size + rest
        assert len(runs) <= whole + (rest > 0)
        assert (runs % size > 0).sum() <= (rest > 0)


def test_grouping_differs_from_pass_to_pass() -> None:
    data = source(64)
    one, other = (
        np.concatenate(list(data.shuffled(np.random.default_rng(seed), 16, per_category=4)))
        for seed in (0, 1)
    )
    assert not np.array_equal(one, other)
    pairs = data.split.category[one].reshape(-1, 4)
    assert (pairs == pairs[:, :1]).all()
    # Groups of one category do not stand in one block.
    assert (np.diff(pairs[:, 0]) != 0).sum() > 3
