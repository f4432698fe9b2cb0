"""Counted cost of a head."""

import pytest
import torch

from hyperfleet.methods import METHODS
from hyperfleet.nn import HeadGenerator, HeadGeneratorConfig, TemplateBankConfig, head_layout
from hyperfleet.papers.experiments.cost import cost_of, count_params, example_upload, macs_of
from hyperfleet.tasks import MULTIPLE_CHOICE, RETRIEVAL
from tests.worlds.toy_training import EMBEDDING_DIM, NUM_CLASSES, trainer

MSRVTT = head_layout(1501, "answers")
F_P = 2 * 192 * 96


@pytest.mark.parametrize(
    ("method", "front", "generator"),
    [
        ("f_hyper", 0, 27_954_624),
        ("cdc_mmpg_fda", F_P, 27_954_624),
        # The reasoner's encoder ends in mean and variance of 64, its decoder mirrors it.
        ("cdc_mmpg", F_P + 192 * 512 + 512 * 256 + 256 * 128 + 64 * 256 + 256 * 512 + 512 * 192, 27_954_624),
        ("duet", 5 * 2 * 3 * 192 * 192 + 2 * 192 * 192, 27_954_624),
    ],
)
def test_multiplications_of_the_papers_methods(method: str, front: int, generator: int) -> None:
    config = METHODS[method].generator_config
    assert config is not None
    assert macs_of(HeadGenerator(config, MSRVTT)) == (front, generator)


@pytest.mark.parametrize(("form", "expected"), [("low_rank", 2_741_184), ("film", 36_864)])
def test_multiplications_of_cheaper_heads(form: str, expected: int) -> None:
    config = HeadGeneratorConfig(projector_hidden=None, adr=None, form=form)  # type: ignore[arg-type]
    assert macs_of(HeadGenerator(config, MSRVTT)) == (0, expected)


def test_front_end_of_1501_templates_takes_what_the_paper_prints_for_the_whole() -> None:
    config = HeadGeneratorConfig(adr=None, templates=TemplateBankConfig(num_categories=1501))
    generator = HeadGenerator(config, MSRVTT)
    assert generator.templates is not None
    generator.templates.seen.fill_(True)
    front, _ = macs_of(generator)
    # Cosines with all templates, their mixture, and f_p: 0.62M are printed.
    assert front == 2 * 192 * 1501 + F_P == 613_248


def test_counting_leaves_the_generator_as_it_was() -> None:
    generator = HeadGenerator(HeadGeneratorConfig(), head_layout(7, "answers")).train()
    macs_of(generator)
    assert generator.training
    assert all(p.grad is None for p in generator.parameters())


def test_a_static_head_costs_the_cloud_nothing() -> None:
    run = trainer(method="fine_tuning")
    cost = cost_of(run.model, timed=False)
    assert cost.device_params == count_params(run.model)
    assert (cost.cloud_params, cost.front_macs, cost.generator_macs) == (0, 0, 0)
    assert (cost.upload_bytes, cost.download_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("change", "upload", "download"),
    [
        ({"method": "cdc_mmpg"}, 768, 4 * 97 * NUM_CLASSES),
        ({"method": "duet"}, 5 * 768, 4 * 97 * NUM_CLASSES),
        ({"method": "cdc_mmpg_film"}, 768, 768),
        ({"method": "cdc_mmpg", "task": MULTIPLE_CHOICE}, 768, 772),
        ({"method": "cdc_mmpg", "task": RETRIEVAL}, 768, 4 * 193 * EMBEDDING_DIM),
    ],
)
def test_bytes_each_way(change: dict[str, str], upload: int, download: int) -> None:
    model = trainer(**change).model
    cost = cost_of(model, timed=False)
    assert (cost.upload_bytes, cost.download_bytes) == (upload, download)
    assert cost.device_params == count_params(model.device)
    assert cost.cloud_params == count_params(model) - cost.device_params
    assert example_upload(model.generator).numel() * 4 == upload


def test_times_are_taken_on_one_thread_and_leave_the_callers_setting() -> None:
    before = torch.get_num_threads()
    cost = cost_of(trainer(method="cdc_mmpg").model)
    assert torch.get_num_threads() == before
    assert min(cost.generate_s, cost.apply_s) > 0
