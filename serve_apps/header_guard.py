"""Requests whose headers Serve itself cannot read are refused before it tries.

Serve decodes header names and values as UTF-8 before it calls an application, and answers 500 where
that fails. RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, set in tuned.env, puts this around its HTTP servers.
"""

from http import HTTPStatus

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_apps.http_documentation import PROBLEM, Problem
from serve_apps.request_id import REQUEST_ID_HEADER, request_id


def middlewares() -> list[Middleware]:
    """Return what Serve puts around its HTTP servers."""
    return [Middleware(HeaderGuard)]


class HeaderGuard:
    """ASGI middleware: 400 and a problem detail for a header that is not UTF-8."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request with readable headers, refuse another."""
        names = [] if scope["type"] != "http" else _unreadable(scope["headers"])
        if not names:
            await self._app(scope, receive, send)
            return
        detail = (
            f"header {', '.join(names)}: not UTF-8; send ASCII, and encode other text, e.g. percent-encoded"
        )
        status = HTTPStatus.BAD_REQUEST
        problem = Problem(title=status.phrase, status=status, detail=detail, instance=scope["path"])
        reply = JSONResponse(
            problem.model_dump(),
            status_code=status,
            headers={REQUEST_ID_HEADER: request_id(None)},
            media_type=PROBLEM,
        )
        await reply(scope, receive, send)


def _unreadable(headers: list[tuple[bytes, bytes]]) -> list[str]:
    return [
        name.decode("ascii", "backslashreplace")
        for name, value in headers
        if not (_is_utf8(name) and _is_utf8(value))
    ]


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
