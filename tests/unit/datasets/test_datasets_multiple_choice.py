import json
from pathlib import Path

import pytest

from hyperfleet.datasets.multiple_choice import ChoiceExample, read_msrvtt_mc, write_msrvtt_mc
from hyperfleet.errors import DataError

OPTIONS = ["a man sings", "a dog runs", "a car burns", "a cat sleeps", "a boy swims"]
# As published.
RECORD = {"qid": "mc0", "clip_name": "video9770", "title": "msr143897", "answer": "3", "options": OPTIONS}
VINDLU = {"video": "video9770.mp4", "caption": OPTIONS, "answer": 3}


def test_both_forms_are_read_and_the_first_is_written(tmp_path: Path) -> None:
    lines, listed = tmp_path / "msrvtt_mc_test.jsonl", tmp_path / "msrvtt_mc_test.json"
    lines.write_text(json.dumps(RECORD) + "\n")
    listed.write_text(json.dumps([VINDLU]))

    (example,) = read_msrvtt_mc(lines)
    (same,) = read_msrvtt_mc(listed)
    write_msrvtt_mc(tmp_path / "copy.jsonl", [example])

    assert example == ChoiceExample(
        id=0, video_id="video9770", options=tuple(OPTIONS), answer=3, title="msr143897"
    )
    assert (same.id, same.video_id, same.options, same.answer) == (0, "video9770", tuple(OPTIONS), 3)
    assert json.loads((tmp_path / "copy.jsonl").read_text()) == RECORD


def test_question_and_category_survive_writing(tmp_path: Path) -> None:
    example = ChoiceExample(
        id=7, video_id="video1", options=tuple(OPTIONS), answer=0, question="what happens?", category=12
    )
    write_msrvtt_mc(tmp_path / "mc.jsonl", [example])

    assert read_msrvtt_mc(tmp_path / "mc.jsonl") == (example,)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([RECORD, RECORD], "qid mc0 occurs twice"),
        (
            [RECORD, RECORD | {"options": OPTIONS[:4]}],
            r"line 2: expected 5 candidates, got 4 \(1 of 2 records",
        ),
        ([RECORD | {"options": "abcde"}], "line 1: the candidates must be a list"),
        ([RECORD | {"answer": "5"}], r"line 1: the answer must be in 0\.\.4, got 5"),
        ([RECORD | {"answer": 3}], "line 1: 'answer' must be a string such as \"0\", got 3"),
        ([VINDLU | {"answer": -1}], r"line 1: the answer must be in 0\.\.4, got -1"),
        ([RECORD | {"qid": "first"}], "line 1: expected a name such as 'mc12', got 'first'"),
        ([{**RECORD, "clip_name": None}], "line 1: 'clip_name' must be a string, got None"),
        ([1], "line 1: must be an object"),
    ],
)
def test_broken_records_are_named_and_counted(tmp_path: Path, records: list[object], message: str) -> None:
    path = tmp_path / "msrvtt_mc_test.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))

    with pytest.raises(DataError, match=message) as caught:
        read_msrvtt_mc(path)
    assert str(path) in str(caught.value)


def test_missing_and_cut_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"convert msrvtt_mc_test\.jsonl of MSRVTT-MC with"):
        read_msrvtt_mc(tmp_path / "msrvtt_mc_train.jsonl")
    path = tmp_path / "cut.jsonl"
    path.write_text(json.dumps(RECORD)[:-5])
    with pytest.raises(DataError, match="line 1 is not JSON"):
        read_msrvtt_mc(path)
