"""Clients for programs without an event loop: an asynchronous client in a thread that has one."""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from hyperfleet.client.grpc import AsyncGrpcClient, GrpcSettings
from hyperfleet.client.http import AsyncHttpClient
from hyperfleet.client.reply import GeneratorClient, ReceivedHead
from hyperfleet.client.settings import ClientSettings
from hyperfleet.errors import ServiceError
from hyperfleet.messages import HeadRequest

Client = TypeVar("Client", bound="_InThread")


@dataclass(kw_only=True)
class _InThread:
    """Passes requests on to `asynchronous`, a client class that takes the settings of the subclass."""

    asynchronous: ClassVar[Callable[..., Any]]

    _open: ExitStack = field(default_factory=ExitStack, init=False, repr=False)
    _client: GeneratorClient | None = field(default=None, init=False, repr=False)
    _portal: BlockingPortal | None = field(default=None, init=False, repr=False)

    def __enter__(self: Client) -> Client:
        settings = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.init}
        client = type(self).asynchronous(**settings)
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="hyperfleet-client"))
            stack.enter_context(portal.wrap_async_context_manager(client))
            self._open = stack.pop_all()
        self._client, self._portal = client, portal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client = self._portal = None
        self._open.__exit__(kind, error, trace)

    def request(self, request: HeadRequest) -> ReceivedHead:
        """Request the head of each feature and wait for it; see `GeneratorClient`."""
        client, portal = self._client, self._portal
        if client is None or portal is None:
            raise ServiceError(f"the client is closed; use it inside `with {type(self).__name__}(...)`")
        return portal.call(client.request, request)


@dataclass(kw_only=True)
class HttpClient(_InThread, ClientSettings):
    """Client of the generator service over HTTP; use it in `with`, from any number of threads."""

    asynchronous = AsyncHttpClient


@dataclass(kw_only=True)
class GrpcClient(_InThread, GrpcSettings):
    """Client of the generator service over gRPC; use it in `with`, from any number of threads."""

    asynchronous = AsyncGrpcClient
