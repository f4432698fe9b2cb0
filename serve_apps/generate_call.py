"""POST /v1/generate/{task} as a plain ASGI application: what a device asks for and what it is answered.

FastAPI documents this call but does not answer it: its layers take longer than a small head does.
"""

import asyncio
import math
import time
from collections.abc import Coroutine
from http import HTTPStatus
from weakref import WeakKeyDictionary

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope

from hyperfleet.errors import CallerGoneError
from hyperfleet.messages import FEATURE_BYTES
from serve_apps.encoded_heads import EncodedHeads
from serve_apps.head_service import CHECKSUM, HeadService
from serve_apps.http_documentation import OCTETS
from serve_apps.negotiation import SAFETENSORS, negotiate
from serve_apps.served_models import ServedGenerator

TIMEOUT_HEADER = "X-Deadline-Seconds"
_TIMEOUT = TIMEOUT_HEADER.lower().encode()

Headers = list[tuple[bytes, bytes]]


class GenerateCall:
    """Makes the replies of requests that get heads.

    Args:
        service: generates.
        body_timeout_s: how long a client may take to send its body.
    """

    def __init__(self, service: HeadService, *, body_timeout_s: float) -> None:
        self._service = service
        self._body_timeout_s = body_timeout_s
        # What is the same in all replies of a version, by codec; it goes when the version does.
        self._fixed: WeakKeyDictionary[ServedGenerator, dict[str, Headers]] = WeakKeyDictionary()

    async def __call__(self, task: str, scope: Scope, receive: Receive) -> tuple[Headers, bytes]:
        """Return headers and body of the answer to a request for heads of `task`.

        Raises:
            HTTPException, HyperFleetError: why there are none.
        """
        service = self._service
        # Of a header that came twice the first counts.
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
        # What gets into the next batch is made before its caller could be missed.
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
    """Return what `work` returns, or give it up when the caller leaves first.

    Raises:
        CallerGoneError: it left.
        HyperFleetError: what `work` raises.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            # Whatever it was that the server said of the connection.
            leaving.exception()
            raise CallerGoneError("the connection ended before the heads were generated")
        return working.result()
    finally:
        # Also when this request itself is cancelled, as Serve does with those whose time is over.
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
            # The header may be absent or wrong, so what arrives counts.
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
            f"the body took more than {timeout_s:g} s, {len(body)} bytes came; send it faster",
        ) from error
    return bytes(body)


def _too_large(num_bytes: int, max_bytes: int) -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"a request carries at most {max_bytes // FEATURE_BYTES} features ({max_bytes} bytes), "
        f"got {num_bytes} bytes or more; send several requests",
    )
