"""What MSVD-QA has besides its questions, whose files are those of MSRVTT-QA: video names and answers."""

from pathlib import Path

from hyperfleet.datasets.records import Record, convert, number_of, read_text, refuse_duplicates
from hyperfleet.datasets.vocabulary import AnswerVocabulary


def read_youtube_mapping(path: Path) -> dict[str, str]:
    """Read youtube_mapping.txt: {"video1": name of its file without ending} from lines "name vid1".

    Raises:
        DataError: no such file, a line of another form, or a video that occurs twice.
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
    """Read answer_set.txt of All-in-One: an answer a line, the line is its class.

    Raises:
        DataError: no such file, no answers, or one that occurs twice.
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
