import itertools
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from hyperfleet.wire import generator_pb2

ROOT = Path(__file__).parents[3]
WIRE = "hyperfleet/wire"
GENERATED = ("generator_pb2.py", "generator_pb2.pyi", "generator_pb2_grpc.py")


@pytest.fixture(scope="module")
def made_again(tmp_path_factory):
    """The output of `make proto`."""
    folder = tmp_path_factory.mktemp("proto")
    kinds = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "platform", *kinds, f"{WIRE}/generator.proto"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    return folder / WIRE


@pytest.mark.parametrize("name", GENERATED)
def test_the_generated_modules_are_those_of_the_proto(made_again, name):
    committed = (ROOT / "platform" / WIRE / name).read_text()
    assert (made_again / name).read_text() == committed, "run `make proto`"


def test_the_proto_is_shipped_and_documents_every_part():
    lines = (files("hyperfleet.wire") / "generator.proto").read_text().splitlines()
    bare = [
        line
        for before, line in itertools.pairwise(lines)
        if line.strip().endswith((";", "{")) or line.endswith("{}")
        if not line.startswith(("syntax", "package")) and not before.strip().startswith("//")
    ]
    assert bare == []


def test_the_service_keeps_its_contract():
    service = generator_pb2.DESCRIPTOR.services_by_name["ParameterGenerator"]
    assert service.full_name == "hyperfleet.v1.ParameterGenerator"
    assert [method.name for method in service.methods] == ["GenerateHeads", "ListModels", "GetBase"]
    # Old devices identify fields by number: append, never renumber.
    numbers = {
        "GenerateHeadsRequest": ["task", "model", "features", "codec"],
        "GenerateHeadsResponse": [
            "heads",
            "model",
            "model_version",
            "task",
            "codec",
            "base_id",
            "checksum",
            "queue_s",
            "generate_s",
            "encode_s",
        ],
    }
    for name, fields in numbers.items():
        message = generator_pb2.DESCRIPTOR.message_types_by_name[name]
        assert {field.number: field.name for field in message.fields} == dict(enumerate(fields, start=1))
