"""How a program with an event loop asks the cloud for heads over HTTP."""

import re
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp

from hyperfleet.client.address import authorization
from hyperfleet.client.answer import Answer, read_reply, receive
from hyperfleet.client.received import ReceivedHead
from hyperfleet.client.refusal import read_refusal
from hyperfleet.client.retry import Circuit, ask_again, read_retry_after
from hyperfleet.client.settings import ClientSettings
from hyperfleet.errors import ServiceError
from hyperfleet.messages import HeadRequest

# 408, 429, 503: the server asks to come again. 500, 502: the replica died under the request; Serve answers
# for it, and asking again reaches another one (generating a head changes nothing, so twice is once). 504:
# the time of that try was over, and there may be some left for another.
RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})

_DURATION_MS = re.compile(r"([\w-]+)\s*;\s*dur=(\d+(?:\.\d+)?)")
_CHECKSUM = "xxh3-64="


@dataclass(kw_only=True)
class AsyncHttpClient(ClientSettings):
    """Asks the generator service over HTTP with keep-alive connections; use it in `async with`."""

    _session: aiohttp.ClientSession | None = field(default=None, init=False, repr=False)
    _circuit: Circuit = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._circuit = Circuit(retry=self.retry)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.max_connections),
            # Nothing a server hands out may mark the device when it comes back.
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Content-Type": "application/octet-stream",
                "Accept": f"application/x-safetensors; codec={self.codec}",
                # A head is float32 noise to a compressor: 12 ms of CPU for 7% of the bytes.
                "Accept-Encoding": "identity",
                **authorization(self.token),
            },
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(self, request: HeadRequest) -> ReceivedHead:
        """Ask for the head of each feature; see `GeneratorClient`."""
        body = request.to_bytes()

        async def send(left_s: float) -> Answer:
            return await self._send(body, len(request.features), left_s)

        return await receive(send, self._circuit, self.sleep, uplink_bytes=len(body))

    async def _send(self, body: bytes, num_heads: int, left_s: float) -> Answer:
        response, content = await self._post(body, left_s)
        if response.status != 200:
            raise self._refusal(response, content)
        # A proxy on the way may add a line of its own.
        timing = ", ".join(response.headers.getall("Server-Timing", []))
        measured_ms = {name: float(duration) for name, duration in _DURATION_MS.findall(timing)}
        checksum = response.headers.get("X-Checksum", "")
        if "generate" not in measured_ms or not checksum.startswith(_CHECKSUM):
            raise ServiceError(
                f"the reply of {self.url} lacks Server-Timing with 'generate;dur=<ms>' or X-Checksum with "
                f"'{_CHECKSUM}<digits>', got headers {sorted(response.headers)}; is it a parameter generator "
                "of this HyperFleet?"
            )
        return Answer(
            reply=read_reply(content, checksum.removeprefix(_CHECKSUM), num_heads, self),
            num_bytes=len(content),
            generate_s=measured_ms["generate"] / 1000,
            encode_s=measured_ms.get("encode", 0.0) / 1000,
        )

    async def _post(self, body: bytes, left_s: float) -> tuple[aiohttp.ClientResponse, bytes]:
        if self._session is None:
            raise ServiceError("the client is closed; use it inside `async with AsyncHttpClient(...)`")
        try:
            async with self._session.post(
                f"{self.url}/v1/generate/{quote(self.task, safe='')}",
                params={} if self.model is None else {"model": self.model},
                data=body,
                headers={"X-Deadline-Seconds": f"{left_s:.3f}"},
                timeout=aiohttp.ClientTimeout(total=left_s),
                allow_redirects=False,
            ) as response:
                return response, await response.read()
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
            # Payload errors are connections cut in the middle of a reply.
            raise ask_again(
                f"{self.url} cannot be reached: {type(error).__name__} {error}".rstrip()
            ) from error
        except aiohttp.ClientError as error:
            fault = str(error)
        # Not from the error itself, which may hold the headers that were sent, and so the token.
        raise ServiceError(f"{self.url} does not speak HTTP as expected: {fault}")

    def _refusal(self, response: aiohttp.ClientResponse, content: bytes) -> ServiceError:
        reason = read_refusal(content, response.headers.get("Content-Type", ""), self.token)
        message = f"the generator answered HTTP {response.status}: {reason}"
        if response.status not in RETRIED_STATUS:
            return ServiceError(message)
        return ask_again(message, read_retry_after(response.headers.get("Retry-After")))
