"""Released All-in-One checkpoints as weights of a device model (https://github.com/showlab/all-in-one)."""

from collections.abc import Mapping, Set
from types import MappingProxyType

import torch
from torch import Tensor

from hyperfleet.weights.conversion import ConvertedWeights, refuse_mismatch

_TEMPORAL = "encoder.transformer.temporal_embed"
_POSITIONS = "encoder.text_embeddings.position_embeddings.weight"
# A buffer of older transformers, 0 ... length - 1.
_POSITION_IDS = "text_embeddings.position_ids"
# Heads of pretraining and of tasks, which a checkpoint may have and a device model may lack.
_KNOWN_HEADS = (
    "mlm_score",
    "mpp_score",
    "itm_score",
    "pooler",
    "vqa_classifier",
    "mc_vqa_classifier",
    "nlvr2_classifier",
    "vcop_classifier",
    "rank_output",
    "rank_output_2",
    "vid_proj",
    "txt_proj",
)

# Modules after the encoder by the device model's readout, under All-in-One's names:
# an answer, a score per candidate, or an embedding.
_ANSWER_HEADS = MappingProxyType(
    {"trunk.1": "vqa_classifier.1", "trunk.2": "vqa_classifier.2", "head": "vqa_classifier.4"}
)
_CANDIDATE_HEADS = MappingProxyType({"head": "rank_output", "itm_score": "itm_score.fc"})
_EMBEDDING_HEADS = MappingProxyType({"head": "vid_proj", "text_projection": "txt_proj"})


def convert_all_in_one(checkpoint: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> ConvertedWeights:
    """Give the tensors of an All-in-One checkpoint the names and shapes of a device model.

    Args:
        checkpoint: the `state_dict` of a pretrained or fine-tuned All-in-One.
        target: the device model's `state_dict()`; names, shapes and types are read.

    Tolerated: no temporal embedding (zeros); another number of frames (cut, or padded with zeros);
    another text length, another number of answers or embedding dimensions, and heads that the
    checkpoint lacks (left as they are, in `reinitialised`); `rank_output` missing (row 1 of
    `itm_score.fc`, as All-in-One does); heads that the device model lacks (in `discarded`).

    Raises:
        CheckpointError: anything else is missing, left over or of another shape.
    """
    modules = _head_modules(target)
    sources = _source_names(target, modules)
    found = {name: checkpoint[source] for name, source in sources.items() if source in checkpoint}
    adapted = {**_rank_output(found, checkpoint, modules), **_temporal(found, target)}
    reinitialised = {**_missing_heads(found, modules), **_resized(found, target)}
    tensors = {name: tensor for name, tensor in found.items() if name not in reinitialised}
    left_over = checkpoint.keys() - set(sources.values())
    discarded = _discarded(left_over, {source.partition(".")[0] for source in sources.values()})
    refuse_mismatch(
        "the All-in-One checkpoint",
        tensors,
        {name: tensor for name, tensor in target.items() if name not in reinitialised},
        unexpected=left_over - discarded.keys(),
        remedy="it fits the encoder all_in_one_ti with the vocabulary of bert-base-uncased",
    )
    return ConvertedWeights(
        tensors={name: tensor.to(target[name].dtype) for name, tensor in tensors.items()},
        adapted=adapted,
        reinitialised=reinitialised,
        discarded=discarded,
    )


def _head_modules(target: Mapping[str, Tensor]) -> Mapping[str, str]:
    """Return the checkpoint's module for each module after the encoder."""
    if "itm_score.weight" in target:
        return _CANDIDATE_HEADS
    return _EMBEDDING_HEADS if "text_projection.weight" in target else _ANSWER_HEADS


def _source_names(target: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, str]:
    """Return the checkpoint's name for each of the device model's tensors."""
    sources = {}
    for name in target:
        module, _, parameter = name.rpartition(".")
        if name.startswith("encoder."):
            sources[name] = name.removeprefix("encoder.")
        elif module == "pooler":
            sources[name] = f"pooler.dense.{parameter}"
        elif module in modules:
            sources[name] = f"{modules[module]}.{parameter}"
    return sources


def _rank_output(
    found: dict[str, Tensor], checkpoint: Mapping[str, Tensor], modules: Mapping[str, str]
) -> dict[str, str]:
    """Fill a missing score of candidates into `found`: the logit of "text and video match"."""
    if modules is not _CANDIDATE_HEADS or not found.keys().isdisjoint({"head.weight", "head.bias"}):
        return {}
    matching = {name: checkpoint.get(f"itm_score.fc.{name}") for name in ("weight", "bias")}
    filled = {f"head.{name}": tensor[1:2] for name, tensor in matching.items() if tensor is not None}
    found.update(filled)
    return dict.fromkeys(filled, "no rank_output in the checkpoint: row 1 of itm_score.fc")


def _temporal(found: dict[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, str]:
    """Give the temporal embedding in `found` the device model's number of frames."""
    like = target[_TEMPORAL]
    given = found.get(_TEMPORAL)
    if given is None:
        found[_TEMPORAL] = torch.zeros_like(like)
        return {_TEMPORAL: "not in the checkpoint: zeros"}
    num_given, num_frames = given.shape[1], like.shape[1]
    if given.ndim != like.ndim or given.shape[2:] != like.shape[2:] or num_given == num_frames:
        return {}
    padding = given.new_zeros(1, max(0, num_frames - num_given), given.shape[2])
    found[_TEMPORAL] = torch.cat([given[:, :num_frames], padding], dim=1)
    change = "cut" if num_given > num_frames else "padded with zeros"
    return {_TEMPORAL: f"{num_given} frames in the checkpoint: {change} to {num_frames}"}


def _missing_heads(found: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, str]:
    """Name the parameters of heads that the checkpoint lacks entirely."""
    missing: dict[str, str] = {}
    for head in {source.partition(".")[0] for source in modules.values()}:
        names = {
            f"{module}.{parameter}"
            for module, source in modules.items()
            for parameter in ("weight", "bias")
            if source.partition(".")[0] == head
        }
        if found.keys().isdisjoint(names):
            missing |= dict.fromkeys(sorted(names), f"no {head} in the checkpoint")
    return missing


def _resized(found: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, str]:
    """Name the parameters whose number of rows depends on the data set, where it differs."""
    resized = {}
    for name in (_POSITIONS, "head.weight", "head.bias", "text_projection.weight", "text_projection.bias"):
        if name not in found or name not in target:
            continue
        rows, wanted = len(found[name]), len(target[name])
        if rows != wanted and found[name].shape[1:] == target[name].shape[1:]:
            resized[name] = f"{rows} rows in the checkpoint, {wanted} here"
    return resized


def _discarded(left_over: Set[str], used_heads: Set[str]) -> dict[str, str]:
    """Name the tensors of heads that the device model does not have at all."""
    reasons = {
        name: "the device model has no such head"
        for name in sorted(left_over)
        if (head := name.partition(".")[0]) in _KNOWN_HEADS and head not in used_heads
    }
    if _POSITION_IDS in left_over:
        reasons[_POSITION_IDS] = "counts positions, no weight"
    return reasons
