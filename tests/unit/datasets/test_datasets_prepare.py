"""Small public data sets in their released forms: reading, checks, decoding and opening."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperfleet.datasets import Corpus
from hyperfleet.datasets.text import SPECIAL_TOKENS
from hyperfleet.errors import ConfigError, DataError, UnknownNameError
from pipelines.prepare_data import PrepareConfig, prepare

# Videos of MSR-VTT, the last of each split without a file.
SPLITS = {"train": range(6), "validate": range(6, 9), "test": range(9, 15)}
MISSING = "video14"
COLORS = ("red", "green", "blue", "white", "black")

WriteVideo = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, write_video: WriteVideo) -> Path:
    """A folder with annotations of all of MSR-VTT's tasks and its videos."""
    (tmp_path / "videos" / "all").mkdir(parents=True)
    first = write_video("videos/all/video0.mp4", 6)
    for number in range(1, 14):
        shutil.copy(first, first.with_name(f"video{number}.mp4"))
    return tmp_path


def _config(folder: Path, dataset: str, **changes: Any) -> PrepareConfig:
    fields: dict[str, Any] = {
        "dataset": dataset,
        "annotations": folder,
        "videos": folder,
        "output": folder / "out",
        "num_devices": 3,
        "store_short_side": 32,
    }
    return PrepareConfig(**fields | changes)


def _prepare(config: PrepareConfig) -> tuple[Corpus, dict[str, Any]]:
    root = prepare(config, workers=0, show_progress=False)
    return Corpus.open(root), json.loads((root / "dataset.json").read_text())


def _write_questions(folder: Path) -> None:
    number = 0
    for name, videos in zip(("train", "val", "test"), SPLITS.values(), strict=True):
        records = []
        for video in videos:
            for answer in ("man", "dog" if name != "test" else "unicorn"):
                question = f"what is number {video}?"
                record = {"answer": answer, "id": number, "question": question, "video_id": video}
                records.append(record | {"category_id": video % 3})
                number += 1
        (folder / f"{name}_qa.json").write_text(json.dumps(records))


def _write_captions(folder: Path) -> dict[str, Any]:
    numbers = [(number, split) for split, videos in SPLITS.items() for number in videos]
    videos = [{"category": n % 3, "video_id": f"video{n}", "split": split, "id": n} for n, split in numbers]
    sentences = [
        {"caption": f"a {color} car number {n}", "video_id": f"video{n}", "sen_id": 5 * n + place}
        for n, _ in numbers
        for place, color in enumerate(COLORS)
    ]
    data = {"videos": videos, "sentences": sentences}
    (folder / "MSRVTT_data.json").write_text(json.dumps(data))
    # As in MSR-VTT: 9k trains on official test videos, 7k does not, and both have the same test set.
    (folder / "MSRVTT_train.9k.csv").write_text("video_id\n" + "".join(f"video{n}\n" for n in range(11)))
    (folder / "MSRVTT_train.7k.csv").write_text("video_id\n" + "".join(f"video{n}\n" for n in range(9)))
    rows = [f"ret{n - 11},msr{n},video{n},a red car number {n}\n" for n in range(11, 15)]
    (folder / "MSRVTT_JSFUSION_test.csv").write_text("key,vid_key,video_id,sentence\n" + "".join(rows))
    return data


def _write_choices(folder: Path) -> None:
    lines = [
        {"qid": f"mc{n}", "clip_name": f"video{n}", "title": f"msr{n}", "answer": str(n % 5),
         "options": [f"a {color} car number {n}" for color in COLORS]}
        for n in SPLITS["test"]
    ]  # fmt: skip
    (folder / "msrvtt_mc_test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_msrvtt_qa(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_questions(folder)
    (folder / "msrvtt_train_ans2label.json").write_text('{"man": 0, "dog": 1}')

    corpus, state = _prepare(_config(folder, "msrvtt-qa"))

    assert corpus.tasks == ("open-ended-qa",)
    # The released order of answers is not alphabetical.
    assert corpus.vocabulary is not None
    assert corpus.vocabulary.answers == ("man", "dog")
    splits = {name: corpus.split(name, 12) for name in ("train", "val", "test")}
    assert {name: len(split) for name, split in splits.items()} == {"train": 12, "val": 6, "test": 10}
    assert splits["test"].num_skipped == 2
    assert splits["test"].label.tolist() == [0, -1] * 5
    assert splits["test"].category.tolist() == splits["test"].label.tolist()
    seen = dict(zip(corpus.device_map.device_id.tolist(), corpus.device_map.seen.tolist(), strict=True))
    assert list(seen.values()) == [True, True, False]
    assert set(splits["train"].device_ids.tolist()) <= {0, 1}
    assert corpus.store.skipped.keys() == {MISSING}
    assert corpus.store.num_stored_frames == 3
    assert state["samples"] == {"train": 12, "val": 6, "test": 12}
    assert state["config"]["protocol"] == "honest"
    said = " ".join(capsys.readouterr().err.split())
    assert "train_qa.json: 12 records for train instead of the 158,581 of the release" in said
    assert "test split: 6 answers outside the vocabulary, the first: 'unicorn' of 19" in said
    assert "1 of 15 videos could not be decoded" in said
    assert [finding["count"] for finding in state["findings"]] == [12, 6, 12, 6]


def test_public_protocol_validates_on_the_test_file(folder: Path) -> None:
    _write_questions(folder)
    corpus, _ = _prepare(_config(folder, "msrvtt-qa", protocol="public"))

    val, test = corpus.split("val", 12), corpus.split("test", 12)
    assert val.example_id.tolist() == test.example_id.tolist()
    assert {sample.split for sample in corpus.device_map.samples if sample.video_id == "video6"} == set()


@pytest.mark.parametrize("encoded", [False, True])
def test_msvd_qa(folder: Path, write_video: WriteVideo, encoded: bool) -> None:
    (folder / "YouTubeClips").mkdir()
    names = [f"-4wsuPCjDBc_{n}_15" for n in range(1, 7)]
    first = write_video(f"YouTubeClips/{names[0]}.avi", 6, codec="mpeg4")
    for name in names[1:]:
        shutil.copy(first, first.with_name(f"{name}.avi"))
    mapping = "\n".join(f"{name} vid{n}" for n, name in enumerate(names, 1))
    (folder / ("msvd_youtube_mapping.txt" if encoded else "youtube_mapping.txt")).write_text(mapping)
    for split, videos in {"train": (1, 2, 3), "val": (4,), "test": (5, 6, 7)}.items():
        records = [{"answer": "man", "id": 9 * v, "question": "who is it?", "video_id": v} for v in videos]
        name = f"msvd_{split}_qa_encode.json" if encoded else f"{split}_qa.json"
        (folder / name).write_text(json.dumps([record | {"question_encode": "2,7"} for record in records]))
    if encoded:
        (folder / "msvd_answer_set.txt").write_text("woman\nman\n")

    corpus, state = _prepare(_config(folder, "msvd-qa", num_devices=2))

    assert corpus.vocabulary is not None
    assert corpus.vocabulary.answers == (("woman", "man") if encoded else ("man",))
    test = corpus.split("test", 12)
    assert test.example_id.tolist() == [45, 54]
    assert {corpus.store.video_ids[row] for row in test.clip_row.tolist()} == set(names[4:])
    (left_out,) = [finding for finding in state["findings"] if "left out" in finding["what"]]
    assert (left_out["count"], left_out["first"]) == (1, "question 63 about video7")


@pytest.mark.parametrize("form", ["csv", "jsonl", "jsonl with val"])
def test_tgif_frameqa(folder: Path, write_video: WriteVideo, form: str) -> None:
    (folder / "gifs").mkdir()
    gifs = [f"tumblr_a{n}_250" for n in range(16)]
    first = write_video(f"gifs/{gifs[0]}.gif", 4, codec="gif", pix_fmt="rgb8")
    for name in gifs[1:]:
        shutil.copy(first, first.with_name(f"{name}.gif"))
    parts = {"train": gifs[:12], "test": gifs[12:]}
    if form == "jsonl with val":
        parts |= {"train": gifs[:10], "val": gifs[10:12]}
    for name, own in parts.items():
        if form == "csv":
            rows = [
                f"{gif}\twhat is it ?\t{gif[8]}\t{n % 4}\tFRAMEQA{n}\t{n}\ta cat" for n, gif in enumerate(own)
            ]
            header = "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription"
            path = folder / f"{name.capitalize()}_frameqa_question.csv"
            path.write_text("\n".join([header, *rows]) + "\n")
        else:
            lines = [{"gif_name": gif, "question": "what is it ?", "answer": gif[8], "answer_type": "object"}
                     for gif in own]  # fmt: skip
            (folder / f"frameqa_{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    corpus, _ = _prepare(_config(folder, "tgif-frameqa"))

    splits = {name: corpus.split(name, 12) for name in ("train", "val", "test")}
    sizes = (
        {"train": 10, "val": 2, "test": 4} if form == "jsonl with val" else {"train": 11, "val": 1, "test": 4}
    )
    assert {name: len(split) for name, split in splits.items()} == sizes
    rows = [set(split.clip_row.tolist()) for split in splits.values()]
    assert len(set.union(*rows)) == sum(map(len, rows)) == 16
    assert corpus.vocabulary is not None
    assert len(corpus.vocabulary) == 10


def test_multiple_choice_trains_on_captions_of_videos_that_do_not_test(folder: Path) -> None:
    _write_captions(folder)
    _write_choices(folder)

    corpus, _ = _prepare(_config(folder, "msrvtt-mc"))

    assert corpus.tasks == ("multiple-choice",)
    assert corpus.vocabulary is None
    train, val, test = (corpus.split(name, 12, "multiple-choice") for name in ("train", "val", "test"))
    assert (len(train), len(val), len(test), test.num_skipped) == (6 * 5, 3, 5, 1)
    assert train.token_ids.shape == train.token_mask.shape == (30, 5, 12)
    assert test.label.tolist() == [number % 5 for number in range(9, 14)]
    assert set(train.clip_row.tolist()).isdisjoint(test.clip_row.tolist())
    for line in (folder / "out" / "msrvtt_mc_train.jsonl").read_text().splitlines():
        record = json.loads(line)
        number = record["clip_name"].removeprefix("video")
        own = [option.endswith(f"number {number}") for option in record["options"]]
        assert own == [place == int(record["answer"]) for place in range(5)]
    with pytest.raises(DataError, match=r"has no open-ended questions .* only files for: multiple-choice"):
        corpus.split("test", 12)

    public, _ = _prepare(_config(folder, "msrvtt-mc", protocol="public", output=folder / "public"))
    assert len(public.split("train", 12, "multiple-choice")) == 9 * 5
    assert public.split("val", 12, "multiple-choice").example_id.tolist() == test.example_id.tolist()


@pytest.mark.parametrize(
    ("cut", "protocol", "train", "val", "test"),
    [
        ("9k-1ka", "honest", [0, 1, 2, 3, 4, 5, 9, 10], [6, 7, 8], [11, 12, 13]),
        ("7k-1ka", "honest", [0, 1, 2, 3, 4, 5], [6, 7, 8], [11, 12, 13]),
        ("7k-1ka", "public", list(range(9)), [11, 12, 13], [11, 12, 13]),
        ("full", "honest", [0, 1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11, 12, 13]),
    ],
)
def test_retrieval(
    folder: Path, cut: str, protocol: str, train: list[int], val: list[int], test: list[int]
) -> None:
    _write_captions(folder)

    corpus, state = _prepare(_config(folder, "msrvtt-retrieval", retrieval_cut=cut, protocol=protocol))

    assert corpus.tasks == ("retrieval",)
    for name, videos, per_video in (("train", train, 5), ("val", val, 1), ("test", test, 1)):
        split = corpus.split(name, 12, "retrieval")
        found = [corpus.store.video_ids[row] for row in split.clip_row.tolist()]
        assert found == [f"video{number}" for number in videos for _ in range(per_video)]
        assert split.label.tolist() == split.clip_row.tolist()
        assert split.label.dtype == np.int64
        assert split.category.min() >= 0
    assert corpus.split("test", 12, "retrieval").num_skipped == 1
    assert len(corpus.split("train", 12, "retrieval", captions_per_video=2)) == 2 * len(train)
    with pytest.raises(ConfigError, match="captions_per_video must be >= 1"):
        corpus.split("train", 12, "retrieval", captions_per_video=0)
    official = [finding for finding in state["findings"] if "official test split" in finding["what"]]
    assert [finding["count"] for finding in official] == ([2] if cut == "9k-1ka" else [])


def test_captions_and_videos_that_do_not_go_together_are_left_out_and_counted(folder: Path) -> None:
    data = _write_captions(folder)
    data["sentences"] += [{"caption": "a ghost", "video_id": "video99", "sen_id": 999}]
    data["videos"] += [{"category": 0, "video_id": "video50", "split": "train", "id": 50}]
    (folder / "MSRVTT_data.json").write_text(json.dumps(data))
    train = folder / "MSRVTT_train.7k.csv"
    train.write_text(train.read_text() + "video50\nvideo11\n")

    corpus, state = _prepare(_config(folder, "msrvtt-retrieval", retrieval_cut="7k-1ka"))

    found = {finding["what"]: (finding["count"], finding["first"]) for finding in state["findings"]}
    assert found["captions of videos that are not in the list of videos, left out"] == (
        1,
        "999 about video99",
    )
    assert found["videos without a caption, left out"] == (1, "video50")
    assert found["videos that have no caption in MSRVTT_data.json, left out"] == (1, "video50")
    assert found["training videos that are test videos too, left out"] == (1, "video11")
    assert len(corpus.split("train", 12, "retrieval")) == 6 * 5


@pytest.mark.parametrize(
    ("dataset", "hidden", "message"),
    [
        (
            "msrvtt-qa",
            "val_qa.json",
            r"no val questions in .* val_qa.json and msrvtt_qa_val.jsonl; .* Xu et al",
        ),
        ("msrvtt-mc", "msrvtt_mc_test.jsonl", r"no test file in .* msrvtt_mc_test.jsonl .* Yu et al"),
        ("msrvtt-mc", "MSRVTT_data.json", "no captions of MSR-VTT in .* CLIP4Clip|MSRVTT-MC file"),
        ("msrvtt-retrieval", "MSRVTT_train.9k.csv", "no list of training videos in .* CLIP4Clip"),
        ("msrvtt-retrieval", "MSRVTT_JSFUSION_test.csv", "no test queries in .* CLIP4Clip"),
    ],
)
def test_missing_files_are_named_with_their_source(
    folder: Path, dataset: str, hidden: str, message: str
) -> None:
    _write_questions(folder)
    _write_captions(folder)
    _write_choices(folder)
    (folder / hidden).unlink()
    with pytest.raises(DataError, match=message):
        prepare(_config(folder, dataset), workers=0, show_progress=False)


def test_missing_videos_and_folders_are_named(folder: Path) -> None:
    _write_questions(folder)
    shutil.rmtree(folder / "videos")
    with pytest.raises(
        DataError, match=r"none of its 15 videos is there: looked for files such as video0\.mp4"
    ):
        prepare(_config(folder, "msrvtt-qa"), workers=0, show_progress=False)
    with pytest.raises(DataError, match="no folder of annotations at"):
        prepare(_config(folder, "msrvtt-qa", annotations=folder / "none"), workers=0)
    (folder / "train_qa.json").write_text("[]")
    with pytest.raises(DataError, match="holds no records; expected 158,581"):
        prepare(_config(folder, "msrvtt-qa"), workers=0)


def test_finished_data_is_kept_and_another_configuration_refused(folder: Path) -> None:
    _write_questions(folder)
    config = _config(folder, "msrvtt-qa")
    root = prepare(config, workers=0, show_progress=False)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    assert prepare(config, workers=0, show_progress=False) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(DataError, match=r"protocol is 'honest' there and 'public' now"):
        prepare(replace(config, protocol="public"), workers=0)


def test_official_vocabulary_of_bert_is_used_where_it_is_given(folder: Path) -> None:
    _write_questions(folder)
    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join([*SPECIAL_TOKENS, "what", "is", "number", "?"]))

    corpus, state = _prepare(_config(folder, "msrvtt-qa", bert_vocab=vocab))

    assert corpus.tokenizer.vocab_size == 9
    assert state["tokenizer"] == str(vocab)


def test_impossible_configurations_are_refused(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown data set 'imagenet'"):
        _config(folder, "imagenet")
    with pytest.raises(ConfigError, match=r"store_quality must be in 90\.\.100, got 50"):
        _config(folder, "msrvtt-qa", store_quality=50)
    _write_questions(folder)
    with pytest.raises(ConfigError, match=r"100 devices .* lower num_devices"):
        prepare(_config(folder, "msrvtt-qa", num_devices=100), workers=0)
