import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from hyperfleet.datasets import OUT_OF_VOCABULARY, Corpus, QuestionStream
from hyperfleet.datasets.annotations import read_msrvtt_qa
from hyperfleet.datasets.corpus import SPLITS
from hyperfleet.datasets.device_map import DeviceMap
from hyperfleet.datasets.example_frames import example_frames
from hyperfleet.datasets.fleetqa import FleetQAConfig
from hyperfleet.datasets.multiple_choice import read_msrvtt_mc, write_msrvtt_mc
from hyperfleet.datasets.task_names import MULTIPLE_CHOICE, RETRIEVAL, TASK_NAMES
from hyperfleet.errors import ConfigError, DataError, EmptyStreamError, UnknownNameError
from pipelines.render_data import render
from pipelines.runtime import connect

NUM_CLIPS = 6 * 3 + 8 * 2


@pytest.fixture
def copy(small_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_root, tmp_path / "copy"))


@pytest.fixture
def local_ray() -> Iterator[None]:
    connect(2)
    yield
    ray.shutdown()


def test_corpus_opens_what_was_rendered(small_root: Path) -> None:
    corpus = Corpus.open(small_root)
    splits = {name: corpus.split(name, 16) for name in ("train", "val", "test")}

    assert len(list((small_root / "videos" / "all").glob("video*.mp4"))) == NUM_CLIPS
    assert len(corpus.store) == NUM_CLIPS
    assert corpus.store.skipped == {}
    assert corpus.store.frame_side == 76
    assert corpus.vocabulary.num_classes == len(json.loads(corpus.answers_file.read_text())) + 1
    rows = [set(split.clip_row.tolist()) for split in splits.values()]
    assert sum(map(len, rows)) == len(set.union(*rows)) == NUM_CLIPS
    ids = np.concatenate([split.example_id for split in splits.values()])
    assert ids.tolist() == list(range(len(ids)))
    assert splits["train"].oov_share == 0
    assert splits["test"].oov_share > 0
    for split in splits.values():
        assert split.token_ids.shape == split.token_mask.shape == (len(split), 16)
        assert split.num_skipped == 0


def test_labels_are_the_answers_of_the_annotations(small_root: Path) -> None:
    corpus = Corpus.open(small_root)
    split = corpus.split("test", 16)
    examples = read_msrvtt_qa(small_root / "test_qa.json")

    assert [example.id for example in examples] == split.example_id.tolist()
    for example, number, row in zip(examples, split.label.tolist(), split.clip_row.tolist(), strict=True):
        assert corpus.store.video_ids[row] == example.video_id
        if number == OUT_OF_VOCABULARY:
            assert example.answer not in corpus.vocabulary.answers
        else:
            assert corpus.vocabulary.answers[number] == example.answer


def test_multiple_choice_and_retrieval_are_opened_as_well(small_root: Path) -> None:
    corpus = Corpus.open(small_root)
    assert corpus.tasks == TASK_NAMES
    num_clips = {"train": 17, "val": 1, "test": 16}
    for name in SPLITS:
        choices = corpus.split(name, 14, MULTIPLE_CHOICE)
        assert len(choices) == num_clips[name] * (4 if name == "train" else 1)
        assert choices.token_ids.shape == choices.token_mask.shape == (len(choices), 5, 14)
        assert set(choices.label.tolist()) <= set(range(5))
        assert choices.oov_share == 0
        captions = corpus.split(name, 14, RETRIEVAL)
        # One live clip per device has a query.
        assert len(captions) == {"train": 17 * 20, "val": 1, "test": 8}[name]
        assert captions.token_ids.shape == (len(captions), 14)
        assert captions.label.tolist() == captions.clip_row.tolist()
        assert min(choices.category.min(), captions.category.min()) >= 0
    stream = corpus.split("test", 14, MULTIPLE_CHOICE).stream(3)
    assert stream.token_ids.shape == (2, 5, 14)


def test_a_question_stands_before_each_option(copy: Path) -> None:
    (example, *others) = read_msrvtt_mc(copy / "msrvtt_mc_test.jsonl")
    write_msrvtt_mc(
        copy / "msrvtt_mc_test.jsonl", [replace(example, question="where does the circle move?"), *others]
    )
    corpus = Corpus.open(copy)

    first, *_ = corpus.split("test", 24, MULTIPLE_CHOICE).token_ids
    (question,), _ = corpus.tokenizer.encode(["where does the circle move?"], 8)
    options, _ = corpus.tokenizer.encode(example.options, 24)

    assert (first[:, :8] == question).all()
    assert first[:, 8:21].tolist() == options[:, 1:14].tolist()


def test_held_out_devices_are_only_in_test(small_root: Path) -> None:
    corpus = Corpus.open(small_root)
    held_out = corpus.device_map.device_id[~corpus.device_map.seen].tolist()

    assert held_out == [6, 7]
    assert corpus.split("test", 16).device_ids.tolist() == list(range(8))
    for name in ("train", "val"):
        assert not set(corpus.split(name, 16).device_ids.tolist()) & set(held_out)
    with pytest.raises(EmptyStreamError, match="device 6 has no question in split 'train'"):
        corpus.split("train", 16).stream(6)


def test_a_device_sees_its_own_questions_without_labels(small_root: Path) -> None:
    corpus = Corpus.open(small_root)
    split = corpus.split("test", 16)

    stream = split.stream(3)

    fields = {field.name for field in dataclasses.fields(QuestionStream)}
    assert fields == {"device_id", "example_id", "clip_row", "token_ids", "token_mask"}
    mine = split.device_id == 3
    assert stream.example_id.tolist() == split.example_id[mine].tolist()
    assert len(stream) == mine.sum() == 10
    owners = {corpus.device_map.device_of_video[corpus.store.video_ids[row]] for row in stream.clip_row}
    assert owners == {3}


def test_files_hold_the_documented_fields(small_root: Path) -> None:
    record = json.loads((small_root / "train_qa.json").read_text())[0]
    scenes = json.loads((small_root / "scenes.json").read_text())
    devices = json.loads((small_root / "devices.json").read_text())
    header = (small_root / "device_map.csv").read_text().splitlines()[0]

    assert set(record) == {"answer", "category_id", "id", "question", "video_id"}
    assert isinstance(record["video_id"], int)
    assert header == "client_id,sample_path,label_name,label_id,split,t,seen"
    assert [scene["video_id"] for scene in scenes] == [f"video{number}" for number in range(NUM_CLIPS)]
    assert {"background", "objects", "regime", "camera"} <= set(scenes[0])
    assert {"device_id", "family", "seen", "style", "priors", "drift"} <= set(devices[0])


def test_example_frames_show_every_family(small_root: Path) -> None:
    frames = example_frames(small_root, per_family=2)

    families = DeviceMap.read(small_root).family
    assert {family: len(pictures) for family, pictures in frames.items()} == {
        family: min(2, families.count(family)) for family in set(families)
    }
    assert all(picture.shape == (76, 76, 3) for pictures in frames.values() for picture in pictures)


def test_finished_data_is_kept(copy: Path, small_config: FleetQAConfig) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}

    assert render(small_config, copy, workers=0, show_progress=False) == copy
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


@pytest.mark.heavy
def test_interrupted_rendering_is_taken_up(
    copy: Path, small_root: Path, small_config: FleetQAConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = copy / "videos" / "all"
    kept = (videos / "video0.mp4").stat().st_mtime_ns
    (videos / "video1.mp4").unlink()
    (videos / "video2.mp4").write_bytes(b"broken")
    (copy / "clips.arrow").unlink()

    render(small_config, copy, workers=0, show_progress=False)

    corpus = Corpus.open(copy)
    assert (videos / "video0.mp4").stat().st_mtime_ns == kept
    assert "video1" in corpus.store
    assert list(corpus.store.skipped) == ["video2"]
    said = " ".join(capsys.readouterr().err.split())
    assert f"1 of {NUM_CLIPS} videos could not be decoded" in said
    train, whole = corpus.split("train", 16), Corpus.open(small_root).split("train", 16)
    assert train.num_skipped == len(whole) - len(train) == 5


def test_other_configuration_is_refused(copy: Path, small_config: FleetQAConfig) -> None:
    with pytest.raises(DataError, match=r"shift is 1\.0 there and 0\.5 now.*choose another folder"):
        render(replace(small_config, shift=0.5), copy, workers=0, show_progress=False)


def test_folder_of_something_else_is_left_alone(tmp_path: Path, small_config: FleetQAConfig) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"no dataset\.json.*choose another folder"):
        render(small_config, tmp_path, workers=0, show_progress=False)
    with pytest.raises(ConfigError, match="workers must be >= 0, got -1"):
        render(small_config, tmp_path / "new", workers=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(DataError, match="holds something that is no data set of HyperFleet"):
        render(small_config, tmp_path / "thesis.tex", workers=0)
    with pytest.raises(DataError, match="cannot write the data set"):
        render(small_config, tmp_path / "thesis.tex" / "inside", workers=0)


def test_opening_says_what_is_missing(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder; make one with `hyperfleet data render`"):
        Corpus.open(tmp_path / "nowhere")
    with pytest.raises(UnknownNameError, match="expected one of: test, train, val"):
        Corpus.open(copy).split("dev", 16)
    for name in ("train_ans2label.json", "tokenizer.json", "clips.arrow", "device_map.csv"):
        (copy / name).rename(copy / "hidden")
        with pytest.raises(DataError, match=f"at .*{name}"):
            Corpus.open(copy)
        (copy / "hidden").rename(copy / name)


def test_broken_device_maps_are_refused(copy: Path) -> None:
    path = copy / "device_map.csv"
    lines = path.read_text().splitlines()
    first = lines[1].split(",")
    cases = {
        "lacks the columns seen, t": "client_id,sample_path,label_name,label_id,split",
        "line 2: split must be one of": ",".join([*first[:4], "future", *first[5:]]),
        "line 2: invalid literal": ",".join(["x", *first[1:]]),
        "belongs to devices": ",".join(["1" if first[0] == "0" else "0", *first[1:]]) + "\n" + lines[1],
    }
    for message, line in cases.items():
        path.write_text(line + "\n" if message.startswith("lacks") else f"{lines[0]}\n{line}\n")
        with pytest.raises(DataError, match=message):
            DeviceMap.read(copy)
    path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(DataError, match="belongs to no device"):
        Corpus.open(copy).split("test", 16)


@pytest.mark.integration
@pytest.mark.usefixtures("local_ray")
def test_ray_renders_the_same_data(small_root: Path, small_config: FleetQAConfig, tmp_path: Path) -> None:
    root = render(small_config, tmp_path / "ray", show_progress=False)

    for name in (
        "train_qa.json",
        "scenes.json",
        "devices.json",
        "device_map.csv",
        "tokenizer.json",
        "clips.arrow",
        "MSRVTT_data.json",
        "msrvtt_mc_test.jsonl",
    ):
        assert (root / name).read_bytes() == (small_root / name).read_bytes(), name
