"""DUET's reader, ported from clicks to frames."""

import pytest
import torch

from hyperfleet.errors import ConfigError
from hyperfleet.nn import (
    HeadGenerator,
    HeadGeneratorConfig,
    SequenceReader,
    SequenceReaderConfig,
    head_layout,
)
from hyperfleet.papers.experiments.cost import macs_of

GRU = 2 * 3 * 192 * 192 + 2 * 3 * 192
MLP = 2 * (192 * 192 + 192)


def test_parameters_of_reader_and_generator() -> None:
    assert sum(p.numel() for p in SequenceReader(SequenceReaderConfig()).parameters()) == GRU + MLP


def test_multiplications_for_1501_answers() -> None:
    config = HeadGeneratorConfig(projector_hidden=None, adr=None, sequence=SequenceReaderConfig())
    front, generator = macs_of(HeadGenerator(config, head_layout(1501, "answers")))
    assert front == 5 * 2 * 3 * 192 * 192 + 2 * 192 * 192
    assert generator == 192 * 97 * 1501
    assert round((front + generator) / 1e6, 1) == 29.1


def test_reader_equals_a_loop_over_the_frames() -> None:
    reader = SequenceReader(SequenceReaderConfig(hidden=16))
    features = torch.randn(3, 5, 192)
    state = torch.zeros(3, 16)
    gru = reader.gru
    for frame in features.unbind(dim=1):
        by_input = (frame @ gru.weight_ih_l0.T + gru.bias_ih_l0).chunk(3, dim=1)
        by_state = (state @ gru.weight_hh_l0.T + gru.bias_hh_l0).chunk(3, dim=1)
        reset = torch.sigmoid(by_input[0] + by_state[0])
        update = torch.sigmoid(by_input[1] + by_state[1])
        proposed = torch.tanh(by_input[2] + reset * by_state[2])
        state = (1 - update) * proposed + update * state
    first, _, second = reader.mlp
    expected = second(torch.tanh(first(state)))
    torch.testing.assert_close(reader(features), expected, rtol=1e-5, atol=1e-5)


def test_the_order_of_the_frames_matters() -> None:
    reader = SequenceReader(SequenceReaderConfig())
    features = torch.randn(3, 5, 192)
    assert (reader(features) - reader(features.flip(1))).abs().max() > 1e-3


def test_every_parameter_learns_also_those_that_emit_the_weights() -> None:
    config = HeadGeneratorConfig(projector_hidden=None, adr=None, sequence=SequenceReaderConfig())
    generator = HeadGenerator(config, head_layout(7, "answers"))
    static = torch.nn.Linear(96, 7)
    generator.outputs(torch.randn(4, 5, 192), torch.randn(4, 1, 96), static).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())
    assert not generator.uploads_one_feature


@pytest.mark.parametrize("change", [{"num_frames": 0}, {"hidden": 0}])
def test_impossible_readers_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="num_frames and hidden >= 1"):
        SequenceReaderConfig(**change)
