"""Driver Contrastive Training and Offset-Driver Separation against the equations, sample by sample."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.methods.driver_contrastive import contrastive_losses, risk_variance


def naive_losses(
    features: torch.Tensor, categories: torch.Tensor, temperature: float, margin: float
) -> list[float | None]:
    """Equations 5 and 6 as they stand: angles by arccos, pair by pair; None without a positive."""
    unit = features.double().numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    losses: list[float | None] = []
    for i, own in enumerate(categories.tolist()):
        f_pos, f_neg = 0.0, 0.0
        for j, theirs in enumerate(categories.tolist()):
            if i == j or own < 0 or theirs < 0:
                continue
            angle = math.acos(np.clip(unit[i] @ unit[j], -1 + 1e-6, 1 - 1e-6))
            if own != theirs:
                f_neg += math.exp(math.cos(angle) / temperature)
            elif angle + margin <= math.pi:
                f_pos += math.exp(math.cos(angle + margin) / temperature)
            else:
                f_pos += math.exp((math.cos(angle) - margin * math.sin(margin)) / temperature)
        losses.append(-math.log(f_pos / (f_pos + f_neg)) if f_pos > 0 else None)
    return losses


def examples(num_samples: int = 12, num_categories: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_samples, 192, generator=generator, dtype=torch.double)
    return features, torch.arange(num_samples) % num_categories


def assert_equal_to_the_loop(
    features: torch.Tensor, categories: torch.Tensor, *, temperature: float = 0.1, margin: float = 0.1
) -> torch.Tensor:
    losses, counted = contrastive_losses(features, categories, temperature=temperature, margin=margin)
    expected = naive_losses(features, categories, temperature, margin)
    assert counted.tolist() == [loss is not None for loss in expected]
    np.testing.assert_allclose(losses.numpy(), [loss or 0.0 for loss in expected], rtol=1e-6, atol=1e-9)
    return counted


@pytest.mark.parametrize(("temperature", "margin"), [(0.1, 0.1), (0.5, 0.0), (1.0, 0.6)])
def test_losses_equal_a_loop_over_pairs(temperature: float, margin: float) -> None:
    counted = assert_equal_to_the_loop(*examples(), temperature=temperature, margin=margin)
    assert counted.all()


def test_past_pi_the_margin_is_taken_from_the_cosine() -> None:
    features, categories = examples(6, 2)
    # 0 and 2 are of one category and point in opposite directions: the angle plus 0.3 exceeds pi.
    features[2] = -features[0] + 0.01 * features[2]
    assert_equal_to_the_loop(features, categories, temperature=1.0, margin=0.3)


def test_samples_without_a_positive_are_not_counted_but_still_negatives() -> None:
    features, _ = examples(5)
    categories = torch.tensor([0, 0, 1, 2, 3])
    assert assert_equal_to_the_loop(features, categories).tolist() == [True, True, False, False, False]
    fewer, _ = contrastive_losses(features[:3], categories[:3], temperature=0.1, margin=0.1)
    more, _ = contrastive_losses(features, categories, temperature=0.1, margin=0.1)
    assert (more[:2] > fewer[:2]).all()


def test_samples_without_a_category_are_nobodys_positive_or_negative() -> None:
    features, categories = examples(8, 2)
    alone, _ = contrastive_losses(features, categories, temperature=0.1, margin=0.1)
    strangers = torch.cat([features, features[:2] + 0.1])
    unknown = torch.cat([categories, torch.tensor([-1, -1])])
    losses, counted = contrastive_losses(strangers, unknown, temperature=0.1, margin=0.1)
    torch.testing.assert_close(losses, torch.cat([alone, torch.zeros(2, dtype=torch.double)]))
    assert counted.tolist() == [True] * 8 + [False] * 2
    assert_equal_to_the_loop(strangers, unknown)


def test_without_any_negative_there_is_nothing_to_lose() -> None:
    features, _ = examples(4)
    losses, counted = contrastive_losses(
        features, torch.zeros(4, dtype=torch.long), temperature=0.1, margin=0.1
    )
    assert counted.all()
    torch.testing.assert_close(losses, torch.zeros_like(losses))


def test_gradient_of_the_losses() -> None:
    features, categories = examples(6, 2)
    features[2] = -features[0] + 0.01 * features[2]
    categories[5] = -1
    features.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: contrastive_losses(x, categories, temperature=0.5, margin=0.3)[0], features, fast_mode=True
    )


@pytest.mark.parametrize("categories", [[0, 1, 2, -1], [0, 0, 0, 0], [-1, -1, -1, -1]])
def test_gradient_is_finite_where_rows_are_empty_and_samples_are_equal(categories: list[int]) -> None:
    features = torch.randn(4, 192)
    features[1] = features[0]
    features.requires_grad_()
    losses, _ = contrastive_losses(features, torch.tensor(categories), temperature=0.1, margin=0.1)
    losses.sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), small=st.floats(0, 0.7), more=st.floats(0, 0.7))
def test_a_larger_margin_never_makes_a_loss_smaller(seed: int, small: float, more: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    # A common direction makes positive cosines occur too, a sign negative ones.
    features = torch.randn(9, 192, generator=generator) + torch.randn(9, 1, generator=generator)
    categories = torch.randint(-1, 3, (9,), generator=generator)
    losses, counted = contrastive_losses(features, categories, temperature=0.2, margin=small)
    larger, _ = contrastive_losses(features, categories, temperature=0.2, margin=small + more)
    assert (losses >= 0).all()
    assert (losses[~counted] == 0).all()
    assert (larger >= losses - 1e-5).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_only_directions_matter_and_not_the_order_of_the_samples(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(9, 192, generator=generator)
    categories = torch.randint(-1, 3, (9,), generator=generator)
    order = torch.randperm(9, generator=generator)
    scale = 0.1 + 10 * torch.rand(9, 1, generator=generator)
    losses, _ = contrastive_losses(features, categories, temperature=0.1, margin=0.1)
    moved, _ = contrastive_losses((scale * features)[order], categories[order], temperature=0.1, margin=0.1)
    torch.testing.assert_close(moved, losses[order], rtol=1e-4, atol=1e-4)


def test_risk_variance_is_the_mean_over_samples_of_their_categories_variances() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0, 3.0, 3.0, 100.0], requires_grad=True)
    categories = torch.tensor([0, 0, 0, 5, 5, 7, 7])
    counted = torch.tensor([True, True, True, True, True, True, False])
    expected = (3 * np.var([1, 2, 4]) + 2 * np.var([8, 3]) + 1 * np.var([3])) / 6
    variance = risk_variance(losses, categories, counted)
    assert variance.item() == pytest.approx(expected)
    variance.backward()
    assert losses.grad is not None
    assert losses.grad[6] == 0
    # Each category's gradient sums to zero: its mean may move freely, its spread may not.
    assert losses.grad[:3].sum().item() == pytest.approx(0, abs=1e-6)


def test_risk_variance_of_nothing_is_zero_and_can_be_trained() -> None:
    losses = torch.zeros(3, requires_grad=True)
    variance = risk_variance(losses, torch.tensor([0, 1, -1]), torch.zeros(3, dtype=torch.bool))
    variance.backward()
    assert variance.item() == 0
    assert torch.equal(losses.grad, torch.zeros(3))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), num_samples=st.integers(1, 20))
def test_risk_variance_equals_numpy(seed: int, num_samples: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    losses = 10 * torch.rand(num_samples, generator=generator, dtype=torch.double)
    categories = torch.randint(0, 4, (num_samples,), generator=generator)
    counted = torch.rand(num_samples, generator=generator) < 0.7
    printed = [np.var(losses[counted & (categories == a)].numpy()) for a in categories[counted].tolist()]
    # Equations 5 and 8 sum over samples; both terms are means here.
    expected = np.mean(printed) if printed else 0.0
    assert risk_variance(losses, categories, counted).item() == pytest.approx(expected, abs=1e-9)
