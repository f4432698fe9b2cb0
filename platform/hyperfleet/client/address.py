"""Where a service is, and the token that it knows a caller by."""

import re
from urllib.parse import urlsplit

from hyperfleet.errors import ConfigError

_HEADER_CHARACTERS = re.compile(r"[\x21-\x7e]+")


def service_url(url: str) -> str:
    """Return the URL of a service without a slash at its end.

    Raises:
        ConfigError: not http or https, or more than a place.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"the generator's url must be like http://127.0.0.1:8000: {error}") from error
    if "@" in parts.netloc:
        # Not quoted: the password would stand in the message.
        raise ConfigError("the generator's url must not hold a user or password; give a token instead")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigError(f"the generator's url must be like http://127.0.0.1:8000, got {url!r}")
    return url.rstrip("/")


def authorization(token: str | None) -> dict[str, str]:
    """Return the header that shows the token, no header without one.

    Raises:
        ConfigError: a token that no header can hold; the message does not quote it.
    """
    if token is None:
        return {}
    if not _HEADER_CHARACTERS.fullmatch(token):
        raise ConfigError(
            f"a token is one or more visible ASCII characters, got {len(token)} with others among them; "
            "strip the line end if it was read from a file"
        )
    return {"Authorization": f"Bearer {token}"}
