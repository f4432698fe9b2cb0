"""Counts of requests over HTTP and gRPC."""

import asyncio

import grpc
import pytest
from fastapi.testclient import TestClient

from hyperfleet.messages import HeadRequest
from hyperfleet.wire.generator_pb2_grpc import ParameterGeneratorStub
from serve_apps.access import BearerTokens
from serve_apps.batching import Batcher, Chunk, Meter, generate_batch
from serve_apps.head_service import HeadService
from serve_apps.http_api import build_api
from tests.worlds.grpc_service import TASK, TOKEN, alone, features, refused, serving, wanted

GENERATE = f"/v1/generate/{TASK}"
OCTETS = {"Content-Type": "application/octet-stream"}


class Counting(Meter):
    def __init__(self):
        self.answers, self.refusals = [], []

    def answered(self, label, codec, num_heads, num_bytes, queue_s):
        self.answers.append((label.model, codec, num_heads, num_bytes))

    def refused(self, reason):
        self.refusals.append(reason)

    def generated(self, num_heads, generate_s):
        raise AssertionError("batches are counted where they are made")

    encoded = generated


@pytest.fixture
def tokens(monkeypatch):
    monkeypatch.setenv("TOKENS", f"phone {TOKEN}")
    return BearerTokens.from_env("TOKENS")


def test_http_counts_answers_by_codec_and_refusals_by_reason(table, tokens):
    meter = Counting()
    service = HeadService(table, alone, max_features=8, max_waiting_heads=8, tokens=tokens, meter=meter)
    with TestClient(build_api(service, body_timeout_s=5.0), raise_server_exceptions=False) as api:

        def post(num=1, path=GENERATE, **headers):
            body = HeadRequest(features=features(num)).to_bytes()
            return api.post(path, content=body, headers=OCTETS | headers)

        assert post().status_code == 401
        api.headers["Authorization"] = f"Bearer {TOKEN}"
        reply = post(3, Accept="application/x-safetensors; codec=fp16")
        assert meter.answers == [("qa", "fp16", 3, len(reply.content))]
        post(9)
        post(**{"Content-Type": "text/plain"})
        post(path="/v1/generate/poetry")
        api.get("/nowhere")
    assert meter.refusals == [
        "UnauthenticatedError",
        "Request Entity Too Large",
        "Unsupported Media Type",
        "UnknownNameError",
        "Not Found",
    ]
    assert len(meter.answers) == 1


def test_grpc_counts_the_same(table):
    meter = Counting()

    async def run():
        async with (
            serving(table, meter=meter) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            stub = ParameterGeneratorStub(channel)
            await stub.GenerateHeads(wanted(2, codec="int8"))
            await refused(stub.GenerateHeads(wanted(task="poetry")))
            await refused(stub.GenerateHeads(wanted(codec="zip")))

    asyncio.run(asyncio.wait_for(run(), 60))
    ((name, codec, num_heads, num_bytes),) = meter.answers
    assert (name, codec, num_heads) == ("qa", "int8", 2)
    assert num_bytes > 0
    assert meter.refusals == ["UnknownNameError", "NotAcceptableError"]


def test_a_batch_counts_one_product_per_version_and_its_codecs(table):
    counted = []

    class Batches(Meter):
        def generated(self, num_heads, generate_s):
            counted.append(num_heads)

        def encoded(self, encode_s):
            counted.append("codec")

    def asked(model, num, codec, deadline_s=None):
        served = table.named(model)
        return Chunk(served=served, features=features(num), codec=codec, deadline_s=deadline_s)

    chunks = [
        asked("qa", 1, "fp32"),
        asked("small", 2, "fp16"),
        asked("qa", 3, "int8"),
        asked("qa", 4, "fp32"),
    ]
    chunks.append(asked("search", 5, "fp32", deadline_s=0.0))
    batcher = Batcher(generate_batch, max_heads=32, pause_s=0.01, meter=Batches())

    async def run():
        await asyncio.gather(*map(batcher, chunks))

    asyncio.run(run())
    assert counted == [8, 2, *["codec"] * 3]
