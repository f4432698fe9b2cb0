import json
from pathlib import Path

import pytest

from hyperfleet.datasets.annotations import QAExample, read_msrvtt_qa, write_msrvtt_qa
from hyperfleet.datasets.question_baseline import question_only_accuracy
from hyperfleet.errors import DataError, EmptyStreamError

# As published.
ORIGINAL = (
    '[{"answer":"couch","category_id":14,"id":158581,"question":"what are three people sitting on?",'
    '"video_id":6513}]'
)
ALL_IN_ONE = (
    '{"answer":"couch","question":"what are three people sitting on?","video_id":"video6513",'
    '"answer_type":"what"}\n'
    '{"answer":"man","question":"who talks?","video_id":"video6514","answer_type":"who"}\n'
)


def test_both_forms_of_msrvtt_qa_are_read(tmp_path: Path) -> None:
    original, lines = tmp_path / "val_qa.json", tmp_path / "msrvtt_qa_val.jsonl"
    original.write_text(ORIGINAL)
    lines.write_text(ALL_IN_ONE)

    (first,) = read_msrvtt_qa(original)
    same, second = read_msrvtt_qa(lines)

    question = "what are three people sitting on?"
    assert first == QAExample(
        id=158581, video_id="video6513", question=question, answer="couch", category_id=14
    )
    assert same == QAExample(id=0, video_id="video6513", question=question, answer="couch")
    assert (second.id, second.video_id) == (1, "video6514")


def test_written_annotations_are_in_the_original_form(tmp_path: Path) -> None:
    path = tmp_path / "val_qa.json"
    path.write_text(ORIGINAL)
    examples = read_msrvtt_qa(path)

    write_msrvtt_qa(tmp_path / "copy.json", examples)

    assert json.loads((tmp_path / "copy.json").read_text()) == json.loads(ORIGINAL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "the file is not JSON"),
        ('{"question": "who?"}', "line 1: 'answer' must be a string"),
        ('[{"question": "who?", "answer": 3, "video_id": 1}]', "record 0: 'answer' must be a string, got 3"),
        ('[{"question": "who?", "answer": "a", "video_id": true}]', "record 0: 'video_id'"),
        ('[{"question": "who?", "answer": "a"}]', "record 0: 'video_id' .* got None"),
        ('[{"question": "who?", "answer": "a", "video_id": 1, "id": "x"}]', "'id' must be an integer"),
        ("[1]", "record 0: must be an object"),
        ('[{"question":"q","answer":"a","video_id":1,"id":5},{"question":"r","answer":"a","video_id":1,"id":5}]',
         "id 5 occurs twice"),
    ],
)  # fmt: skip
def test_broken_records_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "train_qa.json"
    path.write_text(text)

    with pytest.raises(DataError, match=message) as caught:
        read_msrvtt_qa(path)
    assert str(path) in str(caught.value)


def test_missing_file_tells_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hyperfleet data render"):
        read_msrvtt_qa(tmp_path / "train_qa.json")


def test_question_only_baseline() -> None:
    def example(question: str, answer: str) -> QAExample:
        return QAExample(id=0, video_id="video0", question=question, answer=answer)

    train = [
        example("what?", "red"),
        example("what?", "red"),
        example("what?", "blue"),
        example("who?", "me"),
    ]
    test = [example("what?", "red"), example("what?", "blue"), example("new?", "red"), example("who?", "oov")]

    assert question_only_accuracy(train, test) == 0.5
    with pytest.raises(EmptyStreamError, match="got 4 and 0"):
        question_only_accuracy(train, [])
