import dataclasses

import numpy as np
import pytest

from hyperfleet.emulation.inputs import check_memory, work_of
from hyperfleet.errors import ConfigError
from hyperfleet.messages import HeadLayout, HeadRequest, ModelLabel, encode_heads
from hyperfleet.nn import DeviceModel, EncoderConfig
from hyperfleet.scenario.definition import Scenario
from hyperfleet.scenario.profiles import PHONE, DeviceProfile
from tests.worlds.toy_generators import FORMS, generator_of

NUM_CLASSES = 20
NUM_PARAMS = 97 * NUM_CLASSES  # 96 weights and a bias for each class
LABEL = ModelLabel(model="m", version="1", task="vqa")
SMALL = EncoderConfig(name="small", image_size=32, depth=2, text_length=6, vocab_size=40, num_frames=3)
MIB = 1 << 20


def device_of(encoder: EncoderConfig = SMALL, num_classes: int = NUM_CLASSES) -> DeviceModel:
    return DeviceModel(encoder, num_classes).eval()


def encode_macs_by_hand(encoder: EncoderConfig) -> float:
    """Multiply-accumulates of one sample, from the architecture on paper."""
    width, hidden = 192, int(192 * encoder.mlp_ratio)
    patches = (encoder.image_size // encoder.patch_size) ** 2
    tokens = encoder.text_length + 1 + patches  # words, image class token, patches
    embedding = patches * 3 * encoder.patch_size**2 * width
    mlp = 2 * width * hidden
    whole_block = tokens * (4 * width**2 + mlp) + 2 * tokens**2 * width
    # Behind the last block one token is read: keys and values of all, all else of that one.
    last_block = tokens * 2 * width**2 + 2 * width**2 + mlp + 2 * tokens * width
    return encoder.num_frames * (embedding + (encoder.depth - 1) * whole_block + last_block)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"depth": 1},
        {"depth": 3, "num_frames": 2},
        {"image_size": 64, "mlp_ratio": 2.0},
        {"num_heads": 1, "text_length": 14},
    ],
    ids=str,
)
def test_encoding_takes_what_the_architecture_takes(changes: dict[str, object]) -> None:
    encoder = dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    work = work_of(device_of(encoder), generator_of("full"), "fp32", LABEL)
    assert work.encode_gmacs == pytest.approx(encode_macs_by_hand(encoder) / 1e9, rel=1e-9)


def test_the_papers_encoder_takes_what_its_size_says() -> None:
    # DeiT-Ti is 1.26 GMACs for one frame of 197 tokens (Touvron et al., ICML 2021, table 5: 1.3); with 40
    # words more it is a fifth more, less most of the last block, for three frames.
    work = work_of(device_of(EncoderConfig(vocab_size=40)), generator_of("full"), "fp32", LABEL)
    assert work.encode_gmacs == pytest.approx(encode_macs_by_hand(EncoderConfig()) / 1e9, rel=1e-9)
    assert 3 * 1.26 < work.encode_gmacs < 3 * 1.26 * 240 / 197


def test_applying_a_head_multiplies_each_weight_once() -> None:
    work = work_of(device_of(), generator_of("full"), "fp32", LABEL)
    assert work.apply_gmacs == pytest.approx(96 * NUM_CLASSES / 1e9)


CARRIED = [(form, codec) for form in FORMS for codec in generator_of(form).codecs]


@pytest.mark.parametrize(("form", "codec"), CARRIED)
def test_messages_are_as_large_as_those_that_a_client_sends(form: str, codec: str) -> None:
    generator = generator_of(form)
    work = work_of(device_of(), generator, codec, LABEL)
    features = np.random.default_rng(0).standard_normal((1, 192), dtype=np.float32)
    reply = encode_heads(generator.generate(features), codec=codec, label=LABEL)
    assert work.uplink_bytes == len(HeadRequest(features=features).to_bytes()) == 192 * 4
    assert work.downlink_bytes == len(reply)


@pytest.mark.parametrize(("codec", "bytes_each"), [("fp32", 4), ("fp16", 2), ("bf16", 2), ("int8", 1)])
def test_a_reply_is_its_numbers_and_a_short_header(codec: str, bytes_each: int) -> None:
    num_bytes = work_of(device_of(), generator_of("full"), codec, LABEL).downlink_bytes
    # int8 has a scale for each class.
    scales = 4 * NUM_CLASSES if codec == "int8" else 0
    assert 0 < num_bytes - NUM_PARAMS * bytes_each < 600 + scales


def test_a_codec_that_heads_cannot_travel_in_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Scenario\.codec must be one that m offers \(fp32, .*got 'rank4'"):
        work_of(device_of(), generator_of("no base"), "rank4", LABEL)


def scenario(*memory_mib: float) -> Scenario:
    profiles = tuple(
        DeviceProfile(name=f"device {index}", memory_mib=each) for index, each in enumerate(memory_mib)
    )
    return Scenario(name="memory", profiles=profiles)


def test_a_device_must_hold_its_model_and_two_heads() -> None:
    device, layout = device_of(), HeadLayout(num_classes=NUM_CLASSES)
    parameters = sum(parameter.numel() for parameter in device.parameters())
    needed_mib = 4 * (parameters + 2 * NUM_PARAMS) / MIB
    check_memory(scenario(needed_mib, 1000.0), device, layout)
    too_little = needed_mib - 1 / MIB
    with pytest.raises(
        ConfigError, match=rf"DeviceProfile.memory_mib of 'device 1' must be at least {needed_mib:.1f}"
    ):
        check_memory(scenario(1000.0, too_little), device, layout)


def test_weights_of_half_the_size_need_half_the_memory() -> None:
    device, layout = device_of().half(), HeadLayout(num_classes=NUM_CLASSES)
    parameters = sum(parameter.numel() for parameter in device.parameters())
    check_memory(scenario((2 * parameters + 8 * NUM_PARAMS) / MIB), device, layout)


def test_a_phone_holds_the_papers_model() -> None:
    device = device_of(EncoderConfig(), 1501)
    check_memory(Scenario(name="phones", profiles=(PHONE,)), device, HeadLayout(num_classes=1501))
    with pytest.raises(ConfigError, match="'toy'"):
        check_memory(
            Scenario(name="toys", profiles=(PHONE, DeviceProfile(name="toy", memory_mib=16.0))),
            device,
            HeadLayout(num_classes=1501),
        )
