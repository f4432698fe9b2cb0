"""Data set folder: texts, pictures and devices as arrays, for each task the folder has files for."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyperfleet.datasets.annotations import read_msrvtt_qa
from hyperfleet.datasets.clip_store import ClipStore
from hyperfleet.datasets.device_map import DeviceMap
from hyperfleet.datasets.multiple_choice import UNKNOWN_CATEGORY, read_msrvtt_mc
from hyperfleet.datasets.retrieval import (
    DATA_FILE,
    VAL_FILE,
    cut_in,
    read_msrvtt_data,
    read_queries,
    read_video_list,
)
from hyperfleet.datasets.split import Split
from hyperfleet.datasets.task_names import MULTIPLE_CHOICE, OPEN_ENDED_QA, RETRIEVAL, TASK_NAMES
from hyperfleet.datasets.text import SEP, QuestionTokenizer
from hyperfleet.datasets.vocabulary import AnswerVocabulary
from hyperfleet.errors import ConfigError, DataError, EmptyStreamError, unknown_name

SPLITS = ("train", "val", "test")
VOCABULARY_FILE = "train_ans2label.json"
TOKENIZER_FILE = "tokenizer.json"
STORE_FILE = "clips.arrow"


def questions_file(split: str) -> str:
    """Return the name of the file of a split's open-ended questions."""
    return f"{split}_qa.json"


def choices_file(split: str) -> str:
    """Return the name of the file of a split's multiple-choice examples."""
    return f"msrvtt_mc_{split}.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    # One row of a split before tokenising. A label of None means the identity of the video.
    id: int
    video_id: str
    texts: tuple[str, ...]
    label: int | None
    category: int


class Corpus:
    """A data set folder: annotations, tokenizer, clip store, device map and, for questions, a vocabulary.

    Use `Corpus.open(root)`. `vocabulary` is None if the folder has no open-ended questions.
    """

    def __init__(
        self,
        root: Path,
        vocabulary: AnswerVocabulary | None,
        tokenizer: QuestionTokenizer,
        store: ClipStore,
        device_map: DeviceMap,
    ) -> None:
        self.root = root
        self.vocabulary = vocabulary
        self.tokenizer = tokenizer
        self.store = store
        self.device_map = device_map

    @classmethod
    def open(cls, root: Path) -> "Corpus":
        """Open a data set folder; `split` reads the annotations.

        Raises:
            DataError: a file is missing or broken; the message names it and says how to get it.
        """
        if not root.is_dir():
            raise DataError(
                f"no data set at {root}: no such folder; make one with `hyperfleet data render`, or from a "
                "public data set with `hyperfleet data prepare`"
            )
        has_questions = OPEN_ENDED_QA in _tasks_in(root)
        return cls(
            root,
            AnswerVocabulary.read(root / VOCABULARY_FILE) if has_questions else None,
            QuestionTokenizer.load(root / TOKENIZER_FILE),
            ClipStore(root / STORE_FILE),
            DeviceMap.read(root),
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that this data set has files for."""
        return _tasks_in(self.root)

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer.json of this data set."""
        return self.root / TOKENIZER_FILE

    @property
    def answers_file(self) -> Path:
        """The vocabulary of this data set, {answer: class}."""
        return self.root / VOCABULARY_FILE

    def digest(self) -> str:
        """Return a hash of annotations, tokenizer and device map, equal for equal data sets."""
        files = sorted(path for path in self.root.iterdir() if path.suffix in {".json", ".jsonl", ".csv"})
        content = hashlib.sha256()
        for path in files:
            content.update(path.name.encode())
            content.update(path.read_bytes())
        return content.hexdigest()

    def split(
        self,
        name: str,
        text_length: int,
        task: str = OPEN_ENDED_QA,
        captions_per_video: int | None = None,
    ) -> Split:
        """Read one split ("train", "val" or "test") with texts cut or padded to `text_length` tokens.

        Retrieval and multiple choice train on all captions of a video, or on the first
        `captions_per_video`; val and test have one query per video.

        Raises:
            UnknownNameError: no split or task has that name.
            ConfigError: `captions_per_video` is below 1.
            DataError: the task's annotations are missing or broken, or name a video that no device has.
            EmptyStreamError: no sample is left.
        """
        if name not in SPLITS:
            raise unknown_name("split", name, SPLITS)
        if captions_per_video is not None and captions_per_video < 1:
            raise ConfigError(f"captions_per_video must be >= 1 or None for all, got {captions_per_video}")
        if task == OPEN_ENDED_QA:
            path, samples = self._questions(name)
        elif task == MULTIPLE_CHOICE:
            path, samples = self._choices(name)
            if name == "train" and captions_per_video is not None:
                samples = _first_of_each_video(samples, captions_per_video)
        elif task == RETRIEVAL:
            path, samples = self._captions(name, captions_per_video)
        else:
            raise unknown_name("task", task, TASK_NAMES)
        kept = [sample for sample in samples if sample.video_id not in self.store.skipped]
        if not kept:
            raise EmptyStreamError(
                f"{path} has no sample with a usable video ({len(samples)} samples, "
                f"{len(self.store.skipped)} videos that could not be decoded); render the data set again"
            )
        return self._to_split(name, task, kept, path, text_length, num_skipped=len(samples) - len(kept))

    def _to_split(
        self, name: str, task: str, samples: list[_Sample], path: Path, text_length: int, *, num_skipped: int
    ) -> Split:
        owner = self.device_map.device_of_video
        strange = next((sample for sample in samples if sample.video_id not in owner), None)
        if strange is not None:
            raise DataError(
                f"{path}: sample {strange.id} is about {strange.video_id!r}, which belongs to no device; "
                f"add it to {self.root / 'device_map.csv'}"
            )
        texts = [text for sample in samples for text in sample.texts]
        token_ids, token_mask = self.tokenizer.encode(texts, text_length)
        shape = (len(samples), *((-1,) if task == MULTIPLE_CHOICE else ()), text_length)
        clip_row = np.array([self.store.row(sample.video_id) for sample in samples], np.int32)
        label = [
            row if sample.label is None else sample.label
            for sample, row in zip(samples, clip_row.tolist(), strict=True)
        ]
        return Split(
            name=name,
            task=task,
            example_id=np.array([sample.id for sample in samples], np.int64),
            clip_row=clip_row,
            token_ids=token_ids.astype(np.int32).reshape(shape),
            token_mask=token_mask.reshape(shape),
            label=np.array(label, np.int64),
            category=np.array([sample.category for sample in samples], np.int64),
            device_id=np.array([owner[sample.video_id] for sample in samples], np.int32),
            num_skipped=num_skipped,
        )

    def _questions(self, name: str) -> tuple[Path, Sequence[_Sample]]:
        if self.vocabulary is None:
            raise DataError(
                f"{self.root} has no open-ended questions ({questions_file('train')} etc.), only files "
                f"for: {', '.join(self.tasks) or 'no task'}; choose one of these tasks or another data set"
            )
        path = self.root / questions_file(name)
        samples = []
        for example in read_msrvtt_qa(path):
            label = self.vocabulary.index(example.answer)
            samples.append(
                _Sample(
                    id=example.id,
                    video_id=example.video_id,
                    texts=(example.question,),
                    label=label,
                    category=label,
                )
            )
        return path, samples

    def _choices(self, name: str) -> tuple[Path, Sequence[_Sample]]:
        path = self.root / choices_file(name)
        return path, [
            _Sample(
                id=example.id,
                video_id=example.video_id,
                texts=tuple(
                    f"{example.question} {SEP} {option}" if example.question else option
                    for option in example.options
                ),
                label=example.answer,
                category=example.category,
            )
            for example in read_msrvtt_mc(path)
        ]

    def _captions(self, name: str, captions_per_video: int | None) -> tuple[Path, Sequence[_Sample]]:
        cut = cut_in(self.root)
        _, captions = read_msrvtt_data(self.root / DATA_FILE)
        if name != "train":
            path = self.root / (VAL_FILE if name == "val" else cut.test_file)
            category = {(caption.video_id, caption.text): caption.category for caption in captions}
            return path, [
                _Sample(
                    id=query.id,
                    video_id=query.video_id,
                    texts=(query.text,),
                    label=None,
                    category=category.get((query.video_id, query.text), UNKNOWN_CATEGORY),
                )
                for query in read_queries(path)
            ]
        path = self.root / cut.train_file
        num_taken = dict.fromkeys(read_video_list(path), 0)
        samples = []
        for caption in captions:
            taken = num_taken.get(caption.video_id)
            if taken is None or taken == captions_per_video:
                continue
            num_taken[caption.video_id] = taken + 1
            samples.append(
                _Sample(
                    id=caption.id,
                    video_id=caption.video_id,
                    texts=(caption.text,),
                    label=None,
                    category=caption.category,
                )
            )
        return path, samples


def _tasks_in(root: Path) -> tuple[str, ...]:
    files = {
        OPEN_ENDED_QA: [questions_file(split) for split in SPLITS],
        MULTIPLE_CHOICE: [choices_file(split) for split in SPLITS],
        RETRIEVAL: [DATA_FILE],
    }
    return tuple(task for task, names in files.items() if any((root / name).is_file() for name in names))


def _first_of_each_video(samples: Sequence[_Sample], number: int) -> list[_Sample]:
    taken: Counter[str] = Counter()
    kept = []
    for sample in samples:
        taken[sample.video_id] += 1
        if taken[sample.video_id] <= number:
            kept.append(sample)
    return kept
