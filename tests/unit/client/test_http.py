import asyncio
import json
import logging

import numpy as np
import pytest
import torch
from aiohttp import web

from hyperfleet.client import AsyncHttpClient, RetryPolicy
from hyperfleet.errors import ConfigError, HeadLayoutError, ServiceError, UnknownNameError
from hyperfleet.head_codecs import CODECS, BaseHead, HeadLayout, codec
from hyperfleet.messages import FEATURE_BYTES, encode_heads
from tests.worlds.http_cloud import (
    BASE,
    LABEL,
    LAYOUT,
    TIMING,
    Cloud,
    ask,
    feature,
    generate,
    good_reply,
    modulate,
    reply_headers,
    status,
)

TOKEN = "s3cret+/=token"
OTHER_BASE = BaseHead(layout=LAYOUT, flat=torch.zeros(LAYOUT.num_params))


def test_what_leaves_the_device_is_768_bytes_of_feature_and_nothing_else():
    cloud = Cloud()
    heads, _ = ask(cloud, num_requests=3)
    for i, (head, (method, path, headers, body)) in enumerate(zip(heads, cloud.seen, strict=True)):
        assert (method, path) == ("POST", "/v1/generate/open-ended-qa")
        assert body == feature(i).to_bytes()
        assert len(body) == FEATURE_BYTES == head.uplink_bytes
        assert set(headers) == {
            "Host",
            "Content-Type",
            "Content-Length",
            "Accept",
            "Accept-Encoding",
            "User-Agent",
            "X-Deadline-Seconds",
        }
        assert headers["Accept"] == "application/x-safetensors; codec=fp32"
        assert torch.equal(head.reply.heads.dense(), generate(feature(i).features).full())
        assert (head.reply.label, head.reply.codec, head.num_tries) == (LABEL, "fp32", 1)
        assert (head.generate_s, head.encode_s) == (0.0025, 0.0005)
        assert head.downlink_bytes > LAYOUT.num_bytes
        assert 0 <= head.queue_s < head.round_trip_s


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_crosses_a_real_connection(name):
    made_by = modulate if name == "film" else generate
    cloud = Cloud(always=lambda request, body: good_reply(request, body, made_by))
    (head,), _ = ask(cloud, codec=name, base=BASE)
    generated = made_by(feature().features)
    error = (head.reply.heads.dense() - generated.full()).norm(dim=1)
    assert head.reply.codec == name
    assert error <= codec(name).error_bound(generated)
    assert codec(name).num_bytes(LAYOUT) < head.downlink_bytes < codec(name).num_bytes(LAYOUT) + 1000
    hidden = np.random.default_rng(2).normal(size=(1, LAYOUT.hidden)).astype(np.float32)
    weight, bias = LAYOUT.split(head.reply.heads.dense().numpy())
    np.testing.assert_allclose(head.reply.heads.scores(hidden), weight[0] @ hidden[0] + bias, atol=1e-3)


def test_model_and_task_may_contain_any_characters():
    cloud = Cloud()
    ask(cloud, task="a task/b", model="my model & more")
    assert cloud.seen[0][1] == "/v1/generate/a%20task%2Fb?model=my+model+%26+more"


def damaged(request: web.Request, body: bytes) -> web.Response:
    reply = good_reply(request, body)
    reply.body = reply.body[:-1] + bytes([reply.body[-1] ^ 1])
    return reply


async def cut_short(request: web.Request, body: bytes) -> web.StreamResponse:
    whole = good_reply(request, body)
    part = web.StreamResponse(headers=reply_headers(whole.body))
    part.content_length = len(whole.body)
    await part.prepare(request)
    await part.write(whole.body[:1000])
    request.transport.close()
    return part


def test_a_damaged_or_cut_reply_is_retried():
    (head,), _ = ask(Cloud(script=[damaged, cut_short]))
    assert head.num_tries == 3
    assert torch.equal(head.reply.heads.dense(), generate(feature().features).full())
    with pytest.raises(ServiceError, match=r"2 tries: the reply of http://\S+ was damaged on its way"):
        ask(Cloud(always=damaged), retry=RetryPolicy(max_tries=2))


def test_a_reply_that_is_no_head_of_this_device_is_refused():
    other = HeadLayout(num_classes=6)
    wrong_codec = encode_heads(generate(feature().features), codec="fp16", label=LABEL)
    for body, settings, message in (
        (good_body(), {"layout": other}, "holds head .* expected head"),
        (b"<html>", {}, "not a safetensors file"),
        (wrong_codec, {}, "in codec 'fp32', got 'fp16'"),
    ):
        answer = web.Response(body=body, headers=reply_headers(body))
        cloud = Cloud(script=[lambda request, sent, answer=answer: answer])
        with pytest.raises(HeadLayoutError, match=message):
            ask(cloud, **settings)
        assert len(cloud.seen) == 1
    for headers in ({}, {"Server-Timing": TIMING}, {"X-Checksum": reply_headers(b"")["X-Checksum"]}):
        answer = web.Response(body=good_body(), headers=headers)
        with pytest.raises(ServiceError, match=r"lacks Server-Timing .* or X-Checksum"):
            ask(Cloud(script=[lambda request, sent, answer=answer: answer]))


def good_body() -> bytes:
    return encode_heads(generate(feature().features), codec="fp32", label=LABEL)


@pytest.mark.parametrize("codec", ["delta-fp16", "fp16"])
def test_heads_for_devices_with_another_static_head_are_refused(codec):
    with pytest.raises(HeadLayoutError, match=rf"devices with the static head '{BASE.id}', this one's is"):
        ask(Cloud(), codec=codec, base=OTHER_BASE)


def test_a_second_line_of_server_timing_does_no_harm():
    def by_proxy(request: web.Request, body: bytes) -> web.Response:
        reply = good_reply(request, body)
        reply.headers.add("Server-Timing", 'cdn-cache; desc="MISS", edge;dur=1')
        return reply

    (head,), _ = ask(Cloud(always=by_proxy))
    assert head.generate_s == 0.0025


def test_a_service_that_speaks_no_http_and_one_that_redirects_are_refused():
    async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"what?\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(mumble, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with AsyncHttpClient(url=f"http://127.0.0.1:{port}", layout=LAYOUT, token=TOKEN) as client:
                await client.request(feature())

    with pytest.raises(ServiceError, match="does not speak HTTP as expected") as caught:
        asyncio.run(run())
    assert TOKEN not in "".join(told_by(caught.value))
    with pytest.raises(ServiceError, match="HTTP 307"):
        ask(Cloud(script=[status(307, Location="http://127.0.0.1:9/")]))


def told_by(error: BaseException | None) -> list[str]:
    """Return all texts of an error and its causes."""
    return [] if error is None else [str(error), repr(error), *told_by(error.__cause__ or error.__context__)]


def test_the_token_is_sent_and_appears_nowhere_else(caplog):
    caplog.set_level(logging.DEBUG)
    cloud = Cloud()
    ask(cloud, token=TOKEN)
    assert cloud.sent("Authorization") == [f"Bearer {TOKEN}"]
    client = AsyncHttpClient(url="http://127.0.0.1:9", layout=LAYOUT, token=TOKEN)
    assert TOKEN not in repr(client) + repr(client.retry)

    def echo(request: web.Request, body: bytes) -> web.Response:
        return web.Response(status=401, text=f"who is {request.headers['Authorization']}?")

    with pytest.raises(ServiceError, match=r"HTTP 401: who is Bearer \*\*\*\?") as caught:
        ask(Cloud(always=echo), token=TOKEN)
    told = told_by(caught.value)
    with pytest.raises(ServiceError) as unreachable:
        ask(Cloud(), url="http://127.0.0.1:9", token=TOKEN)
    told += told_by(unreachable.value)
    assert TOKEN not in "".join(told) + caplog.text


def test_an_error_quotes_the_detail_of_a_problem():
    problem = {"type": "about:blank", "title": "Not Acceptable", "status": 406, "detail": "offered: fp32"}
    answers = {
        json.dumps(problem): "HTTP 406: offered: fp32$",
        json.dumps({"title": "Not Acceptable"}): "HTTP 406: Not Acceptable$",
        "[1, 2": r"HTTP 406: \[1, 2$",
        "[1, 2]": r"HTTP 406: \[1, 2\]$",
        "x" * 9999: "HTTP 406: x{300}$",
    }
    for text, message in answers.items():
        reply = web.Response(status=406, text=text, content_type="application/problem+json")
        with pytest.raises(ServiceError, match=message):
            ask(Cloud(script=[lambda request, body, reply=reply: reply]))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"codec": "fp8"}, UnknownNameError, "unknown head codec 'fp8'; expected one of: bf16"),
        ({"codec": "rank4"}, ConfigError, "codec 'rank4' sends what is added to the static head"),
        ({"layout": HeadLayout(num_classes=3), "base": BASE}, ConfigError, "static head of 16 classes"),
        ({"url": "ftp://cloud"}, ConfigError, "like http://127.0.0.1:8000, got 'ftp://cloud'"),
        ({"url": "127.0.0.1:8000"}, ConfigError, "like http://127.0.0.1:8000, got '127.0.0.1:8000'"),
        ({"url": "http://cloud:port"}, ConfigError, "like http://127.0.0.1:8000: "),
        ({"url": "http://cloud?x=1"}, ConfigError, "like http://127.0.0.1:8000, got"),
        ({"url": "http://me:pass@cloud"}, ConfigError, "must not hold a user or password; give a token"),
        ({"token": "line end\n"}, ConfigError, "visible ASCII characters, got 9 with others among them"),
        ({"token": ""}, ConfigError, "one or more visible ASCII characters, got 0"),
        ({"max_connections": 0}, ConfigError, "max_connections must be >= 1, got 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_construction(settings, error, message):
    with pytest.raises(error, match=message) as caught:
        AsyncHttpClient(**{"url": "http://127.0.0.1:8000", "layout": LAYOUT, **settings})
    assert "pass" not in str(caught.value).replace("password", "")
    assert "line end\n" not in str(caught.value)


def test_a_closed_client_is_refused():
    client = AsyncHttpClient(url="http://127.0.0.1:8000/", layout=LAYOUT)
    assert client.url == "http://127.0.0.1:8000"
    with pytest.raises(ServiceError, match="inside `async with AsyncHttpClient"):
        asyncio.run(client.request(feature()))
