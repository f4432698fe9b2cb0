"""A data set on disk, opened: questions, pictures and devices as arrays.

What devices see is a `QuestionStream`, which has no field for an answer. Right answers are in
`QASplit.label` for training in the cloud and in `QASplit.answer_key()` for whoever scores.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, Int64

from hyperfleet.datasets.annotations import read_msrvtt_qa
from hyperfleet.datasets.clip_store import ClipStore
from hyperfleet.datasets.device_map import DeviceMap
from hyperfleet.datasets.text import QuestionTokenizer
from hyperfleet.datasets.vocabulary import OUT_OF_VOCABULARY, AnswerVocabulary
from hyperfleet.errors import DataError, EmptyStreamError, unknown_name

SPLITS = ("train", "val", "test")
VOCABULARY_FILE = "train_ans2label.json"
TOKENIZER_FILE = "tokenizer.json"
STORE_FILE = "clips.arrow"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QuestionStream:
    """What one device gets to see: its clips and the questions about them, in order of time, no answers."""

    device_id: int
    example_id: Int64[np.ndarray, " n"]
    clip_row: Int32[np.ndarray, " n"]
    token_ids: Int32[np.ndarray, "n length"]
    token_mask: Bool[np.ndarray, "n length"]

    def __len__(self) -> int:
        return len(self.example_id)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QASplit:
    """One split as arrays, a row a question.

    `label` is the class of the answer, -1 outside the vocabulary. `clip_row` is the row of the clip
    store. `num_skipped` questions were left out because their video could not be decoded.
    """

    name: str
    example_id: Int64[np.ndarray, " n"]
    clip_row: Int32[np.ndarray, " n"]
    token_ids: Int32[np.ndarray, "n length"]
    token_mask: Bool[np.ndarray, "n length"]
    label: Int64[np.ndarray, " n"]
    device_id: Int32[np.ndarray, " n"]
    num_skipped: int = 0

    def __len__(self) -> int:
        return len(self.example_id)

    @property
    def device_ids(self) -> Int32[np.ndarray, " device"]:
        """Devices with at least one question, sorted."""
        return np.unique(self.device_id)

    @property
    def oov_share(self) -> float:
        """Share of the questions whose answer is outside the vocabulary."""
        return float((self.label == OUT_OF_VOCABULARY).mean())

    def stream(self, device_id: int) -> QuestionStream:
        """What one device sees of this split.

        Raises:
            EmptyStreamError: the device has no question in this split.
        """
        rows = np.flatnonzero(self.device_id == device_id)
        if len(rows) == 0:
            known = self.device_ids
            raise EmptyStreamError(
                f"device {device_id} has no question in split {self.name!r}; expected one of its "
                f"{len(known)} devices "
                f"({known.min()} to {known.max()}); held-out devices are in 'test' alone"
            )
        return QuestionStream(
            device_id=device_id,
            example_id=self.example_id[rows],
            clip_row=self.clip_row[rows],
            token_ids=self.token_ids[rows],
            token_mask=self.token_mask[rows],
        )

    def answer_key(self) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Ids of the examples and their right classes (-1: outside the vocabulary), for scoring only."""
        return self.example_id, self.label


class Corpus:
    """A data set folder: annotations, vocabulary, tokenizer, clip store and device map.

    Use `Corpus.open(root)`.
    """

    def __init__(
        self,
        root: Path,
        vocabulary: AnswerVocabulary,
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
        """Open a data set folder; annotations are read when a split is asked for.

        Raises:
            DataError: a file is missing or broken; the message says which and how to get it.
        """
        if not root.is_dir():
            raise DataError(f"no data set at {root}: no such folder; make one with `hyperfleet data render`")
        return cls(
            root,
            AnswerVocabulary.read(root / VOCABULARY_FILE),
            QuestionTokenizer.load(root / TOKENIZER_FILE),
            ClipStore(root / STORE_FILE),
            DeviceMap.read(root),
        )

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer.json of this data set."""
        return self.root / TOKENIZER_FILE

    @property
    def answers_file(self) -> Path:
        """The vocabulary of this data set, {answer: class}."""
        return self.root / VOCABULARY_FILE

    def split(self, name: str, text_length: int) -> QASplit:
        """Read one split ("train", "val" or "test") with questions cut or padded to `text_length` tokens.

        Raises:
            UnknownNameError: no such split.
            DataError: the annotations are missing or broken, or name a video of no device.
            EmptyStreamError: not a single question is left.
        """
        if name not in SPLITS:
            raise unknown_name("split", name, SPLITS)
        path = self.root / f"{name}_qa.json"
        examples = read_msrvtt_qa(path)
        kept = [example for example in examples if example.video_id not in self.store.skipped]
        if not kept:
            raise EmptyStreamError(
                f"{path} has no question with a video ({len(examples)} questions, "
                f"{len(self.store.skipped)} videos "
                "that could not be decoded); render the data set again"
            )
        owner = self.device_map.device_of_video
        strange = next((example for example in kept if example.video_id not in owner), None)
        if strange is not None:
            raise DataError(
                f"{path}: question {strange.id} is about {strange.video_id!r}, which belongs to no device; "
                f"add it to {self.root / 'device_map.csv'}"
            )
        token_ids, token_mask = self.tokenizer.encode([example.question for example in kept], text_length)
        return QASplit(
            name=name,
            example_id=np.array([example.id for example in kept], np.int64),
            clip_row=np.array([self.store.row(example.video_id) for example in kept], np.int32),
            token_ids=token_ids.astype(np.int32),
            token_mask=token_mask,
            label=np.array([self.vocabulary.index(example.answer) for example in kept], np.int64),
            device_id=np.array([owner[example.video_id] for example in kept], np.int32),
            num_skipped=len(examples) - len(kept),
        )
