import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from hyperfleet.errors import ConfigError
from hyperfleet.messages import HeadLayout
from hyperfleet.nn import (
    AnchorReasonerConfig,
    HeadGenerator,
    HeadGeneratorConfig,
    SequenceReaderConfig,
    adain,
    apply_heads,
)
from hyperfleet.nn.anchor_reasoner import AnchorReasoner, kl_divergence

LAYOUT = HeadLayout(num_classes=11)


def test_adain_equals_the_definition_and_keeps_its_own_statistics() -> None:
    content, statistics = torch.randn(4, 192) * 3 + 1, torch.randn(4, 192) * 0.5 - 2
    out = adain(content, statistics)
    for i in range(4):
        c, s = content[i], statistics[i]
        expected = (
            (s.var(unbiased=False) + 1e-5).sqrt() * (c - c.mean()) / (c.var(unbiased=False) + 1e-5).sqrt()
        )
        torch.testing.assert_close(out[i], expected + s.mean())
    torch.testing.assert_close(adain(content, content), content, rtol=1e-4, atol=1e-4)


def test_adain_gradient() -> None:
    content, statistics = (torch.randn(2, 5, dtype=torch.double, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(adain, (content, statistics))


def test_kl_equals_torch_distributions() -> None:
    mean, log_variance = torch.randn(7, 64), torch.randn(7, 64)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    expected = torch_kl(posterior, Normal(torch.zeros(64), torch.ones(64))).sum(dim=1).mean()
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)


def test_losses_weigh_as_configured() -> None:
    anchor, clip = torch.randn(5, 192), torch.randn(5, 192)

    def losses(kl_weight: float) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        reasoner = AnchorReasoner(AnchorReasonerConfig(kl_weight=kl_weight))
        return reasoner.losses(anchor, clip)

    once, twice = losses(0.1), losses(0.2)
    torch.testing.assert_close(twice["kl"], 2 * once["kl"])
    torch.testing.assert_close(twice["reconstruction"], once["reconstruction"])


def test_direction_paper_changes_two_scalars_of_the_anchor() -> None:
    reasoner = AnchorReasoner(AnchorReasonerConfig(direction="anchor_to_decoded")).eval()
    anchor = torch.randn(3, 192)
    out = reasoner(anchor)
    for i in range(3):
        assert torch.corrcoef(torch.stack([anchor[i], out[i]]))[0, 1] > 0.9999


def test_one_feature_always_gives_one_head() -> None:
    generator = HeadGenerator(HeadGeneratorConfig(), LAYOUT).eval()
    anchor = torch.randn(3, 192)
    assert torch.equal(generator(anchor), generator(anchor))


def test_hyperfan_keeps_the_logits_at_unit_scale() -> None:
    torch.manual_seed(0)
    layout = HeadLayout(num_classes=1501)
    generator = HeadGenerator(HeadGeneratorConfig(projector_hidden=None, adr=None, static_base=False), layout)
    hidden = torch.randn(64, 1, 96)
    with torch.no_grad():
        logits = apply_heads(generator(torch.randn(64, 192)), hidden, layout)[:, 0]
        loss = nn.functional.cross_entropy(logits, torch.randint(1501, (64,)))
    assert abs(logits.std().item() - 1) < 0.1
    assert abs(loss.item() - math.log(1501)) < 0.8


def test_static_base_starts_near_the_static_head() -> None:
    torch.manual_seed(0)
    generator = HeadGenerator(HeadGeneratorConfig(), LAYOUT).eval()
    generator.base.normal_()
    hidden, anchor = torch.randn(256, 1, 96), torch.randn(256, 192)
    static = apply_heads(generator.base.expand(256, -1), hidden, LAYOUT)
    difference = apply_heads(generator(anchor), hidden, LAYOUT) - static
    assert 0.05 < difference.std().item() < 0.2


def test_heads_equal_a_loop_over_samples_and_items() -> None:
    flat, hidden = torch.randn(6, LAYOUT.num_params), torch.randn(6, 5, 96)
    out = apply_heads(flat, hidden, LAYOUT)
    assert out.shape == (6, 5, 11)
    for i in range(6):
        weight = flat[i, : 11 * 96].view(11, 96)
        for k in range(5):
            expected = weight @ hidden[i, k] + flat[i, 11 * 96 :]
            torch.testing.assert_close(out[i, k], expected, rtol=1e-5, atol=1e-5)


def test_a_generator_reads_its_upload_in_one_way() -> None:
    with pytest.raises(ConfigError, match="adr and sequence"):
        HeadGeneratorConfig(sequence=SequenceReaderConfig())
    with pytest.raises(ConfigError, match="static_base=True"):
        HeadGeneratorConfig(form="film", static_base=False)
    assert HeadGeneratorConfig().num_uploaded == 1
    assert HeadGeneratorConfig(adr=None, sequence=SequenceReaderConfig(num_frames=4)).num_uploaded == 4
