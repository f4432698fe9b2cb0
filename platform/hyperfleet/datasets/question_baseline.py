"""Question-only baseline, to be published beside any accuracy."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from hyperfleet.datasets.annotations import QAExample
from hyperfleet.errors import EmptyStreamError


def question_only_accuracy(train: Iterable[QAExample], test: Iterable[QAExample]) -> float:
    """Return the accuracy of answering each question with its most frequent training answer.

    A question that training lacks gets the most frequent answer overall. Answers outside the vocabulary count
    as wrong, as everywhere.

    Raises:
        EmptyStreamError: there are no training or no test examples.
    """
    by_question: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    for example in train:
        by_question[example.question][example.answer] += 1
        overall[example.answer] += 1
    asked = list(test)
    if not overall or not asked:
        raise EmptyStreamError(
            f"the question-only baseline needs training and test examples, got {overall.total()} and "
            f"{len(asked)}"
        )
    right = sum(
        _most_frequent(by_question.get(example.question, overall)) == example.answer for example in asked
    )
    return right / len(asked)


def _most_frequent(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer))
