"""Initial weights of a device model, and the record of their origin."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from hyperfleet.datasets.text import QuestionTokenizer
from hyperfleet.errors import CheckpointError
from hyperfleet.nn import DeviceModel
from hyperfleet.weights.all_in_one import convert_all_in_one
from hyperfleet.weights.bert import cached_bert, has_bert_vocabulary, reduce_bert
from hyperfleet.weights.conversion import ConvertedWeights
from hyperfleet.weights.deit import cached_deit_tiny, convert_deit_tiny, has_deit_blocks
from hyperfleet.weights.tensor_file import file_sha256, read_tensors

WeightsSource = Literal["all-in-one", "deit-tiny", "bert-pca", "random"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartOrigin:
    """Origin of the weights of one part of the encoder; no file if they are random."""

    source: WeightsSource
    file_name: str = ""
    sha256: str = ""

    def describe(self) -> str:
        """Return source, file and hash in one line."""
        return f"{self.source} ({self.file_name}, sha256 {self.sha256})" if self.file_name else self.source


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsOrigin:
    """Origin of the initial weights of a device model.

    `remarks` list the parameters that were made to fit and those that the checkpoint did not fill, each
    with the reason.
    """

    vision: PartOrigin
    text: PartOrigin
    remarks: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return one line for the record of a run."""
        if self.vision == self.text:
            parts = self.vision.describe()
        else:
            parts = f"vision {self.vision.describe()}, text {self.text.describe()}"
        return "; ".join((parts, *self.remarks))


RANDOM = PartOrigin(source="random")
RANDOM_WEIGHTS = WeightsOrigin(vision=RANDOM, text=RANDOM)


def initialise(
    device: DeviceModel, *, tokenizer: QuestionTokenizer, checkpoint: Path | None
) -> WeightsOrigin:
    """Load the best available weights into a device model, and return their origin.

    That is `checkpoint`, an official All-in-One file, if one is given. Otherwise, for the encoder
    All-in-One-Ti, DeiT-Ti for the frames and BERT for the text, each if its file is in a local cache
    (nothing is downloaded). Other parameters keep their values.

    Raises:
        CheckpointError: the checkpoint is unreadable, of another model or another vocabulary, or a
            cached file is damaged.
    """
    if checkpoint is not None:
        if not has_bert_vocabulary(tokenizer):
            raise CheckpointError(
                f"{checkpoint} is trained on the vocabulary of bert-base-uncased, this data set has another "
                f"one of {tokenizer.vocab_size:,} tokens; prepare the data with its vocab.txt "
                "(QuestionTokenizer.from_vocab_file), or leave the checkpoint out"
            )
        origin, converted = _load(device, checkpoint, "all-in-one", convert_all_in_one)
        return WeightsOrigin(vision=origin, text=origin, remarks=_remarks(converted))
    # Smaller presets always stay random, so that their results do not depend on the caches.
    if not has_deit_blocks(device.encoder.config):
        return RANDOM_WEIGHTS
    vision = text = RANDOM
    deit_file = cached_deit_tiny()
    if deit_file is not None:
        vision, _ = _load(device, deit_file, "deit-tiny", convert_deit_tiny)
    bert_file = cached_bert() if has_bert_vocabulary(tokenizer) else None
    if bert_file is not None:
        text, _ = _load(device, bert_file, "bert-pca", reduce_bert, containing="embeddings.")
    return WeightsOrigin(vision=vision, text=text)


def _load(
    device: DeviceModel,
    path: Path,
    source: WeightsSource,
    convert: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], ConvertedWeights],
    *,
    containing: str = "",
) -> tuple[PartOrigin, ConvertedWeights]:
    tensors = read_tensors(path, containing=containing)
    try:
        converted = convert(tensors, device.state_dict())
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    device.load_state_dict(dict(converted.tensors), strict=False)
    return PartOrigin(source=source, file_name=path.name, sha256=file_sha256(path)), converted


def _remarks(converted: ConvertedWeights) -> tuple[str, ...]:
    adapted = (f"{name} adapted ({reason})" for name, reason in converted.adapted.items())
    fresh = (f"{name} at its init ({reason})" for name, reason in converted.reinitialised.items())
    return (*adapted, *fresh)
