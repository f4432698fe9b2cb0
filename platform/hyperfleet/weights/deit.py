"""DeiT-Ti's ImageNet weights for the blocks of All-in-One-Ti, which have the same names in timm."""

from collections.abc import Mapping
from pathlib import Path

import torch
from timm.models import get_pretrained_cfg
from torch import Tensor

from hyperfleet.nn import EncoderConfig
from hyperfleet.weights.conversion import ConvertedWeights, refuse_mismatch
from hyperfleet.weights.local_cache import cached_hub_file, cached_torch_file

_MODEL = "deit_tiny_patch16_224"
_FILES = ("model.safetensors", "pytorch_model.bin")
_PREFIX = "encoder.transformer."
_TEMPORAL = f"{_PREFIX}temporal_embed"


def has_deit_blocks(config: EncoderConfig) -> bool:
    """Return whether the frames of `config` go through the blocks of DeiT-Ti."""
    shape = (config.image_size, config.patch_size, config.depth, config.num_heads, config.mlp_ratio)
    return shape == (224, 16, 12, 3, 4.0)


def cached_deit_tiny() -> Path | None:
    """Return the file of DeiT-Ti's weights in the local caches of Hugging Face or torch.hub, if any."""
    config = get_pretrained_cfg(_MODEL)
    if config is None:
        return None
    cached = cached_hub_file([config.hf_hub_id], _FILES) if config.hf_hub_id else None
    return cached or (cached_torch_file(config.url) if isinstance(config.url, str) else None)


def convert_deit_tiny(checkpoint: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> ConvertedWeights:
    """Give DeiT-Ti's tensors the names of a device model; its classifier is discarded.

    The temporal embedding, which DeiT lacks, becomes zero, as in All-in-One.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape.
    """
    discarded = {name: "ImageNet's classifier" for name in checkpoint if name.startswith("head.")}
    found = {f"{_PREFIX}{name}": tensor for name, tensor in checkpoint.items() if name not in discarded}
    expected = {
        name: tensor for name, tensor in target.items() if name.startswith(_PREFIX) and name != _TEMPORAL
    }
    refuse_mismatch(
        "the checkpoint of DeiT-Ti",
        found,
        expected,
        unexpected=found.keys() - expected.keys(),
        remedy=f"it fits the encoder all_in_one_ti and comes from timm's {_MODEL}",
    )
    tensors = {name: tensor.to(target[name].dtype) for name, tensor in found.items()}
    tensors[_TEMPORAL] = torch.zeros_like(target[_TEMPORAL])
    return ConvertedWeights(tensors=tensors, adapted={_TEMPORAL: "not in DeiT: zeros"}, discarded=discarded)
