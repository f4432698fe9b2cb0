"""The HTTP client for programs without an event loop."""

from dataclasses import dataclass

from hyperfleet.client.http import AsyncHttpClient
from hyperfleet.client.in_thread import InThread
from hyperfleet.client.settings import ClientSettings


@dataclass(kw_only=True)
class HttpClient(InThread, ClientSettings):
    """Asks the generator service over HTTP; use it in `with`, from as many threads as wanted."""

    asynchronous = AsyncHttpClient
