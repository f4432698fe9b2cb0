"""Contracts with other programs: errors that cross processes, messages without extra fields.

A failure here is a decision to take, not a number to update: see docs/decisions/0003.
"""

import dataclasses
import inspect
import pickle
import re
from pathlib import Path

import pytest

import hyperfleet.errors
from hyperfleet import messages
from hyperfleet.errors import HyperFleetError

ROOT = Path(__file__).parents[2]

ERRORS = [
    error
    for _, error in inspect.getmembers(hyperfleet.errors, inspect.isclass)
    if issubclass(error, HyperFleetError)
]

MESSAGE_FIELDS = {
    "HeadRequest": ["features"],
    "HeadReply": ["heads", "label", "codec"],
    "ModelLabel": ["model", "version", "task"],
}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_survives_a_trip_between_processes(error: type[HyperFleetError]) -> None:
    sent = error("num_frames must be > 0, got 0; choose 3")
    received = pickle.loads(pickle.dumps(sent))
    assert type(received) is error
    assert str(received) == str(sent)
    assert received.args == sent.args


def test_every_error_stands_in_the_tree_of_its_module() -> None:
    tree = inspect.getdoc(hyperfleet.errors) or ""
    assert [error.__name__ for error in ERRORS if error.__name__ not in tree] == []


def test_all_public_errors_are_defined_in_one_place() -> None:
    pattern = re.compile(r"^class (?!_)\w*(Error|Exception)\b", re.MULTILINE)
    files = [
        path
        for folder in ("platform/hyperfleet", "actors", "pipelines", "serve_apps")
        for path in (ROOT / folder).rglob("*.py")
        if pattern.search(path.read_text())
    ]
    assert [str(path.relative_to(ROOT)) for path in files] == ["platform/hyperfleet/errors.py"]


def test_messages_carry_these_fields_and_no_others() -> None:
    fields = {
        name: [field.name for field in dataclasses.fields(getattr(messages, name))] for name in MESSAGE_FIELDS
    }
    assert fields == MESSAGE_FIELDS


def test_no_message_can_be_changed_on_its_way() -> None:
    for name in MESSAGE_FIELDS:
        assert getattr(messages, name).__dataclass_params__.frozen, name
