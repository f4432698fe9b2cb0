"""Settings of a client: place of the service, wanted heads, retries."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from hyperfleet.client.retry import RetryPolicy
from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs import DEFAULT_CODEC, BaseHead, HeadLayout
from hyperfleet.head_codecs import codec as head_codec

_HEADER_CHARACTERS = re.compile(r"[\x21-\x7e]+")


@dataclass(kw_only=True)
class ClientSettings:
    """Settings that all clients share.

    Attributes:
        url: place of the service, e.g. "http://127.0.0.1:8000".
        layout: the head that fits the device.
        task: use of the head on the device.
        model: name of the served model; None for the first one of the task.
        codec: encoding of the heads, a name of `hyperfleet.head_codecs.CODECS`.
        base: the device's own static head, for codecs that send an offset to it.
        token: identifies the caller to the service; it appears in no message.
        max_connections: connections kept open; further requests wait for one.
        retry: when to try again and when to give up.
        sleep: waits between tries.

    Raises:
        ConfigError: a value that cannot work; an unknown codec is an UnknownNameError.
    """

    url: str
    layout: HeadLayout
    task: str = "open-ended-qa"
    model: str | None = None
    codec: str = DEFAULT_CODEC
    base: BaseHead | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    max_connections: int = 16
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, repr=False)

    def __post_init__(self) -> None:
        self.url = service_url(self.url)
        authorization(self.token)
        _check_codec(self.codec, self.base, self.layout)
        if self.max_connections < 1:
            raise ConfigError(f"max_connections must be >= 1, got {self.max_connections}")


def service_url(url: str) -> str:
    """Return the URL of a service without a slash at its end.

    Raises:
        ConfigError: the URL is not http or https, or has a user, query or fragment.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"the generator's url must be like http://127.0.0.1:8000: {error}") from error
    if "@" in parts.netloc:
        # Not quoted: the message would repeat the password.
        raise ConfigError("the generator's url must not hold a user or password; give a token instead")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigError(f"the generator's url must be like http://127.0.0.1:8000, got {url!r}")
    return url.rstrip("/")


def authorization(token: str | None) -> dict[str, str]:
    """Return the header that carries the token; no header without one.

    Raises:
        ConfigError: no header can hold the token; the message does not quote it.
    """
    if token is None:
        return {}
    if not _HEADER_CHARACTERS.fullmatch(token):
        raise ConfigError(
            f"a token is one or more visible ASCII characters, got {len(token)} with others among them; "
            "strip the line end if it was read from a file"
        )
    return {"Authorization": f"Bearer {token}"}


def _check_codec(codec: str, base: BaseHead | None, layout: HeadLayout) -> None:
    """Make sure that a device of this layout can use heads in `codec`.

    Raises:
        UnknownNameError: there is no such codec.
        ConfigError: it needs a static head and there is none, or one of another shape.
    """
    if head_codec(codec).needs_base and base is None:
        raise ConfigError(
            f"codec {codec!r} sends what is added to the static head; give the device's own as `base`, which "
            "`fetch_base` gets from the service, or ask for fp32, fp16, bf16 or int8"
        )
    if base is not None and base.layout != layout:
        raise ConfigError(
            f"`base` is a static head of {base.layout.num_classes} classes x {base.layout.hidden} hidden "
            f"units, the device's head has {layout.num_classes} x {layout.hidden}; take both from one model"
        )
