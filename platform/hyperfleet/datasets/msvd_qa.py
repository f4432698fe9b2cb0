"""Video names and answers of MSVD-QA. Its questions have the format of MSRVTT-QA."""

from pathlib import Path

from hyperfleet.datasets.records import Record, convert, number_of, read_text, refuse_duplicates
from hyperfleet.datasets.vocabulary import AnswerVocabulary


def read_youtube_mapping(path: Path) -> dict[str, str]:
    """Read youtube_mapping.txt: lines "name vid1" give {"video1": file name without suffix}.

    Raises:
        DataError: the file is missing, a line has another form, or a video occurs twice.
    """
    lines = [
        Record(f"line {number}", line)
        for number, line in enumerate(read_text(path).split("\n"), 1)
        if line.strip()
    ]
    pairs = convert(path, lines, _to_pair)
    refuse_duplicates(path, "video", (video_id for video_id, _ in pairs))
    refuse_duplicates(path, "name", (name for _, name in pairs))
    return dict(pairs)


def read_answer_set(path: Path) -> AnswerVocabulary:
    """Read answer_set.txt of All-in-One: one answer per line, whose index is its class.

    Raises:
        DataError: the file is missing, has no answers, or repeats one.
    """
    answers = [line.strip() for line in read_text(path).split("\n")]
    while answers and not answers[-1]:
        answers.pop()
    refuse_duplicates(path, "answer", answers)
    return AnswerVocabulary(tuple(answers))


def _to_pair(_: int, line: str) -> tuple[str, str]:
    cells = line.split()
    if len(cells) != 2:
        raise ValueError(f"expected 'name vid12', got {line!r:.80}")
    return f"video{number_of('vid', cells[1])}", cells[0]
