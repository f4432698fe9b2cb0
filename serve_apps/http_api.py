"""HTTP interface of the generator: binary bodies, problem details for errors, OpenAPI at /docs.

`GeneratorApi` answers POST /v1/generate/{task} itself, since FastAPI's layers take longer than a small head
does; FastAPI answers all other calls. Nothing here knows Ray: `build_api` makes the same application for a
Serve replica and for a test.
"""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from http import HTTPStatus
from weakref import WeakKeyDictionary

from fastapi import FastAPI, Request, Response
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from hyperfleet.errors import CallerGoneError, HyperFleetError, NotAcceptableError
from hyperfleet.head_codecs import DEFAULT_CODEC
from hyperfleet.messages import FEATURE_BYTES
from serve_apps.head_service import CHECKSUM, EncodedHeads, HeadService
from serve_apps.http_documentation import add_models, document_generate
from serve_apps.http_edge import OCTETS, SAFETENSORS, TIMEOUT_HEADER, Header, problem_of, task_of
from serve_apps.served_models import ServedGenerator

_TIMEOUT = TIMEOUT_HEADER.lower().encode()
_ANY = frozenset({"*/*", "application/*", SAFETENSORS})

Headers = list[Header]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class GeneratorApi(FastAPI):
    """The ASGI application: requests for heads go to `GenerateCall`, all others to FastAPI.

    Args:
        service: generates the heads.
        body_timeout_s: maximum seconds that a client may take to send its body.
        lifespan: runs around the application.
    """

    def __init__(self, service: HeadService, *, body_timeout_s: float, lifespan: Lifespan | None) -> None:
        super().__init__(
            title="HyperFleet parameter generator",
            description="Generates the weights of one small neural network for each uploaded feature.",
            version="v1",
            lifespan=lifespan,
        )
        self._meter = service.meter
        self._generate = GenerateCall(service, body_timeout_s=body_timeout_s)
        document_generate(self)
        # First, since Serve searches the routes to name each request in its metrics.
        self.routes.insert(0, self.routes.pop())
        for kind in (HTTPException, HyperFleetError, Exception):
            self.add_exception_handler(kind, self._refuse)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; an ASGI application."""
        task = task_of(scope)
        if task is not None:
            await self._heads(task, scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    async def _heads(self, task: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers, body = await self._generate(task, scope, receive)
        except Exception as error:
            refusal = await self._refuse(Request(scope), error)
            await refusal(scope, receive, send)
            if not isinstance(error, HTTPException | HyperFleetError):
                # For the log of the server, as Starlette does with unforeseen errors of other calls.
                raise
            return
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _refuse(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else None
        self._meter.refused(HTTPStatus(status).phrase if status is not None else type(error).__name__)
        return problem_of(request.url.path, error)


def build_api(service: HeadService, *, body_timeout_s: float, lifespan: Lifespan | None = None) -> FastAPI:
    """Return the ASGI application over `service`; see `GeneratorApi` for the arguments."""
    api = GeneratorApi(service, body_timeout_s=body_timeout_s, lifespan=lifespan)
    add_models(api, service)
    return api


class GenerateCall:
    """POST /v1/generate/{task}: reads the request and returns the reply with its heads.

    Args:
        service: generates the heads.
        body_timeout_s: maximum seconds that a client may take to send its body.
    """

    def __init__(self, service: HeadService, *, body_timeout_s: float) -> None:
        self._service = service
        self._body_timeout_s = body_timeout_s
        # Headers that all replies of a version share, by codec; dropped with the version.
        self._fixed: WeakKeyDictionary[ServedGenerator, dict[str, Headers]] = WeakKeyDictionary()

    async def __call__(self, task: str, scope: Scope, receive: Receive) -> tuple[Headers, bytes]:
        """Return headers and body of the reply to a request for heads of `task`.

        Raises:
            HTTPException, HyperFleetError: the request is refused.
        """
        service = self._service
        # The first of repeated headers counts.
        headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
        client = service.authenticate(headers.get(b"authorization"))
        deadline_s = _deadline_s(headers.get(_TIMEOUT))
        query = scope["query_string"]
        served = service.table.of_task(task, QueryParams(query).get("model") if query else None)
        codec = negotiate(headers.get(b"accept", ""), served.generator.codecs)
        _check_content_type(headers.get(b"content-type", ""))
        max_bytes = service.max_features * FEATURE_BYTES
        _check_length(headers.get(b"content-length", ""), max_bytes)
        body = await _read_body(receive, max_bytes, self._body_timeout_s)
        work = service.generate(served, body, codec=codec, client=client, deadline_s=deadline_s)
        # A caller of the next batch is not watched: its heads are made before it could leave.
        waits = service.must_wait(len(body) // FEATURE_BYTES)
        heads = await (_unless_gone(work, receive) if waits else work)
        return self._headers(heads), heads.body

    def _headers(self, heads: EncodedHeads) -> Headers:
        by_codec = self._fixed.setdefault(heads.served, {})
        fixed = by_codec.get(heads.codec)
        if fixed is None:
            fixed = by_codec[heads.codec] = _fixed_headers(heads)
        timing = (
            f"queue;dur={1e3 * heads.queue_s:.3f}, generate;dur={1e3 * heads.generate_s:.3f}, "
            f"encode;dur={1e3 * heads.encode_s:.3f}"
        )
        return [
            (b"content-length", b"%d" % len(heads.body)),
            (b"x-checksum", f"{CHECKSUM}={heads.checksum}".encode()),
            (b"server-timing", timing.encode()),
            *fixed,
        ]


def _fixed_headers(heads: EncodedHeads) -> Headers:
    info = heads.served.info
    texts = (
        (b"content-type", f"{SAFETENSORS}; codec={heads.codec}"),
        (b"x-model-name", info.name),
        (b"x-model-version", info.version),
        (b"x-task", info.task),
        (b"x-codec", heads.codec),
        (b"x-head-layout", f"{info.num_classes}x{info.hidden}"),
        (b"x-base-id", info.base_id),
        (b"vary", "Accept"),
    )
    return [(name, text.encode("latin-1")) for name, text in texts]


async def _unless_gone(work: Coroutine[None, None, EncodedHeads], receive: Receive) -> EncodedHeads:
    """Return the result of `work`, or cancel it when the caller leaves first.

    Raises:
        CallerGoneError: the caller left.
        HyperFleetError: raised by `work`.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            # Retrieved so that asyncio does not log it.
            leaving.exception()
            raise CallerGoneError("the connection ended before the heads were generated")
        return working.result()
    finally:
        # Also when Serve cancels this request because it timed out.
        working.cancel()
        leaving.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _deadline_s(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        timeout_s = float(value)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s < math.inf:
        raise HTTPException(
            HTTPStatus.BAD_REQUEST,
            f"{TIMEOUT_HEADER} must be a finite number of seconds above 0, got {value[:40]!r}",
        )
    return time.monotonic() + timeout_s


def _check_content_type(content_type: str) -> None:
    if content_type.partition(";")[0].strip().lower() != OCTETS:
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type must be {OCTETS}, got {content_type[:200]!r}; "
            "send the features as raw little-endian float32",
        )


def _check_length(length: str, max_bytes: int) -> None:
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(int(length), max_bytes)


async def _read_body(receive: Receive, max_bytes: int, timeout_s: float) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            more = True
            # The length header may be absent or wrong, so the received bytes count.
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HTTPException(
                        HTTPStatus.BAD_REQUEST, f"the connection ended after {len(body)} bytes of the body"
                    )
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise _too_large(len(body), max_bytes)
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise HTTPException(
            HTTPStatus.REQUEST_TIMEOUT,
            f"the body took more than {timeout_s:g} s, {len(body)} bytes arrived; send it faster",
        ) from error
    return bytes(body)


def _too_large(num_bytes: int, max_bytes: int) -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"a request carries at most {max_bytes // FEATURE_BYTES} features ({max_bytes} bytes), "
        f"got {num_bytes} bytes or more; send several requests",
    )


# A fleet sends the same few headers; those of strangers must not fill the memory.
@lru_cache(maxsize=256)
def negotiate(accept: str, offered: tuple[str, ...]) -> str:
    """Return the codec of `offered` that the Accept header prefers.

    "application/x-safetensors; codec=fp16" names a codec; several are tried in the order of their q-values. A
    type without the parameter, */* or no header means the default codec.

    Raises:
        NotAcceptableError: none of the named codecs is offered, or the header is no list of media types.
    """
    if not accept.strip():
        return DEFAULT_CODEC
    wishes = []
    for value, quality in parse_accept_header(accept, MIMEAccept):
        media_type, options = parse_options_header(value)
        if media_type.lower() in _ANY:
            wishes.append((options.get("codec", DEFAULT_CODEC).lower(), quality, "codec" in options))
    refused = {wanted for wanted, quality, named in wishes if named and quality <= 0}
    # By q-value alone: werkzeug sorts more specific types first, and one with a codec always is.
    for wanted, quality, _ in sorted(wishes, key=lambda wish: wish[1], reverse=True):
        if quality > 0 and wanted in offered and wanted not in refused:
            return wanted
    raise NotAcceptableError(
        f"Accept {accept[:200]!r} names nothing that is offered; this model's heads come as "
        f"{SAFETENSORS} with codec={'|'.join(offered)}, e.g. '{SAFETENSORS}; codec=fp16'"
    )
