"""BERT-base's embeddings, reduced to the width of All-in-One-Ti.

All-in-One-Ti learns its own embeddings of width 192 in pretraining, so without its checkpoint there
are none to load. BERT-base's have width 768. Projected onto the principal axes of the word table they
keep as much of the distances between words as 192 dimensions can.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hyperfleet.datasets.text import QuestionTokenizer
from hyperfleet.errors import CheckpointError
from hyperfleet.messages import FEATURE_DIM
from hyperfleet.weights.conversion import ConvertedWeights, refuse_mismatch
from hyperfleet.weights.local_cache import cached_hub_file

BERT_VOCAB_SIZE = 30522
_REPOSITORIES = ("google-bert/bert-base-uncased", "bert-base-uncased")
_FILES = ("model.safetensors",)
_TABLES = ("word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight")
_PREFIX = "encoder.text_embeddings."
# All-in-One starts its embeddings with this standard deviation.
_STD = 0.02
# Token ids of one word in the official vocabulary: [CLS] the [SEP].
_THE = [101, 1996, 102]


def has_bert_vocabulary(tokenizer: QuestionTokenizer) -> bool:
    """Return whether token ids have the same meaning as in bert-base-uncased."""
    if tokenizer.vocab_size != BERT_VOCAB_SIZE:
        return False
    token_ids, _ = tokenizer.encode(["the"], len(_THE))
    return bool(token_ids[0].tolist() == _THE)


def cached_bert() -> Path | None:
    """Return the file of bert-base-uncased's weights in the local cache of Hugging Face, if any."""
    return cached_hub_file(_REPOSITORIES, _FILES)


def principal_axes(table: Float[Tensor, "row wide"], num_axes: int) -> Float[Tensor, "wide axis"]:
    """Return the orthonormal directions in which the rows of `table` differ most, the widest first.

    The sign of an axis is arbitrary; it is chosen so that its largest entry is positive.
    """
    centred = table.double() - table.double().mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # in ascending order
    axes = vectors.flip(1)[:, :num_axes]
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    signed: Tensor = axes * largest.sign()
    return signed.to(table.dtype)


def reduce_bert(checkpoint: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> ConvertedWeights:
    """Project BERT's word, position and type tables to a device model's width.

    BERT adds the three, so all are projected onto the same axes, those of the words, and scaled by the
    same factor, which gives the words a standard deviation of 0.02. Each table is centred first. The
    position table is cut to the text length.

    Raises:
        CheckpointError: a table is missing or too small.
    """
    tables = {}
    for name in _TABLES:
        matches = [tensor for key, tensor in checkpoint.items() if key.endswith(f"embeddings.{name}")]
        if len(matches) != 1:
            raise CheckpointError(
                f"weights of BERT need one table embeddings.{name}, got {len(matches)}; expected the "
                "model.safetensors of bert-base-uncased"
            )
        # Only as many positions as a question can have; the other tables are needed in full.
        rows = len(target[_PREFIX + name]) if name.startswith("position") else None
        tables[name] = matches[0][:rows].float()
    axes = principal_axes(tables["word_embeddings.weight"], FEATURE_DIM)
    reduced = {name: (table - table.mean(dim=0)) @ axes for name, table in tables.items()}
    scale = _STD / reduced["word_embeddings.weight"].std()
    tensors = {
        _PREFIX + name: (table * scale).to(target[_PREFIX + name].dtype) for name, table in reduced.items()
    }
    refuse_mismatch(
        "the checkpoint of BERT",
        tensors,
        {name: target[name] for name in tensors},
        unexpected=(),
        remedy="it fits the vocabulary of bert-base-uncased and texts of up to 512 tokens",
    )
    return ConvertedWeights(
        tensors=tensors, adapted=dict.fromkeys(tensors, f"{FEATURE_DIM} principal axes of BERT's words")
    )
