import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyperfleet.datasets.retrieval import (
    Caption,
    CaptionedVideo,
    Query,
    cut_in,
    first_queries,
    read_msrvtt_data,
    read_queries,
    read_video_list,
    write_msrvtt_data,
    write_queries,
    write_video_list,
)
from hyperfleet.errors import DataError

# As published.
VIDEO = {
    "category": 9,
    "url": "https://www.youtube.com/watch?v=9lZi22qLlEo",
    "video_id": "video0",
    "start time": 137.72,
    "end time": 149.44,
    "split": "train",
    "id": 0,
}
SENTENCE = {"caption": "a car is shown", "video_id": "video0", "sen_id": 0}
HEADER = "key,vid_key,video_id,sentence"
ROW = "ret0,msr9770,video9770,a person is connecting something to system"


def test_files_are_read_as_published(tmp_path: Path) -> None:
    data, train, test = (tmp_path / name for name in ("MSRVTT_data.json", "train.csv", "test.csv"))
    data.write_text(json.dumps({"videos": [VIDEO], "sentences": [SENTENCE]}))
    train.write_text("video_id\nvideo0\nvideo7\n")
    test.write_text(f'{HEADER}\n{ROW}\nret1,msr9771,video9771,"one, two and ""three"""\n')

    assert read_msrvtt_data(data) == (
        (CaptionedVideo(video_id="video0", category=9, split="train"),),
        (Caption(id=0, video_id="video0", text="a car is shown"),),
    )
    assert read_video_list(train) == ("video0", "video7")
    assert read_queries(test) == (
        Query(id=0, video_id="video9770", text="a person is connecting something to system"),
        Query(id=1, video_id="video9771", text='one, two and "three"'),
    )


def test_files_are_written_as_they_are_read(tmp_path: Path) -> None:
    videos = (CaptionedVideo(video_id="video3", category=1, split="validate"),)
    captions = (
        Caption(id=5, video_id="video3", text="text", category=8),
        Caption(id=6, video_id="video3", text="b"),
    )
    queries = (Query(id=2, video_id="video3", text="one, two"),)
    write_msrvtt_data(tmp_path / "data.json", videos, captions)
    write_video_list(tmp_path / "list.csv", ["video3"])
    write_queries(tmp_path / "queries.csv", queries)

    assert read_msrvtt_data(tmp_path / "data.json") == (videos, captions)
    assert read_video_list(tmp_path / "list.csv") == ("video3",)
    assert read_queries(tmp_path / "queries.csv") == queries
    assert (tmp_path / "queries.csv").read_text().splitlines()[1] == 'ret2,msr3,video3,"one, two"'


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_queries, f"{HEADER}\n{ROW}\nret1,msr2,vid", "line 3: has 3 cells, expected 4"),
        (read_queries, f"{HEADER}\nret0,msr1,video1,a, b\n{ROW}", "line 2: has 5 cells, expected 4"),
        (read_queries, "key,video_id\nret0,video1", "lacks the columns vid_key, sentence"),
        (read_queries, f"{HEADER}\n{ROW}\n{ROW}", "key ret0 occurs twice"),
        (read_queries, f"{HEADER}\n{ROW}\n{ROW.replace('ret0', 'ret1')}", "video video9770 occurs twice"),
        (read_queries, f"{HEADER}\n{ROW.replace('ret0', 'zero')}", "line 2: expected a name such as 'ret12'"),
        (read_video_list, "video_id\nvideo1\nvideo1", "video video1 occurs twice"),
        (read_video_list, "", "lacks the columns video_id"),
        (read_msrvtt_data, "[1]", "expected an object with the lists 'videos' and 'sentences'"),
        (read_msrvtt_data, json.dumps({"videos": [VIDEO, VIDEO], "sentences": []}),
         "video video0 occurs twice"),
        (read_msrvtt_data, json.dumps({"videos": [], "sentences": [SENTENCE, SENTENCE]}),
         "sen_id 0 occurs twice"),
        (read_msrvtt_data, json.dumps({"videos": [], "sentences": [SENTENCE | {"caption": 3}]}),
         "sentence 0: 'caption' must be a string, got 3"),
        (read_msrvtt_data, json.dumps({"videos": [VIDEO | {"split": None}], "sentences": []}),
         "video 0: 'split' must be a string, got None"),
    ],
)  # fmt: skip
def test_broken_files_are_named(tmp_path: Path, read: Callable[[Path], Any], text: str, message: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)

    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_files_that_are_missing_or_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no captions at .* comes with CLIP4Clip"):
        read_msrvtt_data(tmp_path / "MSRVTT_data.json")
    path = tmp_path / "list.csv"
    path.write_bytes(b"video_id\n\xff\xfe")
    with pytest.raises(DataError, match="expected a text file in UTF-8"):
        read_video_list(path)


def test_first_captions_ask_where_there_are_no_queries() -> None:
    captions = [
        Caption(id=number, video_id=f"video{number // 2}", text=f"text {number}") for number in range(4)
    ]

    queries = first_queries(["video1", "video9", "video0"], captions, first_id=4)

    assert [(query.id, query.video_id, query.text) for query in queries] == [
        (4, "video1", "text 2"),
        (5, "video0", "text 0"),
    ]


def test_a_folder_holds_one_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one retrieval cut .*, got none"):
        cut_in(tmp_path)
    (tmp_path / "MSRVTT_train.7k.csv").touch()
    assert cut_in(tmp_path).name == "7k-1ka"
    (tmp_path / "MSRVTT_train.9k.csv").touch()
    with pytest.raises(DataError, match=r"got MSRVTT_train.9k.csv, MSRVTT_train.7k.csv"):
        cut_in(tmp_path)
