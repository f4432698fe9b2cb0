"""What a client of the service is told, whether it runs in an event loop or not."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hyperfleet.client.address import authorization, service_url
from hyperfleet.client.retry import RetryPolicy
from hyperfleet.client.wanted import check_codec
from hyperfleet.errors import ConfigError
from hyperfleet.head_codecs import DEFAULT_CODEC, BaseHead, HeadLayout


@dataclass(kw_only=True)
class ClientSettings:
    """Where to ask, for what, and how patiently.

    Attributes:
        url: where the service listens, e.g. "http://127.0.0.1:8000".
        layout: the head that fits the device.
        task: what the device does with the head.
        model: name of the served model; None for the first one of the task.
        codec: how heads travel, a name of `hyperfleet.head_codecs.CODECS`.
        base: the device's own static head, for codecs that send what is added to it.
        token: what the service knows the caller by; it appears in no message.
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
        check_codec(self.codec, self.base, self.layout)
        if self.max_connections < 1:
            raise ConfigError(f"max_connections must be >= 1, got {self.max_connections}")
