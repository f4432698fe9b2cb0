"""Files like the official ones, filled with random numbers."""

import dataclasses

import torch
from torch import Tensor

from hyperfleet.nn import EncoderConfig
from hyperfleet.nn.encoder_config import all_in_one_ti, tiny

DIM = 192
Shapes = dict[str, tuple[int, ...]]


def small() -> EncoderConfig:
    """Two blocks and 50 words, but All-in-One's text length."""
    return dataclasses.replace(tiny(50), text_length=40)


def _linear(name: str, num_in: int, num_out: int) -> Shapes:
    return {f"{name}.weight": (num_out, num_in), f"{name}.bias": (num_out,)}


def _norm(name: str, width: int = DIM) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def vision_shapes(config: EncoderConfig) -> Shapes:
    hidden = int(config.mlp_ratio * DIM)
    shapes: Shapes = {
        "cls_token": (1, 1, DIM),
        "pos_embed": (1, config.num_patches + 1, DIM),
        "patch_embed.proj.weight": (DIM, 3, config.patch_size, config.patch_size),
        "patch_embed.proj.bias": (DIM,),
    }
    for depth in range(config.depth):
        block = f"blocks.{depth}"
        shapes |= _norm(f"{block}.norm1") | _norm(f"{block}.norm2")
        shapes |= _linear(f"{block}.attn.qkv", DIM, 3 * DIM) | dict(_linear(f"{block}.attn.proj", DIM, DIM))
        shapes |= _linear(f"{block}.mlp.fc1", DIM, hidden) | dict(_linear(f"{block}.mlp.fc2", hidden, DIM))
    return shapes | _norm("norm")


def random_tensors(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def head_tensors(*heads: str, num_classes: int = 7, width: int = 256) -> dict[str, Tensor]:
    known = {
        "vqa_classifier": {
            **_linear("vqa_classifier.1", DIM, 96),
            **_norm("vqa_classifier.2", 96),
            **_linear("vqa_classifier.4", 96, num_classes),
        },
        "rank_output": _linear("rank_output", DIM, 1),
        "itm_score": _linear("itm_score.fc", DIM, 2),
        "vid_proj": _linear("vid_proj", DIM, width),
        "txt_proj": _linear("txt_proj", DIM, width),
    }
    return random_tensors({k: v for head in heads for k, v in known[head].items()}, seed=1)


def official_checkpoint(config: EncoderConfig, *heads: str, **sizes: int) -> dict[str, Tensor]:
    """Return the state_dict of an All-in-One with its pretraining heads and `heads`."""
    text = "text_embeddings"
    shapes: Shapes = {
        f"{text}.word_embeddings.weight": (config.vocab_size, DIM),
        f"{text}.position_embeddings.weight": (config.text_length, DIM),
        f"{text}.token_type_embeddings.weight": (2, DIM),
        **_norm(f"{text}.LayerNorm"),
        "token_type_embeddings.weight": (2, DIM),
        "transformer.temporal_embed": (1, config.num_frames, DIM),
        **{f"transformer.{name}": shape for name, shape in vision_shapes(config).items()},
        **_linear("pooler.dense", DIM, DIM),
        "mlm_score.bias": (config.vocab_size,),
        **_linear("mlm_score.transform.dense", DIM, DIM),
        **_norm("mlm_score.transform.LayerNorm"),
        "mlm_score.decoder.weight": (config.vocab_size, DIM),
    }
    return {
        **random_tensors(shapes),
        f"{text}.position_ids": torch.arange(config.text_length)[None],
        **head_tensors(*heads, **sizes),
    }


def deit_checkpoint() -> dict[str, Tensor]:
    return random_tensors(vision_shapes(all_in_one_ti()) | _linear("head", DIM, 1000), seed=2)


def bert_checkpoint(num_words: int = 30522, wide: int = 200) -> dict[str, Tensor]:
    return random_tensors(
        {
            "bert.embeddings.word_embeddings.weight": (num_words, wide),
            "bert.embeddings.position_embeddings.weight": (512, wide),
            "bert.embeddings.token_type_embeddings.weight": (2, wide),
            "bert.embeddings.LayerNorm.gamma": (wide,),
            "bert.embeddings.LayerNorm.beta": (wide,),
            "bert.pooler.dense.bias": (wide,),
        },
        seed=3,
    )
