"""Readers of open-ended question answering: MSRVTT-QA, MSVD-QA and FrameQA of TGIF-QA."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hyperfleet.datasets.annotations import QAExample, read_msrvtt_qa, write_msrvtt_qa
from hyperfleet.datasets.corpus import SPLITS, VOCABULARY_FILE, questions_file
from hyperfleet.datasets.msvd_qa import read_answer_set, read_youtube_mapping
from hyperfleet.datasets.official.release import (
    OfficialData,
    Protocol,
    Release,
    check_size,
    find_file,
    find_optional,
)
from hyperfleet.datasets.records import Finding
from hyperfleet.datasets.task_names import OPEN_ENDED_QA
from hyperfleet.datasets.tgif_qa import read_frameqa
from hyperfleet.datasets.vocabulary import OUT_OF_VOCABULARY, AnswerVocabulary
from hyperfleet.errors import DataError
from hyperfleet.seeding import numpy_generator

# Vocabulary sizes that the papers' download sizes imply.
MAX_ANSWERS = {"msrvtt-qa": 1500, "msvd-qa": 1000, "tgif-frameqa": 1540}

_SPLIT_FILES = {
    "msrvtt-qa": ("{}_qa.json", "msrvtt_qa_{}.jsonl"),
    "msvd-qa": ("{}_qa.json", "msvd_{}_qa_encode.json"),
    "tgif-frameqa": ("frameqa_{}.jsonl", "{}_frameqa_question.csv"),
}
_ANSWER_FILES = {
    "msrvtt-qa": ("msrvtt_train_ans2label.json", "train_ans2label.json"),
    "msvd-qa": ("msvd_answer_set.txt", "answer_set.txt"),
    "tgif-frameqa": ("frameqa_trainval_ans2label.json",),
}
_MAPPING_FILES = ("youtube_mapping.txt", "msvd_youtube_mapping.txt")


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    examples: tuple[QAExample, ...]


def read_questions(release: Release, folder: Path, protocol: Protocol, seed: int) -> OfficialData:
    """Read the questions of a release and its vocabulary, which is made from train if it is missing.

    With the public protocol, validation uses the test file. Otherwise FrameQA, which has no validation file,
    holds out a tenth of its training questions as ClipBERT does, but all questions about a GIF together.

    Raises:
        DataError: a file is missing, broken or empty.
    """
    files = _read_files(release, folder)
    findings: list[Finding] = []
    for name, file in files.items():
        # ClipBERT's validation questions of FrameQA are training questions of the release.
        of_release = [*file.examples, *(_frameqa_val(release, files) if name == "train" else ())]
        findings += check_size(release, file.path, name, len(of_release))
    if release.name == "msvd-qa":
        files, unnamed = _name_videos(files, find_file(release, folder, "mapping of videos", _MAPPING_FILES))
        findings += unnamed
    splits = _divide(release, files, protocol, seed)
    vocabulary = _vocabulary(release, folder, [*files["train"].examples, *_frameqa_val(release, files)])
    for name in ("val", "test"):
        missed = [
            example for example in splits[name] if vocabulary.index(example.answer) == OUT_OF_VOCABULARY
        ]
        if missed:
            first = f"{missed[0].answer!r} of {missed[0].id}"
            findings.append(
                Finding(
                    file=f"{name} split",
                    what="answers outside the vocabulary",
                    count=len(missed),
                    first=first,
                )
            )
    return OfficialData(
        task=OPEN_ENDED_QA,
        videos={
            name: tuple(dict.fromkeys(example.video_id for example in examples))
            for name, examples in splits.items()
        },
        num_samples={name: len(examples) for name, examples in splits.items()},
        train_texts=[example.question for example in splits["train"]],
        category=_categories(splits),
        texts=_texts(splits),
        findings=tuple(findings),
        write=partial(_write, splits, vocabulary),
    )


def _read_files(release: Release, folder: Path) -> dict[str, _File]:
    read = read_frameqa if release.name == "tgif-frameqa" else read_msrvtt_qa
    files = {}
    for name in SPLITS:
        names = [
            pattern.format(name.capitalize() if pattern.endswith(".csv") else name)
            for pattern in _SPLIT_FILES[release.name]
        ]
        if release.name == "tgif-frameqa" and name == "val" and find_optional(folder, names) is None:
            continue
        path = find_file(release, folder, f"{name} questions", names)
        files[name] = _File(path, read(path))
    return files


def _name_videos(files: dict[str, _File], mapping: Path) -> tuple[dict[str, _File], list[Finding]]:
    # Names the videos of MSVD after their files; leaves out questions about unknown videos.
    file_of = read_youtube_mapping(mapping)
    named, findings = {}, []
    for name, file in files.items():
        strange = [example for example in file.examples if example.video_id not in file_of]
        if strange:
            first = f"question {strange[0].id} about {strange[0].video_id}"
            what = f"questions about videos that are not in {mapping.name}, left out"
            findings.append(Finding(file=file.path.name, what=what, count=len(strange), first=first))
        kept = [example for example in file.examples if example.video_id in file_of]
        if not kept:
            raise DataError(
                f"{file.path}: none of its videos is in {mapping}; expected lines 'name vid12' there"
            )
        named[name] = _File(
            file.path, tuple(replace(example, video_id=file_of[example.video_id]) for example in kept)
        )
    return named, findings


def _divide(
    release: Release, files: dict[str, _File], protocol: Protocol, seed: int
) -> dict[str, tuple[QAExample, ...]]:
    train, test = files["train"].examples, files["test"].examples
    if protocol == "public":
        return {"train": (*train, *_frameqa_val(release, files)), "val": test, "test": test}
    if "val" in files:
        return {"train": train, "val": files["val"].examples, "test": test}
    videos = sorted({example.video_id for example in train})
    num_questions: dict[str, int] = defaultdict(int)
    for example in train:
        num_questions[example.video_id] += 1
    order = numpy_generator(seed, release.name, "val").permutation(len(videos)).tolist()
    in_val: set[str] = set()
    missing = len(train) // 10
    for video_id in (videos[index] for index in order):
        if missing <= 0:
            break
        in_val.add(video_id)
        missing -= num_questions[video_id]
    kept = tuple(example for example in train if example.video_id not in in_val)
    val = tuple(example for example in train if example.video_id in in_val)
    if not kept or not val:
        raise DataError(
            f"{files['train'].path}: {len(train)} questions about {len(videos)} GIFs are too few to keep a "
            "tenth for validation; expected the released file, or use the protocol 'public'"
        )
    return {"train": kept, "val": val, "test": test}


def _frameqa_val(release: Release, files: dict[str, _File]) -> tuple[QAExample, ...]:
    if release.name != "tgif-frameqa" or "val" not in files:
        return ()
    offset = len(files["train"].examples)
    return tuple(replace(example, id=offset + example.id) for example in files["val"].examples)


def _vocabulary(release: Release, folder: Path, train: Sequence[QAExample]) -> AnswerVocabulary:
    path = find_optional(folder, _ANSWER_FILES[release.name])
    if path is None:
        return AnswerVocabulary.from_examples(train, MAX_ANSWERS[release.name])
    return read_answer_set(path) if path.suffix == ".txt" else AnswerVocabulary.read(path)


def _categories(splits: dict[str, tuple[QAExample, ...]]) -> dict[str, int]:
    # If the questions about a video differ in kind (FrameQA's types of answers), the first decides.
    category: dict[str, int] = {}
    for example in (example for examples in splits.values() for example in examples):
        if example.category_id is None:
            return {}
        category.setdefault(example.video_id, example.category_id)
    return category


def _texts(splits: dict[str, tuple[QAExample, ...]]) -> dict[str, str]:
    words: dict[str, list[str]] = defaultdict(list)
    for example in (example for examples in splits.values() for example in examples):
        words[example.video_id] += [example.question, example.answer]
    return {video_id: " ".join(said) for video_id, said in words.items()}


def _write(splits: dict[str, tuple[QAExample, ...]], vocabulary: AnswerVocabulary, root: Path) -> None:
    for name, examples in splits.items():
        write_msrvtt_qa(root / questions_file(name), examples)
    (root / VOCABULARY_FILE).write_text(vocabulary.to_json(), encoding="utf-8")
