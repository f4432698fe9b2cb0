"""The generator's HTTP interface: binary bodies, problem details for errors, OpenAPI at /docs.

Nothing here knows Ray; `build_api` makes the same application for a Serve replica and for a test.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from hyperfleet.errors import (
    ComeAgainError,
    DeadlineError,
    FeatureError,
    HyperFleetError,
    NotAcceptableError,
    TooManyFeaturesError,
    UnauthenticatedError,
    UnknownNameError,
)
from hyperfleet.messages import FEATURE_BYTES, FEATURE_DIM
from serve_apps.encoded_heads import EncodedHeads
from serve_apps.head_service import CHECKSUM, HeadService
from serve_apps.http_documentation import (
    BASE_REPLIES,
    GENERATE_REPLIES,
    GENERATE_REQUEST,
    MODEL_REPLIES,
    MODELS_REPLIES,
    OCTETS,
)
from serve_apps.metering import Meter
from serve_apps.negotiation import SAFETENSORS, negotiate
from serve_apps.problem import PROBLEM, Problem
from serve_apps.request_id import REQUEST_ID_HEADER
from serve_apps.request_id import request_id as read_request_id
from serve_apps.served_models import ModelInfo

GENERATE_PATH = "/v1/generate/{task}"
TIMEOUT_HEADER = "X-Deadline-Seconds"

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Handler = Callable[[Request, Exception], Awaitable[Response]]

_STATUS: dict[type[HyperFleetError], HTTPStatus] = {
    UnauthenticatedError: HTTPStatus.UNAUTHORIZED,
    UnknownNameError: HTTPStatus.NOT_FOUND,
    NotAcceptableError: HTTPStatus.NOT_ACCEPTABLE,
    TooManyFeaturesError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    FeatureError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ComeAgainError: HTTPStatus.TOO_MANY_REQUESTS,
    DeadlineError: HTTPStatus.GATEWAY_TIMEOUT,
}


class ModelList(BaseModel):
    """What is served; a task without a model's name goes to its first one here."""

    models: list[ModelInfo]


def build_api(service: HeadService, *, body_timeout_s: float, lifespan: Lifespan | None = None) -> FastAPI:
    """Return the ASGI application over `service`.

    Args:
        service: answers.
        body_timeout_s: how long a client may take to send its body.
        lifespan: runs around the application.
    """
    api = FastAPI(
        title="HyperFleet parameter generator",
        description="Generates the weights of one small neural network for each uploaded feature.",
        version="v1",
        lifespan=lifespan,
    )
    meter = service.meter
    api.add_exception_handler(HTTPException, _counted(meter, _http_problem))
    api.add_exception_handler(HyperFleetError, _counted(meter, _known_problem))
    api.add_exception_handler(Exception, _counted(meter, _unexpected_problem))

    _describe_models(api, service)
    _generate_heads(api, service, body_timeout_s)
    return api


def _describe_models(api: FastAPI, service: HeadService) -> None:
    @api.get("/healthz", summary="Whether the service answers; needs no token")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/v1/models", summary="Which models are served", responses=MODELS_REPLIES)
    async def models(request: Request) -> ModelList:
        service.authenticate(request.headers.get("authorization"))
        return ModelList(models=service.table.infos())

    @api.get("/v1/models/{name}", summary="One model", responses=MODEL_REPLIES)
    async def model(name: str, request: Request) -> ModelInfo:
        service.authenticate(request.headers.get("authorization"))
        return service.table.named(name).info

    @api.get(
        "/v1/models/{name}/base",
        summary="The static head that offsets are added to",
        response_class=Response,
        responses=BASE_REPLIES,
    )
    async def base(name: str, request: Request) -> Response:
        service.authenticate(request.headers.get("authorization"))
        served = service.table.named(name)
        etag = f'"{served.info.base_id}"'
        if served.info.base_id and request.headers.get("if-none-match") == etag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag})
        return Response(served.base_file(), media_type=SAFETENSORS, headers={"ETag": etag})


def _generate_heads(api: FastAPI, service: HeadService, body_timeout_s: float) -> None:
    @api.post(
        GENERATE_PATH,
        summary="Generate one head for each feature",
        description=(
            f"The request is n x {FEATURE_BYTES} bytes: n >= 1 features of {FEATURE_DIM} little-endian "
            f"float32 values. `Accept: {SAFETENSORS}; codec=fp16` chooses how the heads travel; the reply "
            "is a safetensors file whose metadata say what it holds. `Server-Timing` tells the milliseconds "
            "a request waited for its batch (`queue`), those the batch took (`generate`) and those of the "
            f"codec (`encode`). `{TIMEOUT_HEADER}` is the caller's deadline: later work is not done."
        ),
        response_class=Response,
        responses=GENERATE_REPLIES,
        openapi_extra=GENERATE_REQUEST,
    )
    async def generate(
        task: str, request: Request, model: str | None = Query(None, description="name of a served model")
    ) -> Response:
        headers = request.headers
        client = service.authenticate(headers.get("authorization"))
        deadline_s = _deadline_s(headers.get(TIMEOUT_HEADER))
        served = service.table.of_task(task, model)
        codec = negotiate(headers.get("accept", ""), served.generator.codecs)
        _check_content_type(headers.get("content-type", ""))
        body = await _read_body(request, service.max_features * FEATURE_BYTES, body_timeout_s)
        heads = await service.generate(served, body, codec=codec, client=client, deadline_s=deadline_s)
        return _reply(heads, read_request_id(headers.get(REQUEST_ID_HEADER)))


def _reply(heads: EncodedHeads, request_id: str) -> Response:
    info = heads.served.info
    timing = ", ".join(
        f"{name};dur={1e3 * seconds:.3f}"
        for name, seconds in (
            ("queue", heads.queue_s),
            ("generate", heads.generate_s),
            ("encode", heads.encode_s),
        )
    )
    headers = {
        "X-Model-Name": info.name,
        "X-Model-Version": info.version,
        "X-Task": info.task,
        "X-Codec": heads.codec,
        "X-Head-Layout": f"{info.num_classes}x{info.hidden}",
        "X-Base-Id": info.base_id,
        "X-Checksum": f"{CHECKSUM}={heads.checksum}",
        "Server-Timing": timing,
        REQUEST_ID_HEADER: request_id,
        "Vary": "Accept",
    }
    return Response(heads.body, media_type=f"{SAFETENSORS}; codec={heads.codec}", headers=headers)


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


async def _read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(int(length), max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            # The header may be absent or wrong, so what arrives counts.
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(len(body), max_bytes)
    except TimeoutError as error:
        raise HTTPException(
            HTTPStatus.REQUEST_TIMEOUT,
            f"the body took more than {timeout_s:g} s, {len(body)} bytes came; send it faster",
        ) from error
    except ClientDisconnect as error:
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, f"the connection ended after {len(body)} bytes of the body"
        ) from error
    return bytes(body)


def _too_large(num_bytes: int, max_bytes: int) -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"a request carries at most {max_bytes // FEATURE_BYTES} features ({max_bytes} bytes), "
        f"got {num_bytes} bytes or more; send several requests",
    )


def _counted(meter: Meter, handler: Handler) -> Handler:
    async def handle(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else None
        meter.refused(HTTPStatus(status).phrase if status is not None else type(error).__name__)
        return await handler(request, error)

    return handle


def _problem(
    request: Request, status: int, detail: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    problem = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, instance=request.url.path
    )
    sent = {REQUEST_ID_HEADER: read_request_id(request.headers.get(REQUEST_ID_HEADER)), **(headers or {})}
    return JSONResponse(problem.model_dump(), status_code=status, headers=sent, media_type=PROBLEM)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(request, error.status_code, str(error.detail), dict(error.headers or {}))


async def _known_problem(request: Request, error: Exception) -> Response:
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), None)
    if status is None:
        return await _unexpected_problem(request, error)
    headers = {}
    if isinstance(error, ComeAgainError):
        # Whole seconds, never zero: "now" is when it was refused.
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return _problem(request, status, str(error), headers)


async def _unexpected_problem(request: Request, error: Exception) -> Response:
    # Starlette logs the exception itself; a client learns no internals.
    detail = "the generator failed; see the log of its replica"
    return _problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)
