"""D-Param and C-Param of the papers, to the digit."""

import pytest
import torch
from torch import nn

from hyperfleet.messages import FEATURE_BYTES, HeadLayout
from hyperfleet.nn import AnchorReasonerConfig, DeviceModel, HeadGenerator, HeadGeneratorConfig, head_layout
from hyperfleet.nn.anchor_reasoner import VariationalAutoencoder
from hyperfleet.nn.encoder_config import all_in_one_ti

pytestmark = pytest.mark.heavy

F_HYPER = HeadGeneratorConfig(projector_hidden=None, adr=None)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("num_classes", "expected", "printed"),
    [(1501, 11_595_421, "11.6M"), (1001, 11_546_921, "11.5M"), (1541, 11_599_301, "11.6M")],
)
def test_device_parameters(num_classes: int, expected: int, printed: str) -> None:
    got = count(DeviceModel(all_in_one_ti(), num_classes))
    assert got == expected
    assert f"{got / 1e6:.1f}M" == printed


def test_encoder_with_pooler() -> None:
    device = DeviceModel(all_in_one_ti(), 1501)
    assert count(device.encoder) + count(device.pooler) == 11_431_104


def test_device_parameters_of_multiple_choice() -> None:
    device = DeviceModel(all_in_one_ti(), 1, "candidates")
    assert count(device) == 11_431_683
    assert count(device) - count(device.encoder) - count(device.pooler) == 579


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (head_layout(1501, "answers"), 28_100_221),
        (head_layout(1001, "answers"), 18_739_721),
        (head_layout(1541, "answers"), 28_849_061),
        (head_layout(1, "candidates"), 37_249),
        (head_layout(256, "embedding"), 9_535_744),
    ],
    ids=["msrvtt-qa", "msvd-qa", "frameqa", "multiple choice", "retrieval"],
)
def test_plain_hypernetwork_parameters(layout: HeadLayout, expected: int) -> None:
    assert count(HeadGenerator(F_HYPER, layout)) == expected


@pytest.mark.parametrize(("num_classes", "num_bytes"), [(1501, 582_388), (1001, 388_388), (1541, 597_908)])
def test_head_bytes(num_classes: int, num_bytes: int) -> None:
    layout = head_layout(num_classes, "answers")
    assert layout.num_bytes == num_bytes
    with torch.device("meta"):
        assert HeadGenerator(F_HYPER, layout).payload_bytes == num_bytes


def test_bytes_of_a_feature_and_of_the_heads_of_other_tasks() -> None:
    assert FEATURE_BYTES == 768
    assert head_layout(1, "candidates").num_bytes == 772
    assert head_layout(256, "embedding").num_bytes == 193 * 1024


@pytest.mark.parametrize(
    ("config", "extra"),
    [
        (HeadGeneratorConfig(), 547_104),
        (
            HeadGeneratorConfig(
                projector_hidden=None, adr=AnchorReasonerConfig(hidden=(4096, 2048), latent=1536)
            ),
            27_802_816,
        ),
        (
            HeadGeneratorConfig(
                projector_hidden=192, adr=AnchorReasonerConfig(hidden=(4096, 1024), latent=2048)
            ),
            27_773_056 - 11_431_104,
        ),
        (
            HeadGeneratorConfig(projector_hidden=384, adr=AnchorReasonerConfig(hidden=(3072,), latent=2048)),
            20_213_248,
        ),
    ],
    ids=["small", "open_A", "B, whose count includes the encoder in the cloud", "mc_A"],
)
def test_anchor_reasoner_and_projector_parameters(config: HeadGeneratorConfig, extra: int) -> None:
    assert count(HeadGenerator(config, HeadLayout(num_classes=1001))) == 18_739_721 + extra


def test_autoencoder_of_three_frames() -> None:
    assert count(VariationalAutoencoder(576, (4096, 2048), 1024)) == 27_802_176
