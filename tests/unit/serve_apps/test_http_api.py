import asyncio
import json
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import xxhash
from fastapi.testclient import TestClient

from hyperfleet.errors import OverloadedError
from hyperfleet.head_codecs import CODECS
from hyperfleet.messages import HeadLayout, HeadReply
from serve_apps.access import BearerTokens, RateLimit
from serve_apps.batching import Chunk, GeneratedChunk, generate_batch
from serve_apps.head_service import HeadService
from serve_apps.http_api import build_api
from tests.worlds.small_bundles import MAX_FEATURES

LAYOUT = HeadLayout(num_classes=11)
GENERATE = "/v1/generate/open-ended-qa"
OCTETS = {"Content-Type": "application/octet-stream"}
TOKEN = "0123456789abcdef-secret"


async def alone(chunk: Chunk) -> GeneratedChunk:
    return generate_batch([chunk])[0]


@contextmanager
def client(table, *, batched=alone, max_waiting_heads=64, tokens=None, rate=None, body_timeout_s=5.0):
    service = HeadService(
        table,
        batched,
        max_features=MAX_FEATURES,
        max_waiting_heads=max_waiting_heads,
        tokens=tokens,
        rate=rate,
    )
    with TestClient(build_api(service, body_timeout_s=body_timeout_s), raise_server_exceptions=False) as api:
        yield api


def features(num=1, seed=0):
    return np.random.default_rng(seed).standard_normal((num, 192), dtype=np.float32)


def problem(reply, status):
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    fields = reply.json()
    assert fields["status"] == status
    assert fields["instance"] == reply.request.url.path
    return fields["detail"]


@pytest.mark.parametrize("name", [name for name in CODECS if name != "film" and name != "rank16"])
def test_a_reply_is_in_the_requested_codec_and_names_it(table, name):
    served = table.named("qa")
    anchors = features(3)
    with client(table) as api:
        reply = api.post(
            GENERATE,
            content=anchors.tobytes(),
            headers={**OCTETS, "Accept": f"application/x-safetensors; codec={name}"},
        )
    assert reply.status_code == 200, reply.text
    heads = HeadReply.from_bytes(reply.content, expected=LAYOUT, num_heads=3, base=served.generator.base)
    generated = served.generator.generate(anchors)
    error = torch.linalg.vector_norm(heads.heads.dense() - generated.full(), dim=1)
    assert (error <= CODECS[name].error_bound(generated) + 1e-6).all()
    assert (heads.label.model, heads.label.task, heads.codec) == ("qa", "open-ended-qa", name)
    expected = {
        "content-type": f"application/x-safetensors; codec={name}",
        "x-model-name": "qa",
        "x-model-version": served.info.version,
        "x-task": "open-ended-qa",
        "x-codec": name,
        "x-head-layout": "11x96",
        "x-base-id": served.info.base_id,
        "x-checksum": f"xxh3-64={xxhash.xxh3_64_hexdigest(reply.content)}",
    }
    assert expected.items() <= dict(reply.headers).items()
    timing = dict(entry.split(";dur=") for entry in reply.headers["Server-Timing"].split(", "))
    assert list(timing) == ["queue", "generate", "encode"]


@pytest.mark.parametrize(
    ("accept", "codec"),
    [
        ("", "fp32"),
        ("*/*", "fp32"),
        ("application/x-safetensors", "fp32"),
        ("application/x-safetensors; codec=FP16", "fp16"),
        ("text/html, application/x-safetensors; codec=int8; q=0.5", "int8"),
        ("application/x-safetensors; codec=int8; q=0.2, application/x-safetensors;codec=rank1", "rank1"),
        ("application/x-safetensors; codec=int3, application/x-safetensors; codec=bf16; q=0.1", "bf16"),
        ("application/x-safetensors; codec=fp16; q=0, */*; q=0.1", "fp32"),
    ],
)
def test_the_codec_is_negotiated(table, accept, codec):
    with client(table) as api:
        reply = api.post(GENERATE, content=features().tobytes(), headers={**OCTETS, "Accept": accept})
    assert reply.headers["X-Codec"] == codec


def test_one_application_serves_several_models_and_tasks(table):
    with client(table) as api:
        listed = api.get("/v1/models").json()["models"]
        assert [each["name"] for each in listed] == ["qa", "small", "search"]
        asked = {
            "qa": GENERATE,
            "small": GENERATE + "?model=small",
            "search": "/v1/generate/retrieval",
        }
        for name, path in asked.items():
            reply = api.post(path, content=features().tobytes(), headers=OCTETS)
            assert reply.headers["X-Model-Name"] == name
            model = api.get(f"/v1/models/{name}").json()
            assert reply.headers["X-Head-Layout"] == f"{model['num_classes']}x{model['hidden']}"
            header = 8 + int.from_bytes(reply.content[:8], "little")
            assert len(reply.content) - header == model["head_bytes"]
        assert "no model 'chess'" in problem(api.get("/v1/models/chess"), 404)
        wrong = api.post("/v1/generate/retrieval?model=qa", content=features().tobytes(), headers=OCTETS)
        assert "is for task 'open-ended-qa', not 'retrieval'" in problem(wrong, 404)


def test_the_static_head_can_be_fetched_once(table):
    with client(table) as api:
        reply = api.get("/v1/models/qa/base")
        assert reply.status_code == 200
        base = table.named("qa").generator.base
        header = 8 + int.from_bytes(reply.content[:8], "little")
        assert reply.content[header:] == base.flat.numpy().tobytes()
        again = api.get("/v1/models/qa/base", headers={"If-None-Match": reply.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "said"),
    [
        ("/v1/generate/chess", bytes(768), OCTETS, 404, "served are 'open-ended-qa', 'retrieval'"),
        ("/nothing", None, {}, 404, "Not Found"),
        (GENERATE, bytes(768 * (MAX_FEATURES + 1)), OCTETS, 413, f"at most {MAX_FEATURES} features"),
        (GENERATE, b"{}", {"Content-Type": "application/json"}, 415, "got 'application/json'"),
        (GENERATE, b"", OCTETS, 422, "got 0 bytes"),
        (GENERATE, bytes(767), OCTETS, 422, "got 767 bytes"),
        (GENERATE, np.full(192, np.nan, np.float32).tobytes(), OCTETS, 422, "got 192 NaN"),
        (GENERATE, np.full(192, np.inf, np.float32).tobytes(), OCTETS, 422, "got 192 NaN or infinite"),
        (GENERATE, bytes(768), {**OCTETS, "Accept": "text/html"}, 406, "codec=fp32|fp16|bf16"),
        (
            GENERATE,
            bytes(768),
            {**OCTETS, "Accept": "application/x-safetensors; codec=film"},
            406,
            "names nothing that is offered",
        ),
        (GENERATE, bytes(768), {**OCTETS, "X-Deadline-Seconds": "soon"}, 400, "got 'soon'"),
        (GENERATE, bytes(768), {**OCTETS, "X-Deadline-Seconds": "-1"}, 400, "above 0"),
        (GENERATE, bytes(768), {**OCTETS, "X-Deadline-Seconds": "nan"}, 400, "got 'nan'"),
    ],
)
def test_bad_requests_are_refused_with_the_reason(table, path, body, headers, status, said):
    with client(table) as api:
        reply = api.post(path, content=body, headers=headers)
    assert said in problem(reply, status)


async def post_slowly(api, messages):
    """Send ASGI messages with pauses before each, and return status and body of the reply."""
    sent = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": GENERATE,
        "raw_path": GENERATE.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/octet-stream")],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("here", 80),
        "client": ("there", 1),
        "root_path": "",
    }
    coming = iter(messages)

    async def receive():
        pause_s, message = next(coming)
        await asyncio.sleep(pause_s)
        return message

    async def send(message):
        sent.append(message)

    await api(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])["detail"]


@pytest.mark.parametrize(
    ("messages", "status", "said"),
    [
        (
            [
                (0, {"type": "http.request", "body": bytes(100), "more_body": True}),
                (5, {"type": "http.request", "body": bytes(668), "more_body": False}),
            ],
            408,
            "100 bytes arrived",
        ),
        (
            [
                (0, {"type": "http.request", "body": bytes(7), "more_body": True}),
                (0, {"type": "http.disconnect"}),
            ],
            400,
            "ended after 7 bytes",
        ),
    ],
    ids=["slow", "cut"],
)
def test_a_slow_or_cut_body_is_refused(table, messages, status, said):
    service = HeadService(table, alone, max_features=MAX_FEATURES, max_waiting_heads=8)
    api = build_api(service, body_timeout_s=0.1)
    got, detail = asyncio.run(post_slowly(api, messages))
    assert got == status
    assert said in detail


def test_strangers_are_refused_and_tokens_never_repeated(table, monkeypatch, caplog):
    monkeypatch.setenv("TOKENS", f"phone {TOKEN}")
    with client(table, tokens=BearerTokens.from_env("TOKENS")) as api:
        for headers in ({}, {"Authorization": "Basic abc"}, {"Authorization": f"Bearer {TOKEN}x"}):
            for path in (GENERATE, "/v1/models", "/v1/models/qa", "/v1/models/qa/base"):
                send = api.post if path == GENERATE else api.get
                reply = send(path, headers={**OCTETS, **headers})
                assert "Authorization: Bearer" in problem(reply, 401)
                assert reply.headers["WWW-Authenticate"] == "Bearer"
                assert TOKEN not in reply.text + str(reply.headers)
        allowed = {**OCTETS, "Authorization": f"Bearer {TOKEN}"}
        assert api.post(GENERATE, content=features().tobytes(), headers=allowed).status_code == 200
        assert api.get("/healthz").status_code == 200
    assert TOKEN not in caplog.text


def test_a_client_is_held_to_its_rate(table):
    with client(table, rate=RateLimit(2)) as api:
        statuses = [api.post(GENERATE, content=features().tobytes(), headers=OCTETS) for _ in range(5)]
        assert [reply.status_code for reply in statuses][:2] == [200, 200]
        refused = [reply for reply in statuses if reply.status_code == 429]
        assert refused
        assert int(refused[0].headers["Retry-After"]) >= 1
        never = api.post(GENERATE, content=features(3).tobytes(), headers=OCTETS)
        assert "never" in problem(never, 422)


def over_http(api):
    with TestClient(api) as asked:
        return asked.post(GENERATE, content=features().tobytes(), headers=OCTETS)


def test_a_full_queue_refuses_with_retry_after(table):
    release = asyncio.Event()

    async def held(chunk: Chunk) -> GeneratedChunk:
        await release.wait()
        return generate_batch([chunk])[0]

    async def run():
        service = HeadService(table, held, max_features=MAX_FEATURES, max_waiting_heads=4)
        api = build_api(service, body_timeout_s=5.0)
        served = table.named("qa")

        def ask(num):
            return service.generate(
                served, features(num).tobytes(), codec="fp32", client="a", deadline_s=None
            )

        waiting = [asyncio.create_task(ask(2)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="4 heads are waiting, at most 4 may") as refused:
            await ask(1)
        assert refused.value.retry_after_s > 0
        # A caller that leaves makes room.
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        third = asyncio.create_task(ask(2))
        await asyncio.sleep(0)
        reply = await asyncio.to_thread(over_http, api)
        assert "heads are waiting" in problem(reply, 429)
        assert int(reply.headers["Retry-After"]) >= 1
        release.set()
        assert len((await third).body) > 2 * LAYOUT.num_bytes
        assert (await waiting[1]).codec == "fp32"
        await ask(4)

    asyncio.run(run())


def test_work_whose_deadline_is_over_is_not_done(table, monkeypatch):
    computed = []
    served = table.named("qa")
    generate_each = type(served.generator).generate_each

    def counted(self, shards):
        computed.extend(row for shard in shards for row in shard)
        return generate_each(self, shards)

    monkeypatch.setattr(type(served.generator), "generate_each", counted)
    now_s = time.monotonic()
    chunks = [
        Chunk(served=served, features=features(seed=i), codec="fp32", deadline_s=deadline)
        for i, deadline in enumerate([now_s - 1, None, now_s + 60])
    ]
    done = generate_batch(chunks)
    assert [each.files is None for each in done] == [True, False, False]
    assert len(computed) == 2

    async def late(chunk: Chunk) -> GeneratedChunk:
        await asyncio.sleep(0.05)
        return generate_batch([chunk])[0]

    with client(table, batched=late) as api:
        reply = api.post(
            GENERATE,
            content=features().tobytes(),
            headers={**OCTETS, "X-Deadline-Seconds": "0.01"},
        )
    assert "nothing was computed" in problem(reply, 504)
    assert len(computed) == 2


def test_a_feature_that_overflows_the_model_fails_alone(table):
    huge = np.full((1, 192), 1e30, np.float32)
    huge[0, ::2] = -1e30
    chunks = [
        Chunk(served=table.named("qa"), features=each, codec="fp32", deadline_s=None)
        for each in (features(), huge, features(2))
    ]
    first, broken, last = generate_batch(chunks)
    assert "overflow the generator" in str(broken.error)
    assert (first.batch_heads, last.batch_heads) == (1, 2)
    assert first.files is not None
    assert last.files is not None
    with client(table) as api:
        assert "overflow" in problem(api.post(GENERATE, content=huge.tobytes(), headers=OCTETS), 422)


def test_an_overloaded_service_does_not_charge_a_clients_rate(table):
    async def run():
        hold = asyncio.Event()

        async def held(chunk: Chunk) -> GeneratedChunk:
            await hold.wait()
            return generate_batch([chunk])[0]

        charged = []

        class Counted(RateLimit):
            def acquire(self, client, cost):
                charged.append(cost)

        service = HeadService(table, held, max_features=8, max_waiting_heads=2, rate=Counted(100))

        def ask():
            served = table.named("qa")
            return service.generate(served, features(2).tobytes(), codec="fp32", client="a", deadline_s=None)

        first = asyncio.create_task(ask())
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await ask()
        hold.set()
        await first
        return charged

    assert asyncio.run(run()) == [2]


def test_an_answer_that_cannot_be_sent_is_not_answered_twice(table):
    service = HeadService(table, alone, max_features=MAX_FEATURES, max_waiting_heads=64)
    sent = []

    async def receive():
        return {"type": "http.request", "body": features().tobytes()}

    async def send(message):
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            raise OSError("the connection is gone")

    scope = {
        "type": "http",
        "method": "POST",
        "path": GENERATE,
        "query_string": b"",
        "headers": [(b"content-type", b"application/octet-stream")],
    }
    with pytest.raises(OSError, match="the connection is gone"):
        asyncio.run(build_api(service, body_timeout_s=5.0)(scope, receive, send))
    assert sent == ["http.response.start", "http.response.body"]


def test_a_defect_is_a_500_without_internals(table):
    async def broken(chunk: Chunk) -> GeneratedChunk:
        raise RuntimeError("secret path /etc/x")

    with client(table, batched=broken) as api:
        reply = api.post(GENERATE, content=features().tobytes(), headers=OCTETS)
    assert "see the log of its replica" in problem(reply, 500)
    assert "secret" not in reply.text


def test_heads_come_under_a_route_prefix_and_by_post_only(table):
    service = HeadService(table, alone, max_features=MAX_FEATURES, max_waiting_heads=64)
    # Serve passes the prefix of an application as ASGI's root path.
    with TestClient(build_api(service, body_timeout_s=5.0), root_path="/fleet") as api:
        reply = api.post("/fleet" + GENERATE, content=features().tobytes(), headers=OCTETS)
        assert (reply.status_code, reply.headers["X-Task"]) == (200, "open-ended-qa")
        assert problem(api.get("/fleet" + GENERATE), 405) == "Method Not Allowed"
        assert problem(api.post("/fleet/v1/generate", content=b""), 404) == "Not Found"


def test_the_server_gets_the_defect_that_the_client_does_not_see(table):
    async def broken(chunk: Chunk) -> GeneratedChunk:
        raise RuntimeError("for the log")

    service = HeadService(table, broken, max_features=MAX_FEATURES, max_waiting_heads=64)
    with (
        TestClient(build_api(service, body_timeout_s=5.0)) as api,
        pytest.raises(RuntimeError, match="for the log"),
    ):
        api.post(GENERATE, content=features().tobytes(), headers=OCTETS)


def test_openapi_describes_binary_bodies_and_every_error(table):
    with client(table) as api:
        document = json.loads(api.get("/openapi.json").text)
    operation = document["paths"]["/v1/generate/{task}"]["post"]
    assert list(operation["requestBody"]["content"]) == ["application/octet-stream"]
    assert list(operation["responses"]["200"]["content"]) == ["application/x-safetensors"]
    errors = {"400", "401", "404", "406", "408", "413", "415", "422", "429", "504"}
    assert errors <= operation["responses"].keys()
    assert {"get"} == document["paths"]["/v1/models/{name}/base"].keys()
