"""Files of video-text retrieval on MSR-VTT, as CLIP4Clip distributes them.

`MSRVTT_data.json` holds all videos and captions. Each cut of the data set has a list of training videos and
a table of queries, which pairs captions with test videos.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperfleet.datasets.multiple_choice import UNKNOWN_CATEGORY
from hyperfleet.datasets.records import (
    convert,
    fields,
    integer_field,
    number_of,
    read_csv_records,
    read_json,
    refuse_duplicates,
    text_field,
    to_records,
)
from hyperfleet.errors import DataError

DATA_FILE = "MSRVTT_data.json"
VAL_FILE = "MSRVTT_val.csv"
QUERY_COLUMNS = ("key", "vid_key", "video_id", "sentence")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A division of MSR-VTT into training and test; recalls on different cuts are not comparable."""

    name: str
    train_file: str
    test_file: str


CUTS = {
    cut.name: cut
    for cut in (
        # 1k-A: the thousand test clips of JSFusion. 9k trains on all others, including 1,990 official test
        # clips; 7k only on the official train and validation clips.
        Cut(name="9k-1ka", train_file="MSRVTT_train.9k.csv", test_file="MSRVTT_JSFUSION_test.csv"),
        Cut(name="7k-1ka", train_file="MSRVTT_train.7k.csv", test_file="MSRVTT_JSFUSION_test.csv"),
        # The official 6,513 / 497 / 2,990 that both papers state, from `split` in MSRVTT_data.json.
        Cut(name="full", train_file="MSRVTT_train.full.csv", test_file="MSRVTT_test.full.csv"),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionedVideo:
    """One video of MSRVTT_data.json; `split` is the official train, validate or test."""

    video_id: str
    category: int
    split: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Caption:
    """One sentence of MSRVTT_data.json; `category` is its cluster, -1 if unknown."""

    id: int
    video_id: str
    text: str
    category: int = UNKNOWN_CATEGORY


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A caption as a query for one video among those of its file."""

    id: int
    video_id: str
    text: str


def read_msrvtt_data(path: Path) -> tuple[tuple[CaptionedVideo, ...], tuple[Caption, ...]]:
    """Read the videos and captions of MSRVTT_data.json.

    Raises:
        DataError: the file is missing or has another form, a record is broken, or an id occurs twice.
    """
    if not path.is_file():
        raise DataError(
            f"no captions at {path}; make FleetQA with `hyperfleet data render`, or convert {DATA_FILE} of "
            "MSR-VTT, which comes with CLIP4Clip, with `hyperfleet data prepare`"
        )
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), list) for name in ("videos", "sentences")
    ):
        raise DataError(f"{path}: expected an object with the lists 'videos' and 'sentences'")
    videos = convert(path, to_records("video", content["videos"]), _to_video)
    captions = convert(path, to_records("sentence", content["sentences"]), _to_caption)
    refuse_duplicates(path, "video", (video.video_id for video in videos))
    refuse_duplicates(path, "sen_id", (caption.id for caption in captions))
    return videos, captions


def write_msrvtt_data(path: Path, videos: Sequence[CaptionedVideo], captions: Iterable[Caption]) -> None:
    """Write MSRVTT_data.json; a sentence has its cluster, if known, as `caption_category`."""
    content = {
        "videos": [
            {
                "category": video.category,
                "url": "",
                "video_id": video.video_id,
                "start time": 0.0,
                "end time": 0.0,
                "split": video.split,
                "id": index,
            }
            for index, video in enumerate(videos)
        ],
        "sentences": [
            {"caption": caption.text, "video_id": caption.video_id, "sen_id": caption.id}
            | ({} if caption.category == UNKNOWN_CATEGORY else {"caption_category": caption.category})
            for caption in captions
        ],
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def read_video_list(path: Path) -> tuple[str, ...]:
    """Read a list of videos such as MSRVTT_train.9k.csv: the column `video_id`.

    Raises:
        DataError: the file or the column is missing, a row is broken, or a video occurs twice.
    """
    records = read_csv_records(path, ["video_id"])
    videos = convert(path, records, lambda _, row: text_field(row, "video_id"))
    refuse_duplicates(path, "video", videos)
    return videos


def write_video_list(path: Path, video_ids: Iterable[str]) -> None:
    """Write a list of videos with the column `video_id`."""
    path.write_text("".join(f"{line}\n" for line in ("video_id", *video_ids)), encoding="utf-8")


def read_queries(path: Path) -> tuple[Query, ...]:
    """Read queries such as MSRVTT_JSFUSION_test.csv: key ("ret0"), vid_key, video_id, sentence.

    Raises:
        DataError: the file or a column is missing, a row is truncated or broken, or a key or video occurs
            twice.
    """
    queries = convert(path, read_csv_records(path, QUERY_COLUMNS), _to_query)
    refuse_duplicates(path, "key", (f"ret{query.id}" for query in queries))
    refuse_duplicates(path, "video", (query.video_id for query in queries))
    return queries


def write_queries(path: Path, queries: Iterable[Query]) -> None:
    """Write queries in the form of MSRVTT_JSFUSION_test.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(QUERY_COLUMNS)
        for query in queries:
            vid_key = query.video_id.replace("video", "msr", 1)
            writer.writerow((f"ret{query.id}", vid_key, query.video_id, query.text))


def first_queries(
    video_ids: Iterable[str], captions: Iterable[Caption], first_id: int = 0
) -> tuple[Query, ...]:
    """Return the first caption of each video as its query; videos without captions are left out."""
    text: dict[str, str] = {}
    for caption in captions:
        text.setdefault(caption.video_id, caption.text)
    asked = [video_id for video_id in video_ids if video_id in text]
    return tuple(
        Query(id=number, video_id=video_id, text=text[video_id])
        for number, video_id in enumerate(asked, first_id)
    )


def cut_in(root: Path) -> Cut:
    """Return the cut in a data set folder.

    Raises:
        DataError: the folder has the training list of no cut, or of several.
    """
    found = [cut for cut in CUTS.values() if (root / cut.train_file).is_file()]
    if len(found) != 1:
        names = ", ".join(cut.train_file for cut in found) or "none"
        raise DataError(
            f"{root}: expected the training list of one retrieval cut "
            f"({', '.join(cut.train_file for cut in CUTS.values())}), got {names}; make FleetQA with "
            "`hyperfleet data render`, or convert MSR-VTT with `hyperfleet data prepare`"
        )
    return found[0]


def _to_video(_: int, value: Any) -> CaptionedVideo:
    return CaptionedVideo(
        video_id=text_field(value, "video_id"),
        category=integer_field(value, "category", UNKNOWN_CATEGORY),
        split=text_field(value, "split"),
    )


def _to_caption(_: int, value: Any) -> Caption:
    return Caption(
        id=integer_field(value, "sen_id"),
        video_id=text_field(value, "video_id"),
        text=text_field(value, "caption"),
        category=integer_field(value, "caption_category", UNKNOWN_CATEGORY),
    )


def _to_query(_: int, value: Any) -> Query:
    row = fields(value)
    return Query(
        id=number_of("ret", text_field(row, "key")),
        video_id=text_field(row, "video_id"),
        text=text_field(row, "sentence"),
    )
