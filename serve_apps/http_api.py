"""The generator's HTTP interface: binary bodies, problem details for errors, OpenAPI at /docs.

Nothing here knows Ray; `build_api` makes the same application for a Serve replica and for a test.
"""

import logging
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

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
from hyperfleet.messages import FEATURE_BYTES, FEATURE_DIM
from serve_apps.generate_call import TIMEOUT_HEADER, GenerateCall
from serve_apps.head_service import HeadService
from serve_apps.http_documentation import (
    BASE_REPLIES,
    GENERATE_REPLIES,
    GENERATE_REQUEST,
    MODEL_REPLIES,
    MODELS_REPLIES,
)
from serve_apps.negotiation import SAFETENSORS
from serve_apps.problem import PROBLEM, Problem
from serve_apps.routes import GENERATE_PATH, task_of
from serve_apps.served_models import ModelInfo

_log = logging.getLogger(__name__)
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

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


class ModelList(BaseModel):
    """What is served; a task without a model's name goes to its first one here."""

    models: list[ModelInfo]


class GeneratorApi(FastAPI):
    """Answers the one call that has to be fast itself, before FastAPI's layers, which answer all others.

    Args:
        service: answers.
        body_timeout_s: how long a client may take to send its body.
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
        _document_generate(self)
        # Serve goes through the routes as well, to name each request in its metrics.
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
                # The server logs it, as Starlette lets it do with defects of other calls.
                raise
            return
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _refuse(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else None
        self._meter.refused(HTTPStatus(status).phrase if status is not None else type(error).__name__)
        return _problem_of(request, error)


def build_api(service: HeadService, *, body_timeout_s: float, lifespan: Lifespan | None = None) -> FastAPI:
    """Return the ASGI application over `service`; see `GeneratorApi` for the arguments."""
    api = GeneratorApi(service, body_timeout_s=body_timeout_s, lifespan=lifespan)
    _describe_models(api, service)
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


def _document_generate(api: FastAPI) -> None:
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
        task: str, model: str | None = Query(None, description="name of a served model")
    ) -> None:
        raise AssertionError("GeneratorApi answers this call")


def _problem(
    request: Request, status: int, detail: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    problem = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, instance=request.url.path
    )
    return JSONResponse(problem.model_dump(), status_code=status, headers=headers, media_type=PROBLEM)


def _problem_of(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return _problem(request, error.status_code, str(error.detail), dict(error.headers or {}))
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), None)
    if status is None:
        if isinstance(error, HyperFleetError):
            # Others are raised again and logged by the server.
            _log.error("%s", error, exc_info=error)
        # A client learns no internals.
        detail = "the generator failed; see the log of its replica"
        return _problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)
    headers = {}
    if isinstance(error, ComeAgainError):
        # Whole seconds, never zero: "now" is when it was refused.
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return _problem(request, status, str(error), headers)
