"""Nothing but features goes to the cloud, nothing but heads to the devices, and no label to either."""

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest
from actors.answer_host import AnswerHost, AnswerSpec

from hyperfleet.client import GeneratorClient, ReceivedHead
from hyperfleet.datasets import QuestionStream
from hyperfleet.device import Samples
from hyperfleet.emulation.feature_table import FeaturePart, FeatureTable
from hyperfleet.emulation.real_time import ServiceCloud
from hyperfleet.emulation.timeline.device_state import Request
from hyperfleet.emulation.timeline.plan import Plan
from hyperfleet.emulation.timeline.records import AnsweredSample
from hyperfleet.emulation.timeline.rows import ANSWER_SCHEMA, EVENT_SCHEMA
from hyperfleet.messages import HeadRequest

ROOT = Path(__file__).parents[2]
ANSWER_KEY = {"label", "labels", "truth", "key", "category", "correct", "right"}
PRIVATE = {
    "frame",
    "frames",
    "pixels",
    "image",
    "video",
    "clip",
    "question",
    "token",
    "tokens",
    "text",
    "words",
}


def words(names: object) -> set[str]:
    return {word for name in names for word in str(name).split("_")}  # type: ignore[attr-defined]


def fields(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize("schema", [EVENT_SCHEMA, ANSWER_SCHEMA], ids=["events", "answers"])
def test_a_log_has_no_column_of_frames_questions_or_labels(schema) -> None:
    assert words(schema.names).isdisjoint(PRIVATE | ANSWER_KEY)
    # Lists, tensors and bytes could hold anything.
    for field in schema:
        assert not hasattr(field.type, "value_field"), field.name
        assert "binary" not in str(field.type), field.name


@pytest.mark.parametrize(
    "names",
    [
        fields(FeatureTable),
        fields(FeaturePart),
        fields(Plan),
        AnsweredSample._fields,
        Request.__slots__,
        fields(AnswerSpec),
        list(inspect.signature(AnswerHost.__init__).parameters),
        list(inspect.signature(AnswerHost.answer).parameters),
        list(inspect.signature(ServiceCloud.__init__).parameters),
        fields(ReceivedHead),
    ],
    ids=str,
)
def test_what_computes_heads_and_answers_gets_no_frame_question_or_label(names) -> None:
    assert words(names).isdisjoint(PRIVATE | ANSWER_KEY)


def test_a_request_is_a_feature_and_nothing_else() -> None:
    assert fields(HeadRequest) == ["features"]
    (_, argument) = inspect.signature(GeneratorClient.request).parameters.values()
    assert argument.annotation in (HeadRequest, "HeadRequest")


def test_a_stream_of_a_device_has_questions_and_no_answer_to_them() -> None:
    annotations = list(getattr(QuestionStream, "__annotations__", {})) + [
        name for name in dir(QuestionStream) if not name.startswith("_")
    ]
    for names in (annotations, fields(Samples)):
        assert "token_ids" in names
        assert words(names).isdisjoint(ANSWER_KEY)


def test_no_emulated_part_reads_a_label() -> None:
    files = [
        *(ROOT / "platform" / "hyperfleet" / "emulation").rglob("*.py"),
        *(ROOT / "platform" / "hyperfleet" / "device").rglob("*.py"),
        *(ROOT / "actors").rglob("*.py"),
    ]
    assert len(files) > 25
    reads = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("label", "labels")
        # What a reply says of its model is called so as well.
        and not ast.unparse(node).endswith("reply.label")
    ]
    assert reads == []
