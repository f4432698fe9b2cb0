"""What a service says when it refuses."""

import json

_QUOTED_CHARACTERS = 300
_PROBLEM = "application/problem+json"


def read_refusal(content: bytes, content_type: str, token: str | None) -> str:
    """Return the reason in the body of a refusal: the detail of a problem (RFC 9457) or the text itself."""
    text = content.decode(errors="replace")
    if content_type.partition(";")[0].strip().lower() == _PROBLEM:
        text = _detail(text)
    # Messages end up in logs and event tables, and some proxies echo what they were sent.
    if token is not None:
        text = text.replace(token, "***")
    return text[:_QUOTED_CHARACTERS]


def _detail(text: str) -> str:
    try:
        problem = json.loads(text)
    except (ValueError, RecursionError):
        return text
    detail = problem.get("detail") or problem.get("title") if isinstance(problem, dict) else None
    return str(detail) if detail else text
