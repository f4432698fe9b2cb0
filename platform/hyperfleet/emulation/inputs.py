"""Inputs of a run that depend on the models: cost of a sample, size of a reply, required memory."""

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.emulation.timeline.engine import Work
from hyperfleet.errors import ConfigError
from hyperfleet.messages import FEATURE_BYTES, FEATURE_DIM, HeadLayout, ModelLabel, encode_heads
from hyperfleet.nn import DeviceModel
from hyperfleet.scenario.definition import Scenario

_MIB = 1 << 20


def work_of(device: DeviceModel, generator: ParameterGenerator, codec: str, label: ModelLabel) -> Work:
    """Return the cost of a sample: multiply-accumulates of the modules, bytes of real messages.

    Raises:
        ConfigError: the generator does not offer `codec`.
    """
    if codec not in generator.codecs:
        raise ConfigError(
            f"Scenario.codec must be one that {label.model} offers "
            f"({', '.join(generator.codecs)}), got {codec!r}"
        )
    head = generator.generate(np.zeros((1, FEATURE_DIM), np.float32))
    return Work(
        encode_gmacs=_encode_gmacs(device),
        apply_gmacs=device.layout.num_weights / 1e9,
        uplink_bytes=FEATURE_BYTES,
        downlink_bytes=len(encode_heads(head, codec=codec, label=label)),
    )


@torch.inference_mode()
def _encode_gmacs(device: DeviceModel) -> float:
    config = device.encoder.config
    size = config.image_size
    frames = torch.zeros(1, config.num_frames, size, size, 3, dtype=torch.uint8)
    token_ids = torch.ones(1, config.text_length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        device.encode(frames, token_ids, torch.ones_like(token_ids, dtype=torch.bool))
    return float(counter.get_total_flops()) / 2 / 1e9


def check_memory(scenario: Scenario, device: DeviceModel, layout: HeadLayout) -> None:
    """Check that every kind of device can hold the model and two heads, the present and the next.

    Raises:
        ConfigError: a profile with too little memory.
    """
    model_bytes = sum(parameter.numel() * parameter.element_size() for parameter in device.parameters())
    needed_mib = (model_bytes + 2 * layout.num_bytes) / _MIB
    for profile in scenario.profiles:
        if profile.memory_mib < needed_mib:
            raise ConfigError(
                f"DeviceProfile.memory_mib of {profile.name!r} must be at least {needed_mib:.1f} for this "
                f"model and two of its heads, got {profile.memory_mib}; remove this profile"
            )
