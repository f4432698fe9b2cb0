"""The name of a request in replies and logs, whichever way it came."""

import uuid

REQUEST_ID_HEADER = "X-Request-ID"
MAX_REQUEST_ID = 128


def request_id(value: str | None) -> str:
    """Return the client's name for its request, or a new one where it has none that can be repeated.

    Whatever a client sends comes back in a header and stands in logs.
    """
    if value and len(value) <= MAX_REQUEST_ID and value.isascii() and value.isprintable():
        return value
    return uuid.uuid4().hex
