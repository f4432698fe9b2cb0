from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from hyperfleet.datasets.text import QuestionTokenizer
from hyperfleet.errors import CheckpointError
from hyperfleet.nn import DeviceModel, EncoderConfig
from hyperfleet.nn.encoder_config import all_in_one_ti, tiny
from hyperfleet.weights import RANDOM_WEIGHTS, initialise
from hyperfleet.weights.bert import has_bert_vocabulary, principal_axes, reduce_bert
from hyperfleet.weights.deit import cached_deit_tiny, has_deit_blocks
from hyperfleet.weights.tensor_file import file_sha256
from tests.worlds.official_weights import (
    bert_checkpoint,
    deit_checkpoint,
    official_checkpoint,
    random_tensors,
    small,
)

TEXT = "encoder.text_embeddings."
VISION = "encoder.transformer."
DEIT, BERT = "timm/deit_tiny_patch16_224.fb_in1k", "google-bert/bert-base-uncased"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point both caches, which may hold the real files, to empty folders."""
    hub = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.delenv("TORCH_HUB", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return hub


def put_into_cache(hub: Path, repository: str, tensors: dict[str, Tensor]) -> Path:
    folder = hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123abc")
    safetensors.torch.save_file(tensors, snapshot / "model.safetensors")
    return snapshot / "model.safetensors"


@pytest.fixture(scope="module")
def bert_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> QuestionTokenizer:
    """A vocabulary of BERT's size with the special tokens and one word at BERT's places."""
    places = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1996: "the"}
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    path.write_text("".join(f"{places.get(index, f'unused{index}')}\n" for index in range(30522)))
    return QuestionTokenizer.from_vocab_file(path)


@pytest.fixture(scope="module")
def own_tokenizer() -> QuestionTokenizer:
    return QuestionTokenizer.train(["what is the man doing", "who is singing"], 64)


@pytest.fixture
def device_of() -> Callable[[EncoderConfig], DeviceModel]:
    def build(config: EncoderConfig) -> DeviceModel:
        torch.manual_seed(5)
        return DeviceModel(config, 7)

    return build


def copied(device: DeviceModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in device.state_dict().items()}


def changed(device: DeviceModel, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in device.state_dict().items() if not torch.equal(tensor, before[name])}


def test_without_any_file_everything_stays_random(device_of, bert_tokenizer) -> None:
    device = device_of(all_in_one_ti())
    before = copied(device)
    origin = initialise(device, tokenizer=bert_tokenizer, checkpoint=None)
    assert origin == RANDOM_WEIGHTS
    assert origin.describe() == "random"
    assert changed(device, before) == set()


def test_cached_deit_and_bert_fill_all_in_one_ti(device_of, bert_tokenizer, empty_caches) -> None:
    deit, bert = deit_checkpoint(), bert_checkpoint()
    deit_file = put_into_cache(empty_caches, DEIT, deit)
    bert_file = put_into_cache(empty_caches, BERT, bert)
    device = device_of(all_in_one_ti())
    torch.nn.init.ones_(device.encoder.transformer.temporal_embed)
    before = copied(device)
    origin = initialise(device, tokenizer=bert_tokenizer, checkpoint=None)

    weights = device.state_dict()
    vision = {f"{VISION}{name}" for name in deit if not name.startswith("head.")}
    assert all(torch.equal(weights[name], deit[name.removeprefix(VISION)]) for name in vision)
    assert not weights[f"{VISION}temporal_embed"].any()
    tables = {f"{TEXT}{name}_embeddings.weight" for name in ("word", "position", "token_type")}
    assert changed(device, before) == vision | tables | {f"{VISION}temporal_embed"}
    assert all(
        torch.equal(weights[name], tensor) for name, tensor in reduce_bert(bert, before).tensors.items()
    )

    assert (origin.vision.source, origin.text.source) == ("deit-tiny", "bert-pca")
    assert (origin.vision.file_name, origin.vision.sha256) == (deit_file.name, file_sha256(deit_file))
    line = origin.describe()
    assert "\n" not in line
    assert f"vision deit-tiny (model.safetensors, sha256 {file_sha256(deit_file)})" in line
    assert f"text bert-pca (model.safetensors, sha256 {file_sha256(bert_file)})" in line


def test_bert_is_for_its_own_vocabulary_only(device_of, own_tokenizer, empty_caches) -> None:
    put_into_cache(empty_caches, BERT, {"bert.embeddings.x": torch.ones(1)})  # would be refused if read
    device = device_of(all_in_one_ti(own_tokenizer.vocab_size))
    assert initialise(device, tokenizer=own_tokenizer, checkpoint=None) == RANDOM_WEIGHTS


def test_smaller_presets_do_not_depend_on_the_caches(device_of, bert_tokenizer, empty_caches) -> None:
    put_into_cache(empty_caches, DEIT, {"x": torch.ones(1)})
    put_into_cache(empty_caches, BERT, {"x": torch.ones(1)})
    assert initialise(device_of(tiny()), tokenizer=bert_tokenizer, checkpoint=None) == RANDOM_WEIGHTS
    assert has_deit_blocks(all_in_one_ti(64))
    assert not has_deit_blocks(tiny())


def test_deit_is_found_in_the_cache_of_torch_hub_too(device_of, own_tokenizer, tmp_path) -> None:
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / "deit_tiny_patch16_224-a1311bcf.pth"
    torch.save({"model": deit_checkpoint()}, path)
    assert cached_deit_tiny() == path
    device = device_of(all_in_one_ti(own_tokenizer.vocab_size))
    origin = initialise(device, tokenizer=own_tokenizer, checkpoint=None)
    assert (origin.vision.source, origin.text.source) == ("deit-tiny", "random")
    assert origin.vision.file_name == path.name


def test_a_damaged_cached_file_is_named(device_of, own_tokenizer, empty_caches) -> None:
    deit = deit_checkpoint()
    del deit["norm.bias"]
    path = put_into_cache(empty_caches, DEIT, deit)
    device = device_of(all_in_one_ti(own_tokenizer.vocab_size))
    with pytest.raises(CheckpointError, match=r"1 missing \(encoder\.transformer\.norm\.bias\)") as caught:
        initialise(device, tokenizer=own_tokenizer, checkpoint=None)
    assert str(path) in str(caught.value)


def test_a_given_checkpoint_comes_first(device_of, bert_tokenizer, tmp_path) -> None:
    config = EncoderConfig(name="small", image_size=64, depth=1, text_length=40)
    checkpoint = official_checkpoint(config, "itm_score")
    path = tmp_path / "all-in-one-ti.ckpt"
    torch.save({"state_dict": checkpoint, "epoch": 1}, path)
    device = device_of(config)
    origin = initialise(device, tokenizer=bert_tokenizer, checkpoint=path)
    words = device.state_dict()[f"{TEXT}word_embeddings.weight"]
    assert torch.equal(words, checkpoint["text_embeddings.word_embeddings.weight"])
    assert origin.vision == origin.text
    line = origin.describe()
    assert line.startswith(f"all-in-one (all-in-one-ti.ckpt, sha256 {file_sha256(path)}); ")
    assert "head.weight at its init (no vqa_classifier in the checkpoint)" in line


def test_a_checkpoint_for_another_vocabulary_or_model_is_refused(
    device_of, own_tokenizer, bert_tokenizer, tmp_path
) -> None:
    path = tmp_path / "all-in-one-ti.ckpt"
    torch.save({"state_dict": official_checkpoint(small())}, path)
    with pytest.raises(CheckpointError, match="vocabulary of bert-base-uncased"):
        initialise(device_of(tiny(own_tokenizer.vocab_size)), tokenizer=own_tokenizer, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"all-in-one-ti\.ckpt: the All-in-One checkpoint does not fit"):
        initialise(device_of(tiny()), tokenizer=bert_tokenizer, checkpoint=path)
    with pytest.raises(CheckpointError, match="no weights at"):
        initialise(device_of(tiny()), tokenizer=bert_tokenizer, checkpoint=tmp_path / "absent.ckpt")


def test_the_vocabulary_of_bert_is_told_from_others(bert_tokenizer, own_tokenizer, tmp_path) -> None:
    assert has_bert_vocabulary(bert_tokenizer)
    assert not has_bert_vocabulary(own_tokenizer)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{index}" for index in range(30517))]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens))
    other = QuestionTokenizer.from_vocab_file(tmp_path / "vocab.txt")
    assert other.vocab_size == 30522
    assert not has_bert_vocabulary(other)


def test_principal_axes_agree_with_the_singular_vectors_of_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(60, 12, generator=generator) * torch.linspace(3, 0.5, 12) + 4
    axes = principal_axes(table, 5)
    centred = table.double().numpy() - table.double().numpy().mean(axis=0)
    expected = np.linalg.svd(centred, full_matrices=False)[2][:5].T
    signs = np.sign((axes.numpy() * expected).sum(axis=0))
    np.testing.assert_allclose(axes.numpy(), expected * signs, atol=1e-5)
    assert (axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_bert_tables_share_axes_and_scale_and_words_have_deviation_002() -> None:
    bert = bert_checkpoint(num_words=300)
    target = DeviceModel(tiny(300), 7).state_dict()
    converted = reduce_bert(bert, target)
    tables = converted.tensors
    shapes = {name.removeprefix(TEXT): tuple(tensor.shape) for name, tensor in tables.items()}
    assert shapes == {
        "word_embeddings.weight": (300, 192),
        "position_embeddings.weight": (tiny(300).text_length, 192),
        "token_type_embeddings.weight": (2, 192),
    }
    words = tables[f"{TEXT}word_embeddings.weight"]
    assert words.std().item() == pytest.approx(0.02, rel=1e-4)
    # The same map for all: a word that equals a position (but for their means) stays equal to it.
    wide = bert["bert.embeddings.word_embeddings.weight"]
    positions = bert["bert.embeddings.position_embeddings.weight"]
    bert["bert.embeddings.position_embeddings.weight"] = positions.clone()
    length = tiny(300).text_length
    bert["bert.embeddings.position_embeddings.weight"][:length] = wide[:length]
    moved = reduce_bert(bert, target).tensors[f"{TEXT}position_embeddings.weight"]
    torch.testing.assert_close(moved - moved[:1], words[:length] - words[:1], atol=1e-6, rtol=1e-4)


def test_other_weights_than_berts_are_refused() -> None:
    target = DeviceModel(tiny(300), 7).state_dict()
    with pytest.raises(CheckpointError, match=r"need one table embeddings\.word_embeddings"):
        reduce_bert(random_tensors({"embeddings.weight": (3, 4)}), target)
    with pytest.raises(CheckpointError, match=r"1 of another shape .*\(299, 192\)"):
        reduce_bert(bert_checkpoint(num_words=299), target)
