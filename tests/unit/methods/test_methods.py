"""Every method on every task: stages train the parameters they name, and no label reaches an answer."""

import dataclasses

import numpy as np
import pytest
import torch

from hyperfleet.cloud.train_config import TrainConfig
from hyperfleet.cloud.training import Trainer
from hyperfleet.errors import ConfigError
from hyperfleet.methods import METHODS, Examples, personalizes
from hyperfleet.methods.base import adaptation_losses, outputs, random_anchor, static_outputs
from hyperfleet.methods.stable_synth_net import StableSynthNet
from hyperfleet.tasks import MULTIPLE_CHOICE, OPEN_ENDED_QA
from tests.worlds.toy_training import TASK_NAMES, source, trainer

# One score a candidate has no factors of rank 8.
IMPOSSIBLE = {("cdc_mmpg_rank8", MULTIPLE_CHOICE)}
CELLS = [(name, task) for name in METHODS for task in TASK_NAMES if (name, task) not in IMPOSSIBLE]


def copies(run: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.model.named_parameters()}


def templates_of(run: Trainer) -> torch.Tensor | None:
    generator = run.model.generator
    if generator is None or generator.templates is None:
        return None
    return generator.templates.templates.clone()


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "task"), CELLS)
def test_each_stage_moves_its_own_parameters_and_all_of_them_get_a_gradient(name: str, task: str) -> None:
    run = trainer(method=name, task=task, batch_size=16, warm_epochs=1, epochs=2)
    stages = {stage.name: stage for stage in run.config.stages()}
    before, templates = copies(run), templates_of(run)
    seen = []
    for result in run.run():
        stage = stages[result.stage]
        seen.append(result.stage)
        parameters = dict(run.model.named_parameters())
        claimed = {each for each in parameters if stage.moves(each)}
        # A parameter without a gradient would let workers that wait for it hang.
        assert {each for each, p in parameters.items() if p.requires_grad} == claimed
        assert [each for each in claimed if parameters[each].grad is None] == []
        after = copies(run)
        moved = {each for each in after if not torch.equal(before[each], after[each])}
        assert moved
        assert moved <= claimed
        assert not any(each.startswith("device.itm_score") for each in moved)
        now = templates_of(run)
        if templates is not None and now is not None:
            assert torch.equal(now, templates) == (stage.name != "drive")
        before, templates = after, now
    assert list(dict.fromkeys(seen)) == list(stages)
    assert run.best_score >= 0


def test_the_joint_loss_is_that_of_equation_18() -> None:
    """The answers' loss and the ADR's, whose errors are means over channels there; everything moves."""
    run = trainer(method="cdc_mmpg_joint")
    features = run.features(run.validation).requires_grad_()
    samples = np.arange(len(run.validation))
    examples = Examples(features=features, **run.validation.targets(samples))
    torch.manual_seed(0)
    joint = METHODS["cdc_mmpg_joint"].losses(run.model, "adapt", examples)
    assert set(joint) == {"answer", "static", "kl", "reconstruction", "renormalisation"}
    torch.manual_seed(0)
    adaptation_losses(run.model, examples, joint=True)
    frames = run.model.task.frames(features)
    alone = run.model.generator.adr.losses(random_anchor(frames), frames.mean(dim=1))
    for name, loss in alone.items():
        torch.testing.assert_close(joint[name], loss / 192)
    last = run.config.stages()[-1]
    assert last.moves("generator.adr.vae.encoder.0.weight")
    assert not TrainConfig(method="cdc_mmpg").stages()[-1].moves("generator.adr.vae.encoder.0.weight")
    separate = METHODS["cdc_mmpg"].losses(run.model, "adapt", examples)
    assert set(separate) == {"answer", "static"}


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "task"), CELLS)
def test_no_label_and_no_category_reaches_an_answer(name: str, task: str) -> None:
    run = trainer(method=name, task=task)
    generator = run.model.generator
    if generator is not None:
        # As after training: heads that depend on the upload, and templates that were seen.
        torch.nn.init.normal_(generator.f_h.weight, std=0.05)
        if generator.templates is not None:
            generator.templates.templates.normal_()
            generator.templates.seen.fill_(True)
    live = source(24, task, run.model.device.encoder.config.num_frames)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1)).numpy()
    permuted = dataclasses.replace(
        live.split, label=live.split.label[order], category=live.split.category[order]
    )
    unknown = dataclasses.replace(
        live.split, label=-live.split.label - 1, category=live.split.category * 0 - 1
    )
    judged = []
    for split in (live.split, permuted, unknown):
        judged.append(run.judge(dataclasses.replace(live, split=split)))
    assert torch.equal(judged[0], judged[1])
    assert torch.equal(judged[0], judged[2])


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("name", [name for name, each in METHODS.items() if personalizes(each)])
def test_methods_that_personalize_answer_with_the_generated_head(name: str, task: str) -> None:
    if (name, task) in IMPOSSIBLE:
        with pytest.raises(ConfigError, match="ranks 1 to 1"):
            trainer(method=name, task=task)
        return
    run = trainer(method=name, task=task)
    assert run.model.generator is not None
    torch.nn.init.normal_(run.model.generator.f_h.weight, std=0.05)
    features = run.features(run.validation)
    frames = run.model.task.frames(features)
    with torch.inference_mode():
        generated = [outputs(run.model, features, anchor) for anchor in (frames[:, 0], frames.flip(0)[:, 0])]
        static = static_outputs(run.model, features)
    assert (generated[0] - static).abs().max() > 0.01
    # Another upload brings another head; DUET reads the frames of the clip itself.
    assert torch.equal(*generated) == (name in ("duet", "cdc_mmpg_fda_clip"))


@pytest.mark.parametrize("task", [OPEN_ENDED_QA, MULTIPLE_CHOICE])
@pytest.mark.parametrize("name", ["cdc_mmpg", "cdc_mmpg_film", "stable_synth_net", "duet"])
def test_the_loss_of_generated_heads_moves_the_device_only_if_joint(name: str, task: str) -> None:
    for joint in (False, True):
        run = trainer(method=name, task=task)
        assert run.model.generator is not None
        torch.nn.init.normal_(run.model.generator.f_h.weight, std=0.05)
        features = run.features(run.train).requires_grad_()
        examples = Examples(features=features, **run.train.targets(np.arange(32)))
        losses = adaptation_losses(run.model, examples, joint=joint)
        losses["answer"].backward()
        moved = {each for each, p in run.model.named_parameters() if p.grad is not None}
        assert any(each.startswith("generator.f_h") for each in moved)
        assert any(each.startswith("device.") for each in moved) is joint
        assert (features.grad is not None) is joint
        losses["static"].backward()
        assert features.grad is not None
        assert run.model.device.head.weight.grad is not None


def test_methods_without_a_generator_have_static_heads() -> None:
    assert [name for name, each in METHODS.items() if not personalizes(each)] == ["f_linear", "fine_tuning"]
    assert trainer(method="fine_tuning").model.generator is None


def test_names_in_the_catalogue_are_those_the_methods_bear() -> None:
    assert all(each.name == name for name, each in METHODS.items())


@pytest.mark.parametrize("name", ["f_linear", "f_hyper"])
def test_baselines_of_a_frozen_encoder_keep_it_as_it_came(name: str) -> None:
    (stage,) = METHODS[name].stages(warm_epochs=1, epochs=1, learning_rate=0.1)
    assert stage.encoder_is_frozen
    assert not stage.moves("device.pooler.weight")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_as_many_passes_over_the_encoder(name: str) -> None:
    stages = METHODS[name].stages(warm_epochs=3, epochs=4, learning_rate=0.1)
    trained = sum(stage.epochs for stage in stages if not stage.encoder_is_frozen)
    assert trained == (0 if name in ("f_linear", "f_hyper") else 7)


def test_ablations_of_stable_synth_net_leave_their_term_out() -> None:
    terms = {
        "stable_synth_net": {"contrastive", "separation", "answer"},
        "stable_synth_net_no_contrastive": {"separation", "answer"},
        "stable_synth_net_no_separation": {"contrastive", "answer"},
        "stable_synth_net_no_templates": {"contrastive", "separation", "answer"},
        "stable_synth_net_as_printed": {"contrastive", "separation"},
    }
    for name, expected in terms.items():
        run = trainer(method=name, warm_epochs=0)
        first = next(run.run())
        assert first.stage == "drive"
        assert {key for key in first.metrics if key.startswith("loss_")} == {
            f"loss_{term}" for term in (*expected, "total")
        }
        has_templates = run.model.generator is not None and run.model.generator.templates is not None
        assert has_templates == (name != "stable_synth_net_no_templates")


def test_driving_batches_hold_positives_of_each_sample() -> None:
    run = trainer(method="stable_synth_net", batch_size=8)
    stage = next(stage for stage in run.config.stages() if stage.name == "drive")
    for batch in run._batches(stage, 0, None):
        same = batch["categories"][:, None] == batch["categories"][None]
        assert (same.sum(dim=1) >= 4).all()


@pytest.mark.parametrize("change", [{"temperature": 0.0}, {"margin": -0.1}, {"separation_weight": -1.0}])
def test_impossible_contrastive_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="temperature > 0, margin >= 0"):
        StableSynthNet(**change)


def test_out_of_vocabulary_answers_train_nothing_and_count_as_wrong() -> None:
    run = trainer(task=OPEN_ENDED_QA)
    unknown = dataclasses.replace(run.train.split, label=run.train.split.label * 0 - 1)
    assert run.measures(dataclasses.replace(run.train, split=unknown)) == {"accuracy": 0.0}


def test_a_batch_without_a_known_answer_trains_nothing() -> None:
    run = trainer(method="fine_tuning")
    features = run.features(run.train)
    examples = Examples(
        features=features,
        labels=torch.full((32,), -1),
        categories=torch.full((32,), -1),
    )
    (loss,) = METHODS["fine_tuning"].losses(run.model, "warm", examples).values()
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(run.model.device.head.weight.grad, torch.zeros_like(run.model.device.head.weight))
