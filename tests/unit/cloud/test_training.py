import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import AdamW

from hyperfleet.bundle import (
    BundleConfig,
    build_model,
    load_device_model,
    load_generator,
    load_model,
    read_config,
)
from hyperfleet.cloud.batches import BatchSource
from hyperfleet.cloud.checkpoint import BundleFiles, resume, save_checkpoint, save_trained, warm_start
from hyperfleet.cloud.optimisation import adamw, warm_up_then_decay
from hyperfleet.cloud.training import TrainConfig, Trainer
from hyperfleet.errors import CheckpointError, ConfigError, EmptyStreamError
from hyperfleet.methods import method
from hyperfleet.nn import HeadGeneratorConfig
from hyperfleet.nn.encoder_config import tiny

NUM_CLASSES = 4
ENCODER = dataclasses.replace(tiny(50), image_size=32, text_length=4, depth=1)


class Colours:
    """Sixteen clips of one grey level each; the answer is the level's quarter."""

    num_stored_frames = 6

    def frames(self, rows: np.ndarray, frame_index: np.ndarray) -> np.ndarray:
        level = (rows * 16).astype(np.uint8)[:, None, None, None, None]
        return np.broadcast_to(level, (len(rows), frame_index.shape[1], 36, 36, 3)).copy()


@dataclass
class Split:
    clip_row: np.ndarray
    token_ids: np.ndarray
    token_mask: np.ndarray
    label: np.ndarray


def source(num_samples: int = 32) -> BatchSource:
    rows = np.arange(num_samples) % 16
    split = Split(
        clip_row=rows,
        token_ids=np.ones((num_samples, 4), dtype=np.int32),
        token_mask=np.ones((num_samples, 4), dtype=bool),
        label=(rows // 4).astype(np.int64),
    )
    return BatchSource(store=Colours(), split=split, num_frames=3, image_size=32)


def trainer(**changes: object) -> Trainer:
    config = TrainConfig(**{"batch_size": 8, "warm_epochs": 2, "epochs": 2, **changes})  # type: ignore[arg-type]
    torch.manual_seed(config.seed)
    personalizes = method(config.method).personalizes
    model = build_model(
        BundleConfig(
            task="open-ended-qa",
            method=config.method,
            seed=config.seed,
            num_classes=NUM_CLASSES,
            encoder=ENCODER,
            generator=HeadGeneratorConfig() if personalizes else None,
        )
    )
    return Trainer(config=config, model=model, train=source(), validation=source())


@pytest.fixture
def files(tmp_path: Path) -> BundleFiles:
    (tmp_path / "t.json").write_text("{}")
    (tmp_path / "a.json").write_text("{}")
    return BundleFiles(tokenizer=tmp_path / "t.json", answers=tmp_path / "a.json")


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    # `generator.base` is a copy that only saved models hold; training never reads it.
    state = run.model.state_dict()
    return {name: tensor.detach().clone() for name, tensor in state.items() if name != "generator.base"}


def test_both_methods_learn_grey_levels() -> None:
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
        assert again.best_accuracy == whole.best_accuracy


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


def test_served_generator_is_the_trained_one(tmp_path: Path, files: BundleFiles) -> None:
    run = trainer()
    list(run.run())
    folder = save_trained(tmp_path / "bundle", run, files)
    anchor = torch.randn(5, 192)
    features = torch.randn(5, 3, 192)
    run.model.eval()
    with torch.inference_mode():
        expected = method("cdc_mmpg").logits(run.model, features, anchor)
        device, generator = load_device_model(folder), load_generator(folder)
        flat = generator(anchor)
        weight, bias = generator.layout.split(flat.numpy())
        hidden = device.hidden(features.mean(dim=1)).numpy()
        logits = np.einsum("nch,nh->nc", weight, hidden) + bias
        static = device.head(torch.from_numpy(hidden))
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(logits, static.numpy(), atol=1e-5)
    assert read_config(folder).generator == HeadGeneratorConfig()
    assert not any(parameter.requires_grad for parameter in device.parameters())


def test_bundles_of_other_models_are_refused(tmp_path: Path, files: BundleFiles) -> None:
    static = trainer(method="fine_tuning")
    folder = save_trained(tmp_path / "static", static, files)
    with pytest.raises(CheckpointError, match="static head and no generator"):
        load_generator(folder)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"num_classes": 4', '"num_classes": 5'))
    with pytest.raises(CheckpointError, match=r"head.bias \(4,\) instead of \(5,\)"):
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
    with pytest.raises(ConfigError, match="cdc_mmpg, fine_tuning"):
        TrainConfig(method="cdc")
    with pytest.raises(ConfigError, match="learning_rate"):
        TrainConfig(learning_rate=0.0)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    optimiser = adamw([(parameter, 1.0)], weight_decay=0.0)
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
