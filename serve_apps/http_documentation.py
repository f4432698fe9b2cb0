"""What OpenAPI says of binary bodies and problem details, which FastAPI cannot read off the code."""

from typing import Any

from hyperfleet.messages import FEATURE_BYTES
from serve_apps.negotiation import SAFETENSORS
from serve_apps.problem import PROBLEM, Problem

OCTETS = "application/octet-stream"

_BINARY = {"type": "string", "format": "binary"}
_TEXT_HEADERS = {
    "X-Model-Name": "name of the model",
    "X-Model-Version": "version of the model",
    "X-Task": "task of the heads",
    "X-Codec": "how the heads travel",
    "X-Head-Layout": "<classes>x<hidden>",
    "X-Base-Id": "static head that offsets are added to; empty for none",
    "X-Checksum": "xxh3-64=<hexadecimal> of the body",
    "Server-Timing": "queue;dur=<ms>, generate;dur=<ms>, encode;dur=<ms>",
    "X-Request-ID": "as sent, or made by Serve",
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
        "description": "One head for each feature",
        "content": {SAFETENSORS: {"schema": _BINARY}},
        "headers": _headers(_TEXT_HEADERS),
    },
    **_problems(
        {
            400: "A header that cannot be read",
            401: "No valid bearer token",
            404: "No such task or model",
            406: "No codec of the Accept header is offered",
            408: "The body came too slowly",
            413: "More features than one request may carry",
            415: f"Content-Type is not {OCTETS}",
            422: "Not a multiple of a feature's length, empty, or a value is NaN or infinite",
            429: "Too many requests wait, or the client asks for more than it may; see Retry-After",
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
    304: {"description": "If-None-Match names the head that is served"},
    **_problems({401: "No valid bearer token", 404: "No such model, or it has no static head"}),
}
