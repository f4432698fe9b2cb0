"""HTTP before the application: names of headers and paths, problem details, and a guard for headers.

Nothing here knows Ray or loads PyTorch: Serve's proxies import it too (see `ray_private.middlewares`).
"""

import logging
import math
import uuid
from http import HTTPStatus

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hyperfleet.errors import (
    CallerGoneError,
    ComeAgainError,
    DeadlineError,
    FeatureError,
    HyperFleetError,
    NotAcceptableError,
    TooManyFeaturesError,
    UnauthenticatedError,
    UnknownNameError,
)

OCTETS = "application/octet-stream"
SAFETENSORS = "application/x-safetensors"
PROBLEM = "application/problem+json"
TIMEOUT_HEADER = "X-Deadline-Seconds"
REQUEST_ID_HEADER = "X-Request-ID"
MAX_REQUEST_ID = 128

_GENERATE = "/v1/generate/"
GENERATE_PATH = _GENERATE + "{task}"

_REQUEST_ID = REQUEST_ID_HEADER.lower().encode()
_SHOWN_CHARACTERS = 200
_POLICY_VIOLATION = 1008
_STATUS: dict[type[HyperFleetError], HTTPStatus] = {
    UnauthenticatedError: HTTPStatus.UNAUTHORIZED,
    UnknownNameError: HTTPStatus.NOT_FOUND,
    NotAcceptableError: HTTPStatus.NOT_ACCEPTABLE,
    TooManyFeaturesError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    FeatureError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ComeAgainError: HTTPStatus.TOO_MANY_REQUESTS,
    DeadlineError: HTTPStatus.GATEWAY_TIMEOUT,
    # Nobody reads it.
    CallerGoneError: HTTPStatus.BAD_REQUEST,
}
_log = logging.getLogger(__name__)

Header = tuple[bytes, bytes]


def task_of(scope: Scope) -> str | None:
    """Return the task of a request for heads; None for any other request."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    task = path[len(_GENERATE) :]
    return task if task and path.startswith(_GENERATE) and "/" not in task else None


def is_repeatable(value: str) -> bool:
    """Return whether a client's request id may be repeated in headers and logs."""
    return 0 < len(value) <= MAX_REQUEST_ID and value.isascii() and value.isprintable()


def request_id(value: str | None) -> str:
    """Return the client's request id, or a new one if it has none that may be repeated."""
    return value if value is not None and is_repeatable(value) else uuid.uuid4().hex


class Problem(BaseModel):
    """Problem details (RFC 9457), the body of every refusal."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str


def problem(path: str, status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the refusal of a request for `path`."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, instance=path)
    return JSONResponse(body.model_dump(), status_code=status, headers=headers, media_type=PROBLEM)


def problem_of(path: str, error: Exception) -> JSONResponse:
    """Return the refusal that reports `error`; an unforeseen one becomes a 500 without its message."""
    if isinstance(error, HTTPException):
        return problem(path, error.status_code, str(error.detail), dict(error.headers or {}))
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), None)
    if status is None:
        if isinstance(error, HyperFleetError):
            # The server logs all others when they are raised again.
            _log.error("%s", error, exc_info=error)
        detail = "the generator failed; see the log of its replica"
        return problem(path, HTTPStatus.INTERNAL_SERVER_ERROR, detail)
    headers = {}
    if isinstance(error, ComeAgainError):
        # Whole seconds, at least one: the request was refused "now".
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(path, status, str(error), headers)


class HeaderGuard:
    """ASGI middleware that checks and completes headers before Serve reads them.

    - Serve decodes names and values as UTF-8 before it calls the application, and answers 500 if that fails.
      The guard answers 400 with a problem detail. The application does not see such requests, so its metrics
      do not count them.
    - Serve repeats X-Request-ID in replies and logs. The guard removes an id that must not be repeated, and
      Serve makes a new one.
    - Requests for heads get the additional header `for_heads`.

    Args:
        app: the wrapped application.
        for_heads: a header for Serve; None for none.
    """

    def __init__(self, app: ASGIApp, *, for_heads: Header | None = None) -> None:
        self._app = app
        self._for_heads = for_heads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request with readable headers, refuse any other."""
        names = _unreadable(scope.get("headers", []))
        if not names:
            if scope["type"] == "http":
                scope["headers"] = self._for_serve(scope)
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            await _refusal(scope, names)(scope, receive, send)

    def _for_serve(self, scope: Scope) -> list[Header]:
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if name != _REQUEST_ID or is_repeatable(value.decode("latin-1"))
        ]
        if self._for_heads is not None and task_of(scope) is not None:
            headers.append(self._for_heads)
        return headers


def _refusal(scope: Scope, names: list[str]) -> JSONResponse:
    shown = ", ".join(names)[:_SHOWN_CHARACTERS]
    detail = f"header {shown}: not UTF-8; send ASCII, and encode other text, e.g. percent-encoded"
    sent = (value for name, value in scope["headers"] if name.lower() == _REQUEST_ID)
    own_id = request_id(next(sent, b"").decode("latin-1"))
    return problem(scope["path"], HTTPStatus.BAD_REQUEST, detail, {REQUEST_ID_HEADER: own_id})


def _unreadable(headers: list[Header]) -> list[str]:
    names = (name for name, value in headers if not (_is_utf8(name) and _is_utf8(value)))
    return list(dict.fromkeys(name.decode("ascii", "backslashreplace") for name in names))


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
