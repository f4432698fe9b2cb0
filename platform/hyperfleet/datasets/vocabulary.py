"""Vocabulary of the answers that a model can give."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hyperfleet.datasets.annotations import QAExample
from hyperfleet.errors import DataError

OUT_OF_VOCABULARY = -1
DEFAULT_MAX_ANSWERS = 1500


@dataclass(frozen=True, slots=True)
class AnswerVocabulary:
    """Answers in alphabetical order; an answer's index is its class.

    A head has one more class, which is never a target: the published heads have 1,501 classes for 1,500
    answers, and payloads are counted with it.

    Raises:
        DataError: there are no answers, or one occurs twice.
    """

    answers: tuple[str, ...]
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = {answer: position for position, answer in enumerate(self.answers)}
        if not self.answers or len(index) != len(self.answers):
            raise DataError(
                f"a vocabulary needs distinct answers, got {len(self.answers)} of which {len(index)} are "
                "distinct"
            )
        object.__setattr__(self, "_index", index)

    @classmethod
    def from_examples(
        cls, examples: Iterable[QAExample], max_size: int = DEFAULT_MAX_ANSWERS
    ) -> "AnswerVocabulary":
        """Keep the `max_size` most frequent answers (ties: alphabetical), labelled alphabetically.

        Raises:
            DataError: there are no examples.
        """
        counts = Counter(example.answer for example in examples)
        if not counts:
            raise DataError("a vocabulary needs training examples, got none")
        kept = sorted(counts, key=lambda answer: (-counts[answer], answer))[:max_size]
        return cls(tuple(sorted(kept)))

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def num_classes(self) -> int:
        """Number of classes of a head: the answers and one class that is never a target."""
        return len(self.answers) + 1

    def index(self, answer: str) -> int:
        """Return the class of an answer, or OUT_OF_VOCABULARY."""
        return self._index.get(answer, OUT_OF_VOCABULARY)

    def to_json(self) -> str:
        """Encode as {answer: class}, the form of msrvtt_train_ans2label.json."""
        return json.dumps(self._index)

    @classmethod
    def from_json(cls, text: str) -> "AnswerVocabulary":
        """Decode {answer: class}.

        Raises:
            DataError: the text is not a JSON object, or its classes are not 0 to n - 1.
        """
        try:
            labels = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"the vocabulary is not JSON: {error}; expected {{answer: class}}") from error
        if not isinstance(labels, dict) or {str(label) for label in labels.values()} != {
            str(label) for label in range(len(labels))
        }:
            raise DataError(
                f"a vocabulary maps n answers to the classes 0 to n - 1, got {text[:80]!r}; "
                "expected a file such as msrvtt_train_ans2label.json"
            )
        return cls(tuple(sorted(labels, key=lambda answer: int(labels[answer]))))

    @classmethod
    def read(cls, path: Path) -> "AnswerVocabulary":
        """Read a vocabulary file.

        Raises:
            DataError: the file is missing or has another form.
        """
        if not path.is_file():
            raise DataError(f"no vocabulary at {path}; make FleetQA with `hyperfleet data render`")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
