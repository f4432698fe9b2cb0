"""Every byte of a call over gRPC is accounted for: HTTP/2 frames, headers, messages."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import hpack
import pytest

from hyperfleet.client import AsyncGrpcClient
from hyperfleet.messages import FEATURE_BYTES, HeadRequest
from hyperfleet.wire.generator_pb2 import GenerateHeadsRequest, GenerateHeadsResponse
from tests.worlds.grpc_service import TASK, TOKEN, serving
from tests.worlds.private_data import found_in
from tests.worlds.recorded_link import RecordedLink, recorded_link
from tests.worlds.served_fleet import DEADLINE_S, NAME, TOKENS, Cloud, Fleet
from tests.worlds.small_bundles import write_bundle

pytestmark = pytest.mark.heavy

# RFC 9113, sections 3.4 and 6.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
# Of the protocol, and gRPC's own: whether true binary metadata is understood, and a size that it prefers.
SETTING_NAMES = {*range(1, 7), 0xFE03, 0xFE04}
CODEC = "delta-int8"


@dataclass
class Crossed:
    """Content of one direction of a connection, without frames of the protocol itself."""

    headers: list[dict[str, str]] = field(default_factory=list)
    message: bytes = b""
    pings: list[tuple[bool, bytes]] = field(default_factory=list)


def frames_of(stream: bytes) -> Iterator[tuple[int, int, bytes]]:
    while stream:
        size, kind, flags = int.from_bytes(stream[:3], "big"), stream[3], stream[4]
        payload, stream = stream[9 : 9 + size], stream[9 + size :]
        assert len(payload) == size, "a frame is cut"
        yield kind, flags, payload


def check_frames(stream: bytes) -> Crossed:
    """Account for all frames; return what they carry."""
    crossed, decoder = Crossed(), hpack.Decoder()
    for kind, flags, payload in frames_of(stream):
        if kind == DATA:
            assert flags & ~END_STREAM == 0
            crossed.message += payload
        elif kind == HEADERS:
            # Neither padding nor a priority.
            assert flags & ~END_STREAM == END_HEADERS
            pairs = decoder.decode(payload)
            crossed.headers.append(dict(pairs))
            assert len(crossed.headers[-1]) == len(pairs)
        elif kind == SETTINGS:
            names = [int.from_bytes(payload[i : i + 2], "big") for i in range(0, len(payload), 6)]
            assert SETTING_NAMES.issuperset(names)
            assert len(payload) == 6 * len(set(names))
        elif kind == PING:
            crossed.pings.append((bool(flags & ACK), payload))
        else:
            assert (kind, len(payload)) == (WINDOW_UPDATE, 4)
    return crossed


def message_of(crossed: Crossed) -> bytes:
    """Return the only message, without what gRPC puts before it."""
    prefix, message = crossed.message[:5], crossed.message[5:]
    assert prefix == b"\0" + len(message).to_bytes(4, "big")
    return message


def check_headers(got: dict[str, str], allowed: dict[str, str]) -> None:
    assert got.keys() == allowed.keys()
    for name, pattern in allowed.items():
        assert re.fullmatch(pattern, got[name]), f"{name}: {got[name]}"


def check_pings(one: Crossed, other: Crossed) -> None:
    """Account for pings: 8 bytes that gRPC draws, at most one while heads come, and the same bytes back."""
    assert {payload for is_answer, payload in one.pings if is_answer} <= {
        payload for is_answer, payload in other.pings if not is_answer
    }
    assert all(len(payload) == 8 for _, payload in one.pings)
    assert [is_answer for is_answer, _ in one.pings].count(False) <= 1


def check_request(crossed: Crossed, port: int) -> bytes:
    """Account for all but the features of a request, which are returned."""
    (headers,) = crossed.headers
    allowed = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/hyperfleet.v1.ParameterGenerator/GenerateHeads",
        ":authority": rf"127\.0\.0\.1:{port}",
        "authorization": f"Bearer {TOKEN}",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": r"grpc-python-asyncio/[\d.]+ grpc-c/[\d.]+ \(\w+; chttp2\)",
        "grpc-accept-encoding": "identity, deflate, gzip",
        "grpc-timeout": r"\d{1,8}[HMSmun]",
    }
    check_headers(headers, allowed)
    message = message_of(crossed)
    features = GenerateHeadsRequest.FromString(message).features
    assert message == GenerateHeadsRequest(task=TASK, features=features, codec=CODEC).SerializeToString()
    return features


def check_reply(crossed: Crossed, cloud: Cloud, asked: bytes) -> None:
    headers, trailers = crossed.headers
    check_headers(
        headers,
        {
            ":status": "200",
            "content-type": "application/grpc",
            "grpc-accept-encoding": "identity, deflate, gzip",
        },
    )
    check_headers(trailers, {"grpc-status": "0", "grpc-message": "", "x-request-id": "[0-9a-f-]{32,36}"})
    message = message_of(crossed)
    reply = GenerateHeadsResponse.FromString(message)
    assert reply.heads == cloud.reply_to(asked, CODEC)
    served = cloud.table.named(NAME).info
    expected = GenerateHeadsResponse(
        heads=reply.heads,
        model=NAME,
        model_version=served.version,
        task=TASK,
        codec=CODEC,
        base_id=served.base_id,
        checksum=reply.checksum,
        queue_s=reply.queue_s,
        generate_s=reply.generate_s,
        encode_s=reply.encode_s,
    )
    assert re.fullmatch("[0-9a-f]{16}", reply.checksum)
    assert max(reply.queue_s, reply.generate_s, reply.encode_s) < DEADLINE_S
    # Fields that are not in the .proto would make it longer.
    assert message == expected.SerializeToString()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet.of(Cloud(write_bundle(tmp_path_factory.mktemp("bundles") / NAME)))


async def record(fleet: Fleet) -> RecordedLink:
    """Ask for two heads in one call."""
    cloud = fleet.cloud
    settings = {
        "layout": cloud.device.layout,
        "base": cloud.base,
        "task": TASK,
        "token": TOKEN,
        "codec": CODEC,
    }
    async with serving(cloud.table, tokens=TOKENS) as port:
        with recorded_link(port) as link:
            async with AsyncGrpcClient(url=f"http://127.0.0.1:{link.port}", **settings) as client:
                await client.request(HeadRequest(features=fleet.features.anchor[:2]))
    return link


def test_a_call_sends_features_and_gets_heads(fleet: Fleet) -> None:
    link = asyncio.run(record(fleet))
    (connection,) = link.connections
    preface, frames = connection.from_device[: len(PREFACE)], connection.from_device[len(PREFACE) :]
    assert preface == PREFACE
    request, reply = check_frames(bytes(frames)), check_frames(bytes(connection.from_cloud))
    check_pings(request, reply)
    check_pings(reply, request)
    features = check_request(request, link.port)
    assert features == fleet.features.anchor[:2].tobytes()
    assert len(features) == 2 * FEATURE_BYTES
    check_reply(reply, fleet.cloud, features)
    assert found_in(link.from_devices, fleet.private) == set()
    assert found_in(link.from_cloud, fleet.private) == set()
