"""What is done with the headers of a request before Serve reads them.

RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, set in tuned.env, puts this around Serve's HTTP servers.

- Serve decodes header names and values as UTF-8 before it calls an application, and answers 500 where that
  fails. Such requests are refused here; the application never sees them, so its metrics do not count them.
- Serve repeats X-Request-ID in replies and logs, whatever it holds. One that cannot be repeated is taken out,
  and Serve makes its own.
- Serve runs two tasks beside each request to see when its caller leaves, which costs as much as answering for
  a small head does. The generator looks itself, where a caller waits long enough to leave (`generate_call`),
  and Serve is told not to, by a header of its own; only where replicas run requests on their main event loop,
  as on the fast path, since Serve then hands over the connection itself.
"""

from http import HTTPStatus

from ray.serve._private import constants
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_apps.problem import PROBLEM, Problem
from serve_apps.request_id import REQUEST_ID_HEADER, is_repeatable, request_id
from serve_apps.routes import task_of

_SHOWN_CHARACTERS = 200
_POLICY_VIOLATION = 1008
_REQUEST_ID = REQUEST_ID_HEADER.lower().encode()
_UNWATCHED = (b"x-request-disconnect-disabled", b"?1")


def middlewares() -> list[Middleware]:
    """Return what Serve puts around its HTTP servers."""
    other_loop = getattr(constants, "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", True)
    return [Middleware(HeaderGuard, watched_by_serve=other_loop)]


class HeaderGuard:
    """ASGI middleware: 400 and a problem detail for a header that is not UTF-8, see above for the rest.

    Args:
        app: what it stands around.
        watched_by_serve: leave it to Serve to see when callers who ask for heads leave.
    """

    def __init__(self, app: ASGIApp, *, watched_by_serve: bool) -> None:
        self._app = app
        self._watched_by_serve = watched_by_serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request with readable headers, refuse another."""
        names = _unreadable(scope.get("headers", []))
        if not names:
            if scope["type"] == "http":
                scope["headers"] = self._for_serve(scope)
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            await _refusal(scope, names)(scope, receive, send)

    def _for_serve(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if name != _REQUEST_ID or is_repeatable(value.decode("latin-1"))
        ]
        if not self._watched_by_serve and task_of(scope) is not None:
            headers.append(_UNWATCHED)
        return headers


def _refusal(scope: Scope, names: list[str]) -> JSONResponse:
    shown = ", ".join(names)[:_SHOWN_CHARACTERS]
    detail = f"header {shown}: not UTF-8; send ASCII, and encode other text, e.g. percent-encoded"
    status = HTTPStatus.BAD_REQUEST
    problem = Problem(title=status.phrase, status=status, detail=detail, instance=scope["path"])
    sent = (value for name, value in scope["headers"] if name.lower() == _REQUEST_ID)
    own_id = request_id(next(sent, b"").decode("latin-1"))
    return JSONResponse(
        problem.model_dump(),
        status_code=status,
        headers={REQUEST_ID_HEADER: own_id},
        media_type=PROBLEM,
    )


def _unreadable(headers: list[tuple[bytes, bytes]]) -> list[str]:
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
