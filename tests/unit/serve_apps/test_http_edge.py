import asyncio
import json

from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from serve_apps.http_edge import HeaderGuard

FOR_HEADS = (b"for-heads", b"yes")


async def read_as_serve_does(scope, receive, send):
    for name, value in scope["headers"]:
        name.decode(), value.decode()
    await PlainTextResponse("read")(scope, receive, send)


def ask(*headers):
    """Return status, headers and body of the reply; clients' libraries would send no such header."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": list(headers)}
    asyncio.run(HeaderGuard(read_as_serve_does)(scope, None, send))
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


@given(name=st.binary(min_size=1, max_size=20), value=st.binary(max_size=40))
def test_serve_never_gets_a_header_that_it_cannot_read(name, value):
    try:
        name.decode(), value.decode()
    except UnicodeDecodeError:
        expected = 400
    else:
        expected = 200
    assert ask((b"host", b"x"), (name, value))[0] == expected


def test_the_refusal_is_a_problem_detail_that_names_the_header():
    status, headers, body = ask((b"host", b"x"), (b"x-session-id", b"\xb1"), (b"x-\xff", b"1"))
    assert status == 400
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-request-id"]
    problem = json.loads(body)
    assert problem["status"] == 400
    assert problem["instance"] == "/v1/models"
    assert problem["detail"].startswith("header x-session-id, x-\\xff: not UTF-8")


def test_the_request_id_is_kept_and_a_long_list_is_cut():
    status, headers, body = ask((b"X-Request-ID", b"mine"), *((b"x-%d" % i, b"\xff") for i in range(300)))
    assert status == 400
    assert headers[b"x-request-id"] == b"mine"
    assert len(body) < 500


def passed_on(path, *headers, method="POST"):
    """Return the headers of a request that Serve gets."""
    seen = []

    async def app(scope, receive, send):
        seen.extend(scope["headers"])

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(HeaderGuard(app, for_heads=FOR_HEADS)(scope, None, None))
    return seen


def test_serve_gets_only_request_ids_that_it_may_repeat():
    right = [(b"host", b"x"), (b"x-request-id", b"a-1")]
    assert passed_on("/v1/models", *right, method="GET") == right
    for wrong in (b"", b"a" * 129, b"a\tb", b"\xc3\xa4"):
        assert passed_on("/v1/models", right[0], (b"x-request-id", wrong), method="GET") == right[:1]


def test_requests_for_heads_and_no_others_get_the_header_for_them():
    assert passed_on("/v1/generate/retrieval") == [FOR_HEADS]
    assert passed_on("/v1/generate/retrieval", method="GET") == []
    assert passed_on("/v1/generate/") == passed_on("/v1/models") == []


def test_a_websocket_is_closed_and_a_scope_without_headers_passes():
    sent, passed = [], []

    async def app(scope, receive, send):
        passed.append(scope["type"])

    async def send(message):
        sent.append(message)

    guard = HeaderGuard(app)
    asyncio.run(guard({"type": "websocket", "path": "/", "headers": [(b"x", b"\xff")]}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
    asyncio.run(guard({"type": "lifespan"}, None, send))
    assert passed == ["lifespan"]
