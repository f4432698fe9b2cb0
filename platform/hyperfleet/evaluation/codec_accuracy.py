"""Bytes and accuracy of each head codec, measured on the devices' live samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int
from torch.linalg import vector_norm

from hyperfleet.cloud.generator import ParameterGenerator
from hyperfleet.head_codecs import CODECS, DEFAULT_CODEC
from hyperfleet.messages import HeadReply, ModelLabel, encode_heads

# The static head answers all samples: no head crosses the link.
NO_HEAD = "static head"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LiveFeatures:
    """Features that devices computed from live samples, and the labels, which only the scorer knows."""

    anchor: Float32[np.ndarray, "sample 192"]
    hidden: Float32[np.ndarray, "sample 96"]
    label: Int[np.ndarray, " sample"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CodecResult:
    """Result of one codec on all samples.

    Attributes:
        codec: name of the codec, or `NO_HEAD`.
        head_bytes: size of the tensors of one head.
        reply_bytes: size of a full reply with one head.
        correct: mask of the samples that were answered right.
        relative_error: mean over heads of |decoded - generated| / |generated - static|, norms over all
            parameters; at 1 the generated part is lost.
    """

    codec: str
    head_bytes: int
    reply_bytes: int
    correct: Bool[np.ndarray, " sample"]
    relative_error: float


def measure_codecs(
    generator: ParameterGenerator,
    batches: Iterable[LiveFeatures],
    *,
    label: ModelLabel,
) -> tuple[CodecResult, ...]:
    """Encode every head with every codec that can carry it, decode it, and answer with the result.

    Args:
        generator: makes one head per sample.
        batches: samples in batches whose heads fit into memory.
        label: model label of the replies.

    Returns:
        The static head first, if there is one, then the codecs.
    """
    names = generator.codecs
    correct: dict[str, list[np.ndarray]] = {name: [] for name in (NO_HEAD, *names)}
    errors: dict[str, list[np.ndarray]] = {name: [] for name in (NO_HEAD, *names)}
    reply_bytes = dict.fromkeys(names, 0)
    for live in batches:
        generated = generator.generate(live.anchor)
        offset_norm = vector_norm(generated.offsets(), dim=1) if generated.base is not None else None
        size = offset_norm if offset_norm is not None else vector_norm(generated.full(), dim=1)
        if generated.base is not None:
            correct[NO_HEAD].append(generated.base.scores(live.hidden).argmax(axis=1) == live.label)
            errors[NO_HEAD].append(np.ones(len(live.label)))
        for name in names:
            body = encode_heads(generated, codec=name, label=label)
            reply = HeadReply.from_bytes(
                body, expected=generator.layout, num_heads=len(generated), base=generator.base
            )
            correct[name].append(reply.heads.scores(live.hidden).argmax(axis=1) == live.label)
            error = vector_norm(reply.heads.dense() - generated.full(), dim=1)
            errors[name].append((error / size).nan_to_num(posinf=0.0).numpy())
            if not reply_bytes[name]:
                alone = generator.generate(live.anchor[:1])
                reply_bytes[name] = len(encode_heads(alone, codec=name, label=label))
    return tuple(
        CodecResult(
            codec=name,
            head_bytes=CODECS[name].num_bytes(generator.layout) if name in CODECS else 0,
            reply_bytes=reply_bytes.get(name, 0),
            correct=np.concatenate(correct[name]),
            relative_error=float(np.concatenate(errors[name]).mean()),
        )
        for name in correct
        if correct[name]
    )


def reference(results: Sequence[CodecResult]) -> CodecResult:
    """Return the exact codec's result, the baseline of the others."""
    return next(result for result in results if result.codec == DEFAULT_CODEC)
