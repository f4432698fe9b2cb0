"""Documented calls of the HTTP interface: the models, and OpenAPI's text for POST /v1/generate/{task}.

FastAPI cannot infer binary bodies and problem details from the code, so they are described here.
"""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel

from hyperfleet.messages import FEATURE_BYTES, FEATURE_DIM
from serve_apps.head_service import HeadService
from serve_apps.http_edge import GENERATE_PATH, OCTETS, PROBLEM, SAFETENSORS, TIMEOUT_HEADER, Problem
from serve_apps.served_models import ModelInfo

_BINARY = {"type": "string", "format": "binary"}
_TEXT_HEADERS = {
    "X-Model-Name": "name of the model",
    "X-Model-Version": "version of the model",
    "X-Task": "task of the heads",
    "X-Codec": "codec of the heads",
    "X-Head-Layout": "<classes>x<hidden>",
    "X-Base-Id": "static head that offsets are added to; empty for none",
    "X-Checksum": "xxh3-64=<hexadecimal> of the body",
    "Server-Timing": "queue;dur=<ms>, generate;dur=<ms>, encode;dur=<ms>",
    "X-Request-ID": "as sent, or a new one",
}


def _problems(reasons: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    # Not FastAPI's "model" key, which would promise application/json beside it.
    schema = Problem.model_json_schema()
    return {
        status: {"description": reason, "content": {PROBLEM: {"schema": schema}}}
        for status, reason in reasons.items()
    }


def _headers(texts: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in texts.items()}


GENERATE_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {OCTETS: {"schema": {**_BINARY, "minLength": FEATURE_BYTES}}},
    },
}
GENERATE_REPLIES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One head per feature",
        "content": {SAFETENSORS: {"schema": _BINARY}},
        "headers": _headers(_TEXT_HEADERS),
    },
    **_problems(
        {
            400: "An invalid header",
            401: "No valid bearer token",
            404: "No such task or model",
            406: "The Accept header names no offered codec",
            408: "The body came too slowly",
            413: "More features than a request may carry",
            415: f"Content-Type is not {OCTETS}",
            422: "Not a multiple of a feature's length, empty, or a value is NaN or infinite",
            429: "Too many heads wait, or the client exceeds its rate; see Retry-After",
            504: "The caller's deadline was over before the heads were generated",
        }
    ),
}
MODELS_REPLIES = _problems({401: "No valid bearer token"})
MODEL_REPLIES = _problems({401: "No valid bearer token", 404: "No such model"})
BASE_REPLIES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One tensor `head` (1, num_params), float32",
        "content": {SAFETENSORS: {"schema": _BINARY}},
        "headers": _headers({"ETag": "the model's base_id"}),
    },
    304: {"description": "If-None-Match names the served head"},
    **_problems({401: "No valid bearer token", 404: "No such model, or it has no static head"}),
}


class ModelList(BaseModel):
    """The served models; a task without a model's name goes to its first one here."""

    models: list[ModelInfo]


def add_models(api: FastAPI, service: HeadService) -> None:
    """Add the calls that describe the service and its models."""

    @api.get("/healthz", summary="Liveness of the service; needs no token")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/v1/models", summary="List of the served models", responses=MODELS_REPLIES)
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


def document_generate(api: FastAPI) -> None:
    """Describe the call that `GeneratorApi` answers itself."""

    @api.post(
        GENERATE_PATH,
        summary="Generate one head per feature",
        description=(
            f"The request is n x {FEATURE_BYTES} bytes: n >= 1 features of {FEATURE_DIM} little-endian "
            f"float32 values. `Accept: {SAFETENSORS}; codec=fp16` chooses the codec; the reply is a "
            "safetensors file with metadata. `Server-Timing` reports milliseconds: waiting for the batch "
            "(`queue`), the batch (`generate`) and the codec (`encode`). "
            f"`{TIMEOUT_HEADER}` is the caller's deadline: no work is done after it."
        ),
        response_class=Response,
        responses=GENERATE_REPLIES,
        openapi_extra=GENERATE_REQUEST,
    )
    async def generate(
        task: str, model: str | None = Query(None, description="name of a served model")
    ) -> None:
        raise AssertionError("GeneratorApi answers this call")
