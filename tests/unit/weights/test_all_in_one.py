import dataclasses

import pytest
import torch
from torch import Tensor

from hyperfleet.errors import CheckpointError
from hyperfleet.nn import DeviceModel, Readout
from hyperfleet.weights import ConvertedWeights, convert_all_in_one
from tests.worlds.official_weights import official_checkpoint, small

CONFIG = small()
TEMPORAL = "encoder.transformer.temporal_embed"
POSITIONS = "encoder.text_embeddings.position_embeddings.weight"
HEADS: dict[Readout, tuple[str, ...]] = {
    "answers": ("vqa_classifier",),
    "candidates": ("rank_output", "itm_score"),
    "embedding": ("vid_proj", "txt_proj"),
}
OUTPUTS: dict[Readout, int] = {"answers": 7, "candidates": 1, "embedding": 256}


def target_of(readout: Readout, **changes: int) -> dict[str, Tensor]:
    config = dataclasses.replace(CONFIG, **changes)
    return DeviceModel(config, OUTPUTS[readout], readout).state_dict()


def convert(readout: Readout, checkpoint: dict[str, Tensor], **changes: int) -> ConvertedWeights:
    return convert_all_in_one(checkpoint, target_of(readout, **changes))


def assert_equal(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name]), name


def in_official_names(readout: Readout, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo the conversion, written down apart from it."""
    modules = {
        "answers": {"trunk.1": "vqa_classifier.1", "trunk.2": "vqa_classifier.2", "head": "vqa_classifier.4"},
        "candidates": {"head": "rank_output", "itm_score": "itm_score.fc"},
        "embedding": {"head": "vid_proj", "text_projection": "txt_proj"},
    }[readout] | {"pooler": "pooler.dense"}
    names = {}
    for name in tensors:
        module, _, parameter = name.rpartition(".")
        names[name] = f"{modules[module]}.{parameter}" if module in modules else name.removeprefix("encoder.")
    return {names[name]: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("readout", list(HEADS))
def test_every_tensor_arrives_and_fills_the_device_model(readout: Readout) -> None:
    checkpoint = official_checkpoint(CONFIG, *HEADS[readout])
    converted = convert(readout, checkpoint)
    assert converted.tensors.keys() == target_of(readout).keys()
    assert (converted.adapted, converted.reinitialised) == ({}, {})
    dropped = ("mlm_score.", "text_embeddings.position_ids")
    dropped += ("pooler.",) if readout == "embedding" else ()
    assert set(converted.discarded) == {name for name in checkpoint if name.startswith(dropped)}
    kept = {name: tensor for name, tensor in checkpoint.items() if not name.startswith(dropped)}
    assert_equal(in_official_names(readout, dict(converted.tensors)), kept)

    device = DeviceModel(CONFIG, OUTPUTS[readout], readout)
    device.load_state_dict(dict(converted.tensors))  # strict


def test_all_heads_at_once_leave_those_of_other_tasks_behind() -> None:
    checkpoint = official_checkpoint(CONFIG, *(head for heads in HEADS.values() for head in heads))
    converted = convert("answers", checkpoint)
    heads = {name.partition(".")[0] for name in converted.discarded} - {"text_embeddings"}
    assert heads == {"mlm_score", "rank_output", "itm_score", "vid_proj", "txt_proj"}


def test_a_pretrained_checkpoint_leaves_the_answer_head_at_its_init() -> None:
    converted = convert("answers", official_checkpoint(CONFIG, "itm_score"))
    names = {
        f"{module}.{parameter}"
        for module in ("trunk.1", "trunk.2", "head")
        for parameter in ("weight", "bias")
    }
    assert set(converted.reinitialised) == names
    assert converted.tensors.keys() == target_of("answers").keys() - names
    assert "no vqa_classifier" in converted.reinitialised["head.weight"]


def test_a_missing_rank_output_is_the_match_row_of_the_matching_head() -> None:
    checkpoint = official_checkpoint(CONFIG, "itm_score")
    converted = convert("candidates", checkpoint)
    assert torch.equal(converted.tensors["head.weight"], checkpoint["itm_score.fc.weight"][1:])
    assert torch.equal(converted.tensors["head.bias"], checkpoint["itm_score.fc.bias"][1:])
    assert set(converted.adapted) == {"head.weight", "head.bias"}
    assert converted.reinitialised == {}

    without = convert("candidates", official_checkpoint(CONFIG))
    assert set(without.reinitialised) == {
        "head.weight",
        "head.bias",
        "itm_score.weight",
        "itm_score.bias",
    }
    scored = convert("candidates", official_checkpoint(CONFIG, "rank_output"))
    assert set(scored.reinitialised) == {"itm_score.weight", "itm_score.bias"}


def test_a_missing_temporal_embedding_becomes_zero() -> None:
    checkpoint = official_checkpoint(CONFIG, "vqa_classifier")
    del checkpoint["transformer.temporal_embed"]
    converted = convert("answers", checkpoint)
    assert torch.equal(converted.tensors[TEMPORAL], torch.zeros(1, 3, 192))
    assert set(converted.adapted) == {TEMPORAL}


def test_another_number_of_frames_is_cut_or_padded_with_zeros() -> None:
    checkpoint = official_checkpoint(CONFIG, "vqa_classifier")
    given = checkpoint["transformer.temporal_embed"]
    cut = convert("answers", checkpoint, num_frames=2)
    assert torch.equal(cut.tensors[TEMPORAL], given[:, :2])
    padded = convert("answers", checkpoint, num_frames=5)
    assert torch.equal(padded.tensors[TEMPORAL][:, :3], given)
    assert not padded.tensors[TEMPORAL][:, 3:].any()
    assert "cut to 2" in cut.adapted[TEMPORAL]
    assert "padded with zeros to 5" in padded.adapted[TEMPORAL]


def test_another_text_length_leaves_the_positions_at_their_init() -> None:
    converted = convert("answers", official_checkpoint(CONFIG, "vqa_classifier"), text_length=20)
    assert dict(converted.reinitialised) == {POSITIONS: "40 rows in the checkpoint, 20 here"}
    assert POSITIONS not in converted.tensors


@pytest.mark.parametrize(
    ("readout", "sizes", "names"),
    [
        ("answers", {"num_classes": 9}, {"head.weight", "head.bias"}),
        (
            "embedding",
            {"width": 512},
            {"head.weight", "head.bias", "text_projection.weight", "text_projection.bias"},
        ),
    ],
)
def test_another_number_of_outputs_leaves_the_head_at_its_init(
    readout: Readout, sizes: dict[str, int], names: set[str]
) -> None:
    converted = convert(readout, official_checkpoint(CONFIG, *HEADS[readout], **sizes))
    assert set(converted.reinitialised) == names
    assert converted.tensors.keys() == target_of(readout).keys() - names


def test_half_precision_becomes_the_device_models_type() -> None:
    checkpoint = official_checkpoint(CONFIG, "vqa_classifier")
    halves = {name: tensor.half() for name, tensor in checkpoint.items()}
    converted = convert("answers", halves)
    assert {tensor.dtype for tensor in converted.tensors.values()} == {torch.float32}


def test_missing_and_unexpected_tensors_are_named_and_counted() -> None:
    checkpoint = official_checkpoint(CONFIG, "vqa_classifier")
    del (
        checkpoint["pooler.dense.bias"],
        checkpoint["transformer.norm.bias"],
        checkpoint["vqa_classifier.4.bias"],
    )
    checkpoint["transformer.extra"] = torch.zeros(1)
    checkpoint["vqa_classifier.7.bias"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        convert("answers", checkpoint)
    message = str(caught.value)
    assert "3 missing (encoder.transformer.norm.bias, head.bias, pooler.bias)" in message
    assert "2 unexpected (transformer.extra, vqa_classifier.7.bias)" in message
    assert "0 of another shape" in message


def test_another_encoder_is_refused() -> None:
    deeper = dataclasses.replace(CONFIG, depth=4)
    with pytest.raises(CheckpointError, match=r"24 unexpected \(transformer\.blocks\.2\.attn"):
        convert("answers", official_checkpoint(deeper, "vqa_classifier"))
    other_words = dataclasses.replace(CONFIG, vocab_size=60)
    with pytest.raises(CheckpointError, match=r"1 of another shape .*\(60, 192\) instead of \(50, 192\)"):
        convert("answers", official_checkpoint(other_words, "vqa_classifier"))
