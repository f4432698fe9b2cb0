"""D-Param and C-Param of the papers, to the digit."""

import pytest
from torch import nn

from hyperfleet.messages import FEATURE_BYTES, HeadLayout
from hyperfleet.nn import AnchorReasonerConfig, DeviceModel, HeadGenerator, HeadGeneratorConfig
from hyperfleet.nn.anchor_reasoner import VariationalAutoencoder
from hyperfleet.nn.encoder_config import all_in_one_ti

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


@pytest.mark.parametrize(
    ("num_classes", "expected"), [(1501, 28_100_221), (1001, 18_739_721), (1541, 28_849_061)]
)
def test_plain_hypernetwork_parameters(num_classes: int, expected: int) -> None:
    assert count(HeadGenerator(F_HYPER, HeadLayout(num_classes=num_classes))) == expected


@pytest.mark.parametrize(("num_classes", "num_bytes"), [(1501, 582_388), (1001, 388_388), (1541, 597_908)])
def test_head_bytes(num_classes: int, num_bytes: int) -> None:
    assert HeadLayout(num_classes=num_classes).num_bytes == num_bytes
    assert FEATURE_BYTES == 768


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
