"""Every byte between devices and cloud is accounted for, in recorded traffic of real runs."""

import ast
import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hyperfleet.client import AsyncHttpClient
from hyperfleet.emulation.timeline.rows import ANSWER_SCHEMA, EVENT_SCHEMA
from hyperfleet.messages import FEATURE_BYTES, HeadRequest
from tests.worlds.grpc_service import TASK, TOKEN
from tests.worlds.private_data import PrivateData, found_in
from tests.worlds.recorded_link import Connection, RecordedLink
from tests.worlds.served_fleet import DEADLINE_S, NAME, Cloud, Fleet
from tests.worlds.small_bundles import write_bundle

pytestmark = pytest.mark.heavy

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


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    return Cloud(write_bundle(tmp_path_factory.mktemp("bundles") / NAME))


@pytest.fixture(scope="module")
def fleet(cloud: Cloud) -> Fleet:
    return Fleet.of(cloud)


@dataclass(frozen=True)
class Message:
    """An HTTP message; nothing of the stream lies outside of one."""

    first_line: str
    headers: dict[str, str]
    body: bytes


def messages_of(stream: bytes) -> Iterator[Message]:
    while stream:
        head, found, stream = stream.partition(b"\r\n\r\n")
        assert found, f"{head!r} is no head of a message"
        first_line, *lines = head.decode("ascii").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"a header came twice: {lines}"
        size = int(headers["content-length"])
        body, stream = stream[:size], stream[size:]
        assert len(body) == size, "a body is cut"
        yield Message(first_line, headers, body)


def check_headers(message: Message, allowed: dict[str, str]) -> None:
    assert message.headers.keys() == allowed.keys()
    for name, pattern in allowed.items():
        assert re.fullmatch(pattern, message.headers[name]), f"{name}: {message.headers[name]}"


def check_request(request: Message, port: int, codec: str, query: str = "") -> None:
    """Account for all but the body of a request."""
    assert request.first_line == f"POST /v1/generate/{TASK}{query} HTTP/1.1"
    allowed = {
        "host": rf"127\.0\.0\.1:{port}",
        "user-agent": r"Python/3\.\d+ aiohttp/[\d.]+",
        "authorization": f"Bearer {TOKEN}",
        "accept": f"application/x-safetensors; codec={codec}",
        "accept-encoding": "identity",
        "content-type": "application/octet-stream",
        "content-length": r"\d+",
        # Rounded up from a deadline that the scenario sets.
        "x-deadline-seconds": r"\d{1,2}\.\d{3}",
    }
    check_headers(request, allowed)
    assert 0 < float(request.headers["x-deadline-seconds"]) <= DEADLINE_S


def check_reply(reply: Message, cloud: Cloud, codec: str, asked: bytes) -> None:
    """Account for every byte of a reply."""
    info = cloud.table.named(NAME).info
    milliseconds = r"dur=\d+\.\d{3}"
    assert reply.first_line == "HTTP/1.1 200 OK"
    allowed = {
        "date": r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT",
        "server": "uvicorn",
        "content-length": r"\d+",
        "content-type": f"application/x-safetensors; codec={codec}",
        "server-timing": f"queue;{milliseconds}, generate;{milliseconds}, encode;{milliseconds}",
        "x-checksum": r"xxh3-64=[0-9a-f]{16}",
        "x-model-name": NAME,
        "x-model-version": info.version,
        "x-task": TASK,
        "x-codec": codec,
        "x-head-layout": f"{info.num_classes}x{info.hidden}",
        "x-base-id": info.base_id,
        "vary": "Accept",
    }
    check_headers(reply, allowed)
    check_heads(reply.body, len(asked) // FEATURE_BYTES)
    assert reply.body == cloud.reply_to(asked, codec)


def check_heads(content: bytes, num_heads: int) -> None:
    """Account for every byte of a safetensors file, without the code that wrote it."""
    header_bytes = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_bytes])
    assert set(header.pop("__metadata__")) == {
        *("model", "model_version", "task", "codec", "base_id", "num_classes", "hidden")
    }
    end = 0
    for tensor in sorted(header.values(), key=lambda tensor: tensor["data_offsets"]):
        assert tensor.keys() == {"dtype", "shape", "data_offsets"}
        assert tensor["shape"][0] == num_heads
        start, stop = tensor["data_offsets"]
        assert start == end
        end = stop
        assert stop - start == int(np.prod(tensor["shape"])) * int(re.sub(r"\D", "", tensor["dtype"])) // 8
    assert len(content) == 8 + header_bytes + end


def check_http(link: RecordedLink, cloud: Cloud, codec: str, query: str = "") -> list[bytes]:
    """Account for everything that crossed but the bodies of requests, which are returned."""
    bodies = []
    for connection in link.connections:
        requests = list(messages_of(bytes(connection.from_device)))
        replies = list(messages_of(bytes(connection.from_cloud)))
        for request, reply in zip(requests, replies, strict=True):
            check_request(request, link.port, codec, query)
            check_reply(reply, cloud, codec, request.body)
            bodies.append(request.body)
    return bodies


def check_nothing_private(link: RecordedLink, private: PrivateData) -> None:
    assert found_in(link.from_devices, private) == set()
    assert found_in(link.from_cloud, private) == set()


@pytest.mark.parametrize("codec", ["fp32", "delta-int8"])
def test_a_fleet_in_real_time_sends_anchor_features_and_gets_heads(fleet: Fleet, codec: str) -> None:
    with fleet.cloud.over_http() as link:
        plan, run = fleet.play(link.port, codec)
    run.check()
    bodies = check_http(link, fleet.cloud, codec, f"?model={NAME}")
    assert len(bodies) == plan.num_samples > 5
    assert Counter(bodies) == Counter(fleet.features.anchor[row].tobytes() for row in plan.row)
    check_nothing_private(link, fleet.private)


async def ask_over_http(fleet: Fleet, port: int, rows: slice) -> None:
    settings = {"layout": fleet.cloud.device.layout, "base": fleet.cloud.base, "token": TOKEN, "task": TASK}
    async with AsyncHttpClient(url=f"http://127.0.0.1:{port}", **settings) as client:
        await client.request(HeadRequest(features=fleet.features.anchor[rows]))


@pytest.fixture(scope="module")
def recorded(fleet: Fleet) -> RecordedLink:
    """One request for two heads."""
    with fleet.cloud.over_http() as link:
        asyncio.run(ask_over_http(fleet, link.port, slice(2)))
    return link


def test_a_request_for_two_heads_is_two_features(fleet: Fleet, recorded: RecordedLink) -> None:
    (body,) = check_http(recorded, fleet.cloud, "fp32")
    assert body == fleet.features.anchor[:2].tobytes()
    assert len(body) == 2 * FEATURE_BYTES == 1536


def tampered(link: RecordedLink, **changes: tuple[bytes, bytes]) -> RecordedLink:
    (connection,) = link.connections
    streams = {name: bytes(getattr(connection, name)) for name in ("from_device", "from_cloud")}
    for name, (old, new) in changes.items():
        assert streams[name].count(old) == 1
        streams[name] = streams[name].replace(old, new)
    return RecordedLink(link.port, [Connection(**{name: bytearray(each) for name, each in streams.items()})])


@pytest.mark.parametrize(
    ("direction", "old", "new"),
    [
        ("from_device", b"\r\nAccept:", b"\r\nX-Device: 7\r\nAccept:"),
        ("from_device", b"\r\nAccept:", b"\r\nCookie: device=7\r\nAccept:"),
        ("from_device", b" HTTP/1.1", b"?device=7 HTTP/1.1"),
        ("from_device", b"identity", b"identity, gzip;q=0.7"),
        ("from_device", b"\r\nX-Deadline-Seconds: ", b"\r\nX-Deadline-Seconds: 9"),
        ("from_device", b"Length: 1536\r\n", b"Length: 1535\r\n"),
        ("from_cloud", b"\r\nvary:", b"\r\nset-cookie: device=7\r\nvary:"),
        ("from_cloud", b'"task":', b'"seen":"7","task":'),
        ("from_cloud", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 device 7"),
    ],
    ids=str,
)
def test_one_thing_more_or_less_is_noticed(
    cloud: Cloud, recorded: RecordedLink, direction: str, old: bytes, new: bytes
) -> None:
    with pytest.raises(AssertionError):
        check_http(tampered(recorded, **{direction: (old, new)}), cloud, "fp32")


@pytest.mark.parametrize("direction", ["from_device", "from_cloud"])
def test_a_byte_behind_a_message_is_noticed(cloud: Cloud, recorded: RecordedLink, direction: str) -> None:
    longer = tampered(recorded)
    getattr(longer.connections[0], direction).append(0)
    with pytest.raises(AssertionError, match="is no head of a message"):
        check_http(longer, cloud, "fp32")


def test_private_data_is_found_in_each_of_its_forms(fleet: Fleet, recorded: RecordedLink) -> None:
    parts: dict[str, bytes] = {}
    for kind, content in fleet.private.encodings():
        middle = len(content) // 2
        parts[kind] = content[max(0, middle - 20) : middle + 20]
    assert found_in(recorded.from_devices.join(parts.values()), fleet.private) == set(parts)
    assert {"frame, uint8", "frame / 255, <f4", "frame, .jpg", "tokens, <i8", "labels as text"} <= set(parts)


@pytest.mark.parametrize("schema", [EVENT_SCHEMA, ANSWER_SCHEMA], ids=["events", "answers"])
def test_a_log_has_no_column_of_frames_questions_or_labels(schema) -> None:
    words = {word for name in schema.names for word in name.split("_")}
    assert words.isdisjoint(PRIVATE | ANSWER_KEY)
    # Lists, tensors and bytes could hold anything.
    for field in schema:
        assert not hasattr(field.type, "value_field"), field.name
        assert "binary" not in str(field.type), field.name


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
        # The model that made a reply.
        and not ast.unparse(node).endswith("reply.label")
    ]
    assert reads == []
