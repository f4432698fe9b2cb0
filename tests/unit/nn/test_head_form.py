"""Full, low-rank and film heads: applied in pieces they equal the full head that a device would hold."""

import math

import pytest
import torch
from torch import nn

from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs import GeneratedForm
from hyperfleet.head_codecs.factors import split_factors
from hyperfleet.messages import HeadLayout
from hyperfleet.nn import HeadGenerator, HeadGeneratorConfig, head_layout
from hyperfleet.nn.head_form import LowRankHead, head_form

MSRVTT = head_layout(1501, "answers")
LAYOUT = HeadLayout(num_classes=11)
FORMS: tuple[GeneratedForm, ...] = ("full", "low_rank", "film")
TASK_LAYOUTS = {
    "answers": LAYOUT,
    "candidates": head_layout(1, "candidates"),
    "embedding": head_layout(16, "embedding"),
}


def flat(head: nn.Linear) -> torch.Tensor:
    return torch.cat([head.weight.flatten(), head.bias]).detach()


def naive_outputs(heads: torch.Tensor, hidden: torch.Tensor, layout: HeadLayout) -> torch.Tensor:
    rows = []
    for i in range(len(heads)):
        weight = heads[i, : layout.num_classes * layout.hidden].view(layout.num_classes, layout.hidden)
        bias = heads[i, layout.num_classes * layout.hidden :]
        rows.append(torch.stack([weight @ item + bias for item in hidden[i]]))
    return torch.stack(rows)


@pytest.mark.parametrize("readout", TASK_LAYOUTS)
@pytest.mark.parametrize("name", FORMS)
def test_outputs_equal_the_whole_heads_applied_one_by_one(name: GeneratedForm, readout: str) -> None:
    layout = TASK_LAYOUTS[readout]
    form = head_form(name, layout, min(4, layout.num_classes))
    static = nn.Linear(layout.hidden, layout.num_classes)
    generated, hidden = torch.randn(6, form.num_generated), torch.randn(6, 5, layout.hidden)
    with torch.no_grad():
        got = form.outputs(generated, hidden, static)
    heads = form.materialise(generated, flat(static))
    assert heads.shape == (6, layout.num_params)
    torch.testing.assert_close(got, naive_outputs(heads, hidden, layout), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["full", "low_rank"])
def test_without_a_static_head_the_generated_part_stands_alone(name: GeneratedForm) -> None:
    form = head_form(name, LAYOUT, 4)
    generated, hidden = torch.randn(6, form.num_generated), torch.randn(6, 2, 96)
    heads = form.materialise(generated, torch.zeros(LAYOUT.num_params))
    expected = naive_outputs(heads, hidden, LAYOUT)
    torch.testing.assert_close(form.outputs(generated, hidden, None), expected, rtol=1e-4, atol=1e-3)


def test_film_without_a_static_head_is_refused() -> None:
    with pytest.raises(ConfigError, match="modulates the static head"):
        head_form("film", LAYOUT, 1).outputs(torch.randn(2, 192), torch.randn(2, 1, 96), None)


def test_low_rank_offset_has_that_rank_and_film_keeps_the_static_directions() -> None:
    low_rank = head_form("low_rank", LAYOUT, 3)
    heads = low_rank.materialise(torch.randn(2, low_rank.num_generated), torch.zeros(LAYOUT.num_params))
    weight = heads[:, : 11 * 96].unflatten(1, (11, 96))
    assert torch.linalg.matrix_rank(weight).tolist() == [3, 3]
    base = torch.randn(LAYOUT.num_params)
    film = head_form("film", LAYOUT, 1).materialise(
        torch.cat([torch.ones(1, 96), torch.zeros(1, 96)], 1), base
    )
    torch.testing.assert_close(film[0, : 11 * 96], 2 * base[: 11 * 96])
    torch.testing.assert_close(film[0, 11 * 96 :], base[11 * 96 :])


@pytest.mark.parametrize(
    ("config", "num_params", "kib"),
    [
        ({"form": "full"}, 28_100_221, 568.74),
        ({"form": "low_rank", "rank": 8}, 2_755_461, 55.77),
        ({"form": "film"}, 37_056, 0.75),
    ],
    ids=FORMS,
)
def test_parameters_of_the_generator_and_bytes_of_a_head(
    config: dict[str, object], num_params: int, kib: float
) -> None:
    # Counted for 1,501 answers and a bare hypernetwork; on "meta" nothing is allocated.
    with torch.device("meta"):
        generator = HeadGenerator(
            HeadGeneratorConfig(projector_hidden=None, adr=None, **config),  # type: ignore[arg-type]
            MSRVTT,
        )
    assert sum(p.numel() for p in generator.parameters()) == num_params
    assert round(generator.payload_bytes / 1024, 2) == kib


@pytest.mark.parametrize("name", FORMS)
def test_the_generator_emits_as_many_numbers_as_its_form_asks_for(name: GeneratedForm) -> None:
    generator = HeadGenerator(HeadGeneratorConfig(form=name, rank=4), LAYOUT)
    numbers = {"full": 11 * 97, "low_rank": 4 * (11 + 96) + 11, "film": 2 * 96}
    assert generator.generate(torch.randn(3, 192)).shape == (3, numbers[name])
    assert generator(torch.randn(3, 192)).shape == (3, LAYOUT.num_params)


@pytest.mark.parametrize("name", ["low_rank", "film"])
def test_cheap_heads_start_as_the_static_one_and_can_leave_it(name: GeneratedForm) -> None:
    generator = HeadGenerator(HeadGeneratorConfig(form=name, rank=4), LAYOUT)
    static = nn.Linear(96, 11)
    hidden = torch.randn(8, 1, 96)
    out = generator.outputs(torch.randn(8, 192), hidden, static)
    torch.testing.assert_close(out, static(hidden))
    out.square().sum().backward()
    weight_grad = generator.f_h.weight.grad
    if name == "low_rank":
        # U is zero and V is not, so that U moves at the first step; with both zero nothing ever would.
        assert (weight_grad[: 11 * 4].abs().sum(dim=1) > 0).all()
        assert generator.f_h.weight[11 * 4 : (11 + 96) * 4].abs().sum() > 0
    else:
        assert (weight_grad.abs().sum(dim=1) > 0).all()


def logit_deviation(config: HeadGeneratorConfig) -> float:
    torch.manual_seed(0)
    generator = HeadGenerator(config, HeadLayout(num_classes=301))
    hidden = torch.randn(64, 1, 96)
    with torch.no_grad():
        generated = generator.generate(generator.reason(torch.randn(64, 192)))
        return generator.form.outputs(generated, hidden, None).std().item()


def test_hyperfan_keeps_the_logits_at_unit_scale_where_the_default_does_not() -> None:
    bare = {"projector_hidden": None, "adr": None}
    assert logit_deviation(HeadGeneratorConfig(**bare, static_base=False)) == pytest.approx(1, abs=0.1)
    assert logit_deviation(HeadGeneratorConfig(**bare, offset_init=0.1)) == pytest.approx(0.1, abs=0.01)
    default = logit_deviation(HeadGeneratorConfig(**bare, static_base=False, init="torch"))
    assert default == pytest.approx(5.7, abs=0.3)


def test_hyperfan_of_the_low_rank_factor_keeps_its_input_at_unit_scale() -> None:
    torch.manual_seed(0)
    form = LowRankHead(MSRVTT, 8)
    emitter = nn.Linear(192, form.num_generated)
    form.init_(emitter, 1.0)
    with torch.no_grad():
        _, down, _ = split_factors(emitter(torch.randn(64, 192)), form.layout)
    inner = torch.einsum("nrh,nh->nr", down, torch.randn(64, 96))
    assert inner.std().item() == pytest.approx(1, abs=0.15)
    assert down.std().item() == pytest.approx(1 / math.sqrt(96), rel=0.1)


@pytest.mark.parametrize("rank", [0, 12])
def test_ranks_that_save_nothing_are_refused(rank: int) -> None:
    with pytest.raises(ConfigError, match="ranks 1 to 11"):
        head_form("low_rank", LAYOUT, rank)


def test_the_score_of_multiple_choice_has_no_factors_of_rank_8() -> None:
    with pytest.raises(ConfigError, match="1 x 192 weights has ranks 1 to 1, got 8"):
        head_form("low_rank", head_layout(1, "candidates"), 8)
