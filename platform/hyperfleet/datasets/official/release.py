"""Common parts of the released data sets: finding files, known sizes, videos."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hyperfleet.datasets.records import Finding
from hyperfleet.errors import DataError

# honest: validation on data outside the test files. public: on the test files, as in All-in-One's code.
Protocol = Literal["honest", "public"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A released data set: its source and the folders of its videos.

    `sizes` holds the numbers of records of its files, for a warning if they differ.
    """

    name: str
    source: str
    video_folders: tuple[str, ...]
    video_suffix: str
    sizes: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class OfficialData:
    """A released data set for one task, in memory.

    Attributes:
        videos: videos of each split.
        num_samples: number of samples of each split.
        train_texts: texts to train a tokenizer on.
        category: kind of each video, if the annotations give it.
        texts: all texts about each video, joined.
        write: `write(root)` writes the files that `Corpus` reads.
    """

    task: str
    videos: dict[str, tuple[str, ...]]
    num_samples: dict[str, int]
    train_texts: Sequence[str]
    category: dict[str, int]
    texts: dict[str, str]
    findings: tuple[Finding, ...]
    write: Callable[[Path], None]


_MSRVTT_FOLDERS = ("", "all", "videos/all", "TrainValVideo", "TestVideo")

RELEASES = {
    release.name: release
    for release in (
        Release(
            name="msrvtt-qa",
            source="the MSRVTT-QA release of Xu et al. (2017), or ClipBERT's and All-in-One's copies of it",
            video_folders=_MSRVTT_FOLDERS,
            video_suffix=".mp4",
            sizes={"train": 158_581, "val": 12_278, "test": 72_821},
        ),
        Release(
            name="msvd-qa",
            source="the MSVD-QA release of Xu et al. (2017), or All-in-One's copy of it",
            video_folders=("", "YouTubeClips"),
            video_suffix=".avi",
            sizes={"train": 30_933, "val": 6_415, "test": 13_157},
        ),
        Release(
            name="tgif-frameqa",
            source="the TGIF-QA release of Jang et al. (2017), or ClipBERT's copy of it",
            video_folders=("", "gifs"),
            video_suffix=".gif",
            sizes={"train": 39_392, "test": 13_691},
        ),
        Release(
            name="msrvtt-mc",
            source="the MSRVTT-MC file of Yu et al. (2018), distributed with ClipBERT, All-in-One and VindLU",
            video_folders=_MSRVTT_FOLDERS,
            video_suffix=".mp4",
            sizes={"test": 2_990},
        ),
        Release(
            name="msrvtt-retrieval",
            source="the MSR-VTT annotations distributed with CLIP4Clip",
            video_folders=_MSRVTT_FOLDERS,
            video_suffix=".mp4",
            sizes={
                **{"9k-1ka train": 9_000, "9k-1ka test": 1_000},
                **{"7k-1ka train": 7_010, "7k-1ka test": 1_000},
                **{"full train": 6_513, "full val": 497, "full test": 2_990},
            },
        ),
    )
}


def find_file(release: Release, folder: Path, what: str, names: Sequence[str]) -> Path:
    """Return the first of `names` that is in `folder`.

    Raises:
        DataError: none is; the message lists them and says where to get the file.
    """
    found = find_optional(folder, names)
    if found is None:
        raise DataError(
            f"{release.name}: no {what} in {folder}: looked for {' and '.join(names)}; it comes with "
            f"{release.source}; put it there or name the folder that holds it"
        )
    return found


def find_optional(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first of `names` that is in `folder`, or None."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def check_size(release: Release, path: Path, part: str, size: int) -> Iterable[Finding]:
    """Report a file that has more or fewer records than the released one.

    Raises:
        DataError: it has none.
    """
    expected = release.sizes.get(part)
    if size == 0:
        raise DataError(f"{path} holds no records; expected {expected:,} as in {release.source}")
    if expected is not None and size != expected:
        what = f"records for {part} instead of the {expected:,} of the release"
        yield Finding(file=path.name, what=what, count=size)


def find_videos(release: Release, folder: Path, video_ids: Iterable[str]) -> list[tuple[str, Path]]:
    """Return (video id, file) for all videos; a missing file has the first path that was tried.

    Raises:
        DataError: none of the files exists.
    """
    found = []
    num_there = 0
    for video_id in video_ids:
        places = [folder / sub / f"{video_id}{release.video_suffix}" for sub in release.video_folders]
        there = next((place for place in places if place.is_file()), None)
        num_there += there is not None
        found.append((video_id, there or places[0]))
    if num_there == 0:
        tried = ", ".join(str(folder / sub) for sub in release.video_folders)
        example = found[0][1].name if found else f"*{release.video_suffix}"
        raise DataError(
            f"{release.name}: none of its {len(found):,} videos is there: looked for files such as {example} "
            f"in {tried}; they come with {release.source}; name the folder that holds them"
        )
    return found
