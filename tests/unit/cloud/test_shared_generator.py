import pickle

import numpy as np
import pytest
import torch

from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.cloud.shared_generator import SharedGenerator
from hyperfleet.messages import HeadLayout
from hyperfleet.nn import HeadGenerator, HeadGeneratorConfig, TemplateBankConfig

CONFIGS = {
    "adr": HeadGeneratorConfig(),
    "templates": HeadGeneratorConfig(adr=None, templates=TemplateBankConfig(num_categories=3)),
    "low rank": HeadGeneratorConfig(adr=None, form="low_rank", rank=2, emitter_hidden=16),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_generator_around_mapped_weights_is_the_same_and_copies_none(config) -> None:
    torch.manual_seed(0)
    module = HeadGenerator(config, HeadLayout(num_classes=9)).requires_grad_(False).eval()
    module.base.normal_()
    features = np.random.default_rng(0).standard_normal((5, 192), dtype=np.float32)
    buffers = []
    data = pickle.dumps(SharedGenerator.of(module), protocol=5, buffer_callback=buffers.append)
    # Memory as Ray maps it: of another process, not to be written to.
    mapped = [memoryview(bytes(buffer.raw())).toreadonly() for buffer in buffers]
    shared = pickle.loads(data, buffers=mapped)
    opened = shared.open()
    expected = ParameterGenerator(module).generate(features)
    torch.testing.assert_close(opened.generate(features).full(), expected.full(), rtol=0, atol=1e-5)
    weight = shared.arrays["f_h.3.weight" if config.emitter_hidden else "f_h.weight"]
    assert opened._emit.weight.data_ptr() == weight.ctypes.data
    assert opened.base.id == expected.base.id
