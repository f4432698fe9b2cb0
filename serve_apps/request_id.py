"""The name of a request in replies and logs, whichever way it came."""

import uuid

REQUEST_ID_HEADER = "X-Request-ID"
MAX_REQUEST_ID = 128


def is_repeatable(value: str) -> bool:
    """Tell whether a client's name for its request may come back in a header and stand in logs."""
    return 0 < len(value) <= MAX_REQUEST_ID and value.isascii() and value.isprintable()


def request_id(value: str | None) -> str:
    """Return the client's name for its request, or a new one where it has none that can be repeated."""
    return value if value is not None and is_repeatable(value) else uuid.uuid4().hex
