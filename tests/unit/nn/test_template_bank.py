"""StableSynthNet's templates: lookup by sample, contribution to the head, and updates."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.errors import ConfigError
from hyperfleet.nn import TemplateBank, TemplateBankConfig

NUM = 5


def bank(**changes: object) -> TemplateBank:
    """Return a bank of five random templates, of which the fourth was never seen."""
    made = TemplateBank(TemplateBankConfig(num_categories=NUM, **changes))  # type: ignore[arg-type]
    made.templates.copy_(torch.randn(NUM, 192, generator=torch.Generator().manual_seed(1)))
    made.seen.fill_(True)
    made.seen[3] = False
    return made


def features(num: int = 7) -> torch.Tensor:
    return 2 * torch.randn(num, 192, generator=torch.Generator().manual_seed(2)) + 0.5


def mean_and_deviation(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.mean(), (x.var(unbiased=False) + 1e-5).sqrt()


def test_soft_selection_equals_a_loop_over_the_seen_templates() -> None:
    templates, samples = bank(temperature=0.3), features()
    weight = templates.select(samples)
    for i, sample in enumerate(samples):
        scores = {
            c: math.exp(torch.cosine_similarity(sample, templates.templates[c], dim=0).item() / 0.3)
            for c in range(NUM)
            if c != 3
        }
        for c in range(NUM):
            expected = scores.get(c, 0.0) / sum(scores.values())
            assert weight[i, c].item() == pytest.approx(expected, abs=1e-6)


def test_nearest_selection_takes_the_template_of_the_largest_cosine() -> None:
    templates = bank(selection="nearest")
    # Cosine, not distance or product: a long template does not win by its length.
    templates.templates[0] *= 100
    samples = templates.templates[[1, 4, 2]] + 0.3 * features(3)
    assert templates.select(samples).argmax(dim=1).tolist() == [1, 4, 2]
    assert templates.select(samples).sum(dim=1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("selection", ["soft", "nearest"])
def test_unseen_templates_get_no_weight(selection: str) -> None:
    templates = bank(selection=selection)
    samples = templates.templates[[3, 3]] + 0.01 * features(2)
    assert (templates.select(samples)[:, 3] == 0).all()


def test_no_label_can_reach_the_choice_of_a_template() -> None:
    for chooser in (TemplateBank.select, TemplateBank.forward):
        assert list(inspect.signature(chooser).parameters) == ["self", "feature"]
    untouched = bank()
    before = untouched.templates.clone()
    untouched(features())
    assert torch.equal(untouched.templates, before)


@pytest.mark.parametrize("selection", ["soft", "nearest"])
def test_template_takes_the_samples_statistics_and_is_mixed_in(selection: str) -> None:
    templates, samples = bank(selection=selection, fuse_weight=0.3), features()
    fused = templates(samples)
    weight = templates.select(samples)
    for i, sample in enumerate(samples):
        content = sum(weight[i, c] * templates.templates[c] for c in range(NUM))
        mean, deviation = mean_and_deviation(content)
        own_mean, own_deviation = mean_and_deviation(sample)
        renormalised = own_deviation * (content - mean) / deviation + own_mean
        torch.testing.assert_close(fused[i], 0.3 * renormalised + 0.7 * sample, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("selection", ["soft", "nearest"])
def test_sample_takes_the_templates_statistics_by_the_formula(selection: str) -> None:
    templates = bank(selection=selection, renormalise="sample_to_template", fuse_weight=0.3)
    samples = features()
    fused = templates(samples)
    weight = templates.select(samples)
    statistics = [mean_and_deviation(template) for template in templates.templates]
    for i, sample in enumerate(samples):
        mean = sum(weight[i, c] * statistics[c][0] for c in range(NUM))
        deviation = sum(weight[i, c] * statistics[c][1] for c in range(NUM))
        own_mean, own_deviation = mean_and_deviation(sample)
        renormalised = deviation * (sample - own_mean) / own_deviation + mean
        torch.testing.assert_close(fused[i], 0.3 * renormalised + 0.7 * sample, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("selection", ["soft", "nearest"])
@pytest.mark.parametrize("renormalise", ["template_to_sample", "sample_to_template"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_templates_that_diverged_are_as_unseen(selection: str, renormalise: str, value: float) -> None:
    """One bad template must spoil no row; 1e30 has a length that float32 cannot hold."""
    templates = bank(selection=selection, renormalise=renormalise)
    expected = bank(selection=selection, renormalise=renormalise)
    templates.templates[[0, 4]] = value
    expected.seen[[0, 4]] = False
    samples = features()
    samples.requires_grad_()
    torch.testing.assert_close(templates.select(samples), expected.select(samples))
    fused = templates(samples)
    torch.testing.assert_close(fused, expected(samples))
    fused.sum().backward()
    assert samples.grad.isfinite().all()
    templates.templates.fill_(value)
    assert torch.equal(templates(samples), samples)


def test_before_any_template_is_seen_the_feature_passes_unchanged() -> None:
    empty = TemplateBank(TemplateBankConfig(num_categories=NUM))
    assert torch.equal(empty(features()), features())


def test_the_bank_has_no_parameters_and_is_saved_whole() -> None:
    assert list(bank().parameters()) == []
    assert set(bank().state_dict()) == {"templates", "seen"}


def observe(
    templates: TemplateBank, samples: torch.Tensor, categories: list[int], losses: list[float]
) -> None:
    counted = torch.ones(len(samples), dtype=torch.bool)
    templates.observe(samples, torch.tensor(categories), torch.tensor(losses), counted)


def test_first_visit_sets_the_template_to_the_mean_of_its_samples() -> None:
    for update in ("bounded", "literal"):
        templates = TemplateBank(TemplateBankConfig(num_categories=NUM, update=update))
        samples = features(3)
        observe(templates, samples, [1, 1, 4], [0.5, 2.0, 1.0])
        torch.testing.assert_close(templates.templates[1], (samples[0] + samples[1]) / 2)
        torch.testing.assert_close(templates.templates[4], samples[2])
        assert templates.seen.tolist() == [False, True, False, False, True]


def test_samples_without_category_and_templates_of_other_categories_stay_out() -> None:
    templates = bank()
    before = templates.templates.clone()
    observe(templates, features(3), [2, 2, -1], [1.0, 2.0, 3.0])
    alone = bank()
    observe(alone, features(3)[:2], [2, 2], [1.0, 2.0])
    assert torch.equal(templates.templates, alone.templates)
    unmoved = [0, 1, 3, 4]
    assert torch.equal(templates.templates[unmoved], before[unmoved])
    assert not torch.equal(templates.templates[2], before[2])
    assert not templates.seen[3]


def test_a_sample_without_a_loss_counts_for_the_mean_but_not_for_the_variance() -> None:
    # The only sample of a category has no positive and so no loss; its template is learned all the same.
    templates = TemplateBank(TemplateBankConfig(num_categories=NUM))
    samples = features(4)
    categories, counted = torch.tensor([0, 0, 0, 4]), torch.tensor([True, True, False, False])
    templates.observe(samples, categories, torch.tensor([0.0, 4.0, 0.0, 0.0]), counted)
    torch.testing.assert_close(templates.templates[0], samples[:3].mean(dim=0))
    torch.testing.assert_close(templates.templates[4], samples[3])
    again = features(8)[4:]
    templates.observe(again, categories, torch.tensor([0.0, 4.0, 100.0, 100.0]), counted)
    approach = 1 / (4.0 * 3)
    expected = samples[:3].mean(dim=0) + 0.1 * approach * (again[:3].mean(dim=0) - samples[:3].mean(dim=0))
    torch.testing.assert_close(templates.templates[0], expected)


def test_templates_of_a_distributed_run_are_those_of_one_process() -> None:
    alone, distributed = bank(), bank()
    observe(alone, features(4), [0, 0, 1, 1], [0.0, 4.0, 1.0, 1.1])
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        observe(distributed, features(4), [0, 0, 1, 1], [0.0, 4.0, 1.0, 1.1])
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(alone.templates, distributed.templates)
    assert torch.equal(alone.seen, distributed.seen)


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_bounded_update_equals_its_definition(momentum: float) -> None:
    templates = bank(momentum=momentum, speed=2.0)
    before = templates.templates.clone()
    samples = features(4)
    # Category 0 disagrees much and moves slowly; category 1 agrees and moves as fast as it may.
    observe(templates, samples, [0, 0, 1, 1], [0.0, 4.0, 1.0, 1.1])
    slow = 1 / (2.0 * 4.0 * 2)
    expected = [
        before[0] + (1 - momentum) * slow * (samples[:2].mean(dim=0) - before[0]),
        before[1] + (1 - momentum) * (samples[2:].mean(dim=0) - before[1]),
    ]
    torch.testing.assert_close(templates.templates[:2], torch.stack(expected))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    momentum=st.floats(0, 1),
    speed=st.floats(1e-3, 1e3),
    spread=st.sampled_from([0.0, 1e-4, 1.0, 100.0]),
    num=st.integers(1, 6),
)
def test_bounded_update_stays_between_template_and_mean(
    seed: int, momentum: float, speed: float, spread: float, num: int
) -> None:
    templates = bank(momentum=momentum, speed=speed)
    before = templates.templates[2].clone()
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(num, 192, generator=generator)
    losses = (spread * torch.rand(num, generator=generator)).tolist()
    observe(templates, samples, [2] * num, losses)
    mean = samples.mean(dim=0)
    share = torch.dot(templates.templates[2] - before, mean - before) / (mean - before).square().sum()
    assert -1e-5 <= share <= 1 + 1e-5
    torch.testing.assert_close(templates.templates[2], before + share * (mean - before), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("losses", [[1.0], [1.0, 1.0, 1.0]], ids=["one sample", "equal losses"])
def test_no_variance_moves_at_full_speed_and_stays_finite(losses: list[float]) -> None:
    templates = bank(momentum=0.9)
    before = templates.templates[2].clone()
    samples = features(len(losses))
    observe(templates, samples, [2] * len(losses), losses)
    torch.testing.assert_close(templates.templates[2], before + 0.1 * (samples.mean(dim=0) - before))


def literal(approach: float) -> tuple[TemplateBank, torch.Tensor, list[float]]:
    """Return a bank with a first template at H, H, and two losses whose variance gives r_a = `approach`."""
    variance = 1 / (2 * approach)
    losses = [0.0, 2 * math.sqrt(variance)]
    templates = bank(update="literal", momentum=0.9)
    mean = features(1)[0]
    templates.templates[0] = mean
    return templates, mean, losses


def test_literal_update_equals_equation_10() -> None:
    templates, mean, losses = literal(0.5)
    templates.templates[0] = 3 * mean
    observe(templates, mean.expand(2, -1), [0, 0], losses)
    torch.testing.assert_close(templates.templates[0], 0.9 * 3 * mean + 0.1 * 0.5 * (mean - 3 * mean))


def test_literal_update_shrinks_templates_to_a_fixed_point_far_from_the_mean() -> None:
    templates, mean, losses = literal(0.1)
    for _ in range(200):
        observe(templates, mean.expand(2, -1), [0, 0], losses)
    torch.testing.assert_close(templates.templates[0], 0.1 / 1.1 * mean, rtol=1e-3, atol=1e-4)


def test_literal_update_leaves_out_categories_without_a_variance() -> None:
    """One loss has variance 0, whose inverse would multiply the template by -1e7."""
    templates = bank(update="literal")
    before = templates.templates.clone()
    observe(templates, features(3), [0, 1, 1], [1.0, 1.0, 3.0])
    assert torch.equal(templates.templates[0], before[0])
    assert not torch.equal(templates.templates[1], before[1])
    templates.seen[4] = False
    observe(templates, features(1), [4], [1.0])
    torch.testing.assert_close(templates.templates[4], features(1)[0])


@pytest.mark.parametrize(("approach", "diverges"), [(18.0, False), (20.0, True)])
def test_literal_update_diverges_where_the_approach_exceeds_19(approach: float, *, diverges: bool) -> None:
    templates, mean, losses = literal(approach)
    for _ in range(150):
        observe(templates, mean.expand(2, -1), [0, 0], losses)
    assert (templates.templates[0].norm() > 1e3 * mean.norm()).item() is diverges


@pytest.mark.parametrize(
    "change",
    [{"num_categories": -1}, {"temperature": 0.0}, {"speed": 0.0}, {"fuse_weight": 1.5}, {"momentum": -0.1}],
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        TemplateBankConfig(**change)  # type: ignore[arg-type]


def test_a_bank_for_no_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 category"):
        TemplateBank(TemplateBankConfig())
