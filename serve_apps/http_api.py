"""The generator's HTTP interface: binary bodies, problem details for errors, OpenAPI at /docs.

Nothing here knows Ray; `build_api` makes the same application for a Serve replica and for a test.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from hyperfleet.errors import FeatureError
from hyperfleet.messages import FEATURE_BYTES, FEATURE_DIM, HeadReply, HeadRequest

OCTETS = "application/octet-stream"
SAFETENSORS = "application/x-safetensors"
PROBLEM = "application/problem+json"
GENERATE_PATH = "/v1/generate/{task}"

_BINARY = {"type": "string", "format": "binary"}


class ModelInfo(BaseModel):
    """Which model is served and what it takes and gives."""

    name: str = Field(description='registered name, or "local" for a bundle folder')
    version: str = Field(description="registered version; also in the header X-Model-Version of every reply")
    run_id: str = Field(description="tracking run that trained it, empty for a bundle folder")
    task: str = Field(description="the {task} of the generate path")
    method: str
    num_classes: int = Field(description="rows of a head's weight")
    hidden: int = Field(description="columns of a head's weight")
    feature_dim: int = FEATURE_DIM
    head_bytes: int = Field(description="size of one head's float32 values in bytes")
    max_features: int = Field(description="most features in one request")


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GeneratedHeads:
    """Heads for one request and how long they took.

    `weight` has shape (n, classes, hidden), `bias` (n, classes). `generate_s` is the time of the
    batches the request was in, `queue_s` what it waited for them, in seconds.
    """

    weight: np.ndarray
    bias: np.ndarray
    queue_s: float
    generate_s: float


class HeadService(Protocol):
    """What the interface needs behind it."""

    @property
    def info(self) -> ModelInfo:
        """The model that answers."""
        ...

    async def generate(self, features: np.ndarray) -> GeneratedHeads:
        """Generate one head for each feature (n, 192)."""
        ...


def build_api(service: HeadService) -> FastAPI:
    """Return the ASGI application over `service`."""
    info = service.info
    api = FastAPI(
        title="HyperFleet parameter generator",
        description="Generates the weights of one small neural network for each uploaded feature.",
        version=f"v1, model {info.name} {info.version}",
    )
    api.add_exception_handler(HTTPException, _http_problem)
    api.add_exception_handler(Exception, _unexpected_problem)

    @api.get("/healthz", summary="Whether the service answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/v1/model", summary="Which model is served")
    async def model() -> ModelInfo:
        return info

    @api.post(
        GENERATE_PATH,
        summary="Generate one head for each feature",
        description=(
            f"The request is n x {FEATURE_BYTES} bytes: n >= 1 features of {FEATURE_DIM} little-endian "
            "float32 values. The reply is a safetensors file with `weight` (n, num_classes, hidden) and "
            "`bias` (n, num_classes), float32. `Server-Timing` tells the milliseconds a request waited for "
            "its batch (`queue`) and those the batch took (`generate`)."
        ),
        response_class=Response,
        responses=_documented_replies(),
        openapi_extra={"requestBody": {"required": True, "content": {OCTETS: {"schema": _BINARY}}}},
    )
    async def generate(task: str, request: Request) -> Response:
        _check_task(task, info)
        _check_content_type(request)
        body = await _read_body(request, max_bytes=info.max_features * FEATURE_BYTES)
        try:
            features = HeadRequest.from_bytes(body).features
        except FeatureError as error:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return _reply(await service.generate(features), info)

    return api


def _reply(heads: GeneratedHeads, info: ModelInfo) -> Response:
    reply = HeadReply(weight=heads.weight, bias=heads.bias, model_version=info.version)
    timing = f"queue;dur={1e3 * heads.queue_s:.3f}, generate;dur={1e3 * heads.generate_s:.3f}"
    headers = {"X-Model-Version": info.version, "Server-Timing": timing}
    return Response(reply.to_bytes(), media_type=SAFETENSORS, headers=headers)


def _check_task(task: str, info: ModelInfo) -> None:
    if task != info.task:
        detail = f"no generator for task {task!r}; this one serves {info.task!r}"
        raise HTTPException(HTTPStatus.NOT_FOUND, detail)


def _check_content_type(request: Request) -> None:
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != OCTETS:
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type must be {OCTETS}, got {content_type!r}; "
            "send the features as raw little-endian float32",
        )


async def _read_body(request: Request, max_bytes: int) -> bytes:
    length = request.headers.get("content-length", "")
    num_bytes = int(length) if length.isdecimal() else 0
    body = bytearray()
    if num_bytes <= max_bytes:
        # The header may be absent or wrong, so what arrives counts.
        async for chunk in request.stream():
            body += chunk
            num_bytes = len(body)
            if num_bytes > max_bytes:
                break
    if num_bytes > max_bytes:
        raise HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"a request carries at most {max_bytes // FEATURE_BYTES} features ({max_bytes} bytes), "
            f"got {num_bytes} bytes or more; send several requests",
        )
    return bytes(body)


def _problem(
    request: Request, status: int, detail: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    problem = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, instance=request.url.path
    )
    return JSONResponse(problem.model_dump(), status_code=status, headers=headers, media_type=PROBLEM)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(request, error.status_code, str(error.detail), dict(error.headers or {}))


async def _unexpected_problem(request: Request, error: Exception) -> Response:
    # Starlette logs the exception itself; a client learns no internals.
    detail = "the generator failed; see the log of its replica"
    return _problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _documented_replies() -> dict[int | str, dict[str, Any]]:
    timing = {"description": "queue;dur=<ms>, generate;dur=<ms>", "schema": {"type": "string"}}
    version = {"description": "version of the model", "schema": {"type": "string"}}
    replies: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "One head for each feature",
            "content": {SAFETENSORS: {"schema": _BINARY}},
            "headers": {"X-Model-Version": version, "Server-Timing": timing},
        }
    }
    reasons = {
        404: "Another task than the model's",
        413: "More features than one request may carry",
        415: f"Content-Type is not {OCTETS}",
        422: "Not a multiple of a feature's length, empty, or a value is NaN or infinite",
    }
    for status, reason in reasons.items():
        # Not FastAPI's "model" key, which would promise application/json beside it.
        schema = Problem.model_json_schema()
        replies[status] = {"description": reason, "content": {PROBLEM: {"schema": schema}}}
    return replies
