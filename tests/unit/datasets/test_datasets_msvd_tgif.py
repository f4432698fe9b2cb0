from pathlib import Path

import pytest

from hyperfleet.datasets.annotations import QAExample, read_msrvtt_qa
from hyperfleet.datasets.msvd_qa import read_answer_set, read_youtube_mapping
from hyperfleet.datasets.tgif_qa import read_frameqa
from hyperfleet.errors import DataError

# As published.
MSVD = (
    '[{"answer":"someone","id":37348,"question":"who opened the box?","video_id":1451,'
    '"question_encode":"2,746"}]'
)
TGIF_HEADER = "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription"
TGIF_ROW = (
    "tumblr_no73q2fm0I1uuf348o1_250\twhat is being placed in the white ice cream cone ?\tcookie\t0"
    "\tFRAMEQA1159\t27138\ta chocolate cookie is being placed"
)
TGIF_LINE = (
    '{"gif_name":"tumblr_no73q2fm0I1uuf348o1_250","question":"what?","answer":"cookie",'
    '"answer_type":"object"}'
)


def test_msvd_is_read_in_both_forms(tmp_path: Path) -> None:
    (tmp_path / "msvd_test_qa_encode.json").write_text(MSVD)
    (tmp_path / "youtube_mapping.txt").write_text("-4wsuPCjDBc_5_15 vid1\nv_x_1_2 vid1451")
    (tmp_path / "msvd_answer_set.txt").write_text("man\nwoman\nice cream\n")

    (example,) = read_msrvtt_qa(tmp_path / "msvd_test_qa_encode.json")
    assert example == QAExample(
        id=37348, video_id="video1451", question="who opened the box?", answer="someone"
    )
    assert read_youtube_mapping(tmp_path / "youtube_mapping.txt") == {
        "video1": "-4wsuPCjDBc_5_15",
        "video1451": "v_x_1_2",
    }
    # Not in alphabetical order: the line index is the class.
    assert read_answer_set(tmp_path / "msvd_answer_set.txt").answers == ("man", "woman", "ice cream")


def test_frameqa_is_read_in_both_forms(tmp_path: Path) -> None:
    (tmp_path / "Train_frameqa_question.csv").write_text(f"{TGIF_HEADER}\n{TGIF_ROW}\n")
    (tmp_path / "frameqa_train.jsonl").write_text(TGIF_LINE + "\n" + TGIF_LINE.replace("object", "reason"))

    (example,) = read_frameqa(tmp_path / "Train_frameqa_question.csv")
    same, untyped = read_frameqa(tmp_path / "frameqa_train.jsonl")

    gif = "tumblr_no73q2fm0I1uuf348o1_250"
    question = "what is being placed in the white ice cream cone ?"
    assert example == QAExample(id=0, video_id=gif, question=question, answer="cookie", category_id=0)
    assert same == QAExample(id=0, video_id=gif, question="what?", answer="cookie", category_id=0)
    assert (untyped.id, untyped.category_id) == (1, None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.csv", f"{TGIF_HEADER}\n{TGIF_ROW}\n{TGIF_ROW[:90]}", "line 3: has 4 cells, expected 7"),
        ("q.csv", TGIF_HEADER.replace("\t", ",") + "\n", r"lacks the columns .* separated by '\\t'"),
        (
            "q.csv",
            f"{TGIF_HEADER}\n{TGIF_ROW}".replace("\t0\t", "\t7\t"),
            "line 2: 'type' must be 0 to 3, got '7'",
        ),
        ("q.jsonl", TGIF_LINE.replace('"cookie"', "3"), "line 1: 'answer' must be a string, got 3"),
    ],
)
def test_broken_frameqa_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_frameqa(tmp_path / name)


def test_broken_msvd_files_are_named(tmp_path: Path) -> None:
    mapping, answers = tmp_path / "youtube_mapping.txt", tmp_path / "answer_set.txt"
    cases = {"a vid1\nb": "line 2: expected 'name vid12'", "a vid1\nb vid1": "video video1 occurs twice",
             "a clip1": "line 1: expected a name such as 'vid12'"}  # fmt: skip
    for text, message in cases.items():
        mapping.write_text(text)
        with pytest.raises(DataError, match=message):
            read_youtube_mapping(mapping)
    answers.write_text("man\nman\n")
    with pytest.raises(DataError, match="answer man occurs twice"):
        read_answer_set(answers)
    with pytest.raises(DataError, match="cannot read"):
        read_answer_set(tmp_path / "none.txt")
