"""Random features and untrained generators of each form of head, small enough to compare number by number."""

from functools import cache

import numpy as np
import torch

from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.emulation.answering import FeatureTable
from hyperfleet.messages import HeadLayout
from hyperfleet.nn import HeadGenerator, HeadGeneratorConfig

LAYOUT = HeadLayout(num_classes=20)
FORMS = ("full", "low_rank", "film", "no base")


class CountingGenerator(ParameterGenerator):
    """Records the number of heads of each call."""

    asked: list[int]

    def generate(self, features):
        self.asked.append(len(features))
        return super().generate(features)


@cache
def generator_of(form: str) -> CountingGenerator:
    """Return an untrained generator of a form of head; each form is built once."""
    torch.manual_seed(0)
    generated = "full" if form == "no base" else form
    config = HeadGeneratorConfig(adr=None, form=generated, rank=2, static_base=form != "no base")
    module = HeadGenerator(config, LAYOUT).requires_grad_(False)
    for parameter in module.emitter.parameters():
        parameter.normal_(std=0.05)
    if form != "no base":
        module.base.normal_(std=0.1)
    generator = CountingGenerator(module)
    generator.asked = []
    return generator


def table_of(num_samples: int, seed: int = 0) -> FeatureTable:
    """Return random features; every three samples belong to one device."""
    rng = np.random.default_rng(seed)
    return FeatureTable(
        device_id=np.arange(num_samples) // 3,
        example_id=np.arange(num_samples) + 100,
        anchor=rng.standard_normal((num_samples, 192), dtype=np.float32),
        hidden=rng.standard_normal((num_samples, 96), dtype=np.float32),
        base_answer=np.full(num_samples, 77, np.int32),
        static_answer=np.full(num_samples, 78, np.int32),
    )
