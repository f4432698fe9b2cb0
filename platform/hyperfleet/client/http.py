"""Asynchronous client over HTTP."""

import re
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp

from hyperfleet.client.reply import Answer, ReceivedHead, read_refusal, read_reply, receive
from hyperfleet.client.retry import Circuit, read_retry_after
from hyperfleet.client.settings import ClientSettings, authorization
from hyperfleet.errors import ServiceError
from hyperfleet.messages import HeadRequest

# 408, 429, 503: the server asks for a retry. 500, 502: the replica died during the request and Serve answers;
# a retry reaches another one, and generating twice is harmless. 504: the time of that try was over, but the
# deadline may leave some for another.
RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})

_DURATION_MS = re.compile(r"([\w-]+)\s*;\s*dur=(\d+(?:\.\d+)?)")
_CHECKSUM = "xxh3-64="


@dataclass(kw_only=True)
class AsyncHttpClient(ClientSettings):
    """Client of the generator service over HTTP with keep-alive connections; use it in `async with`."""

    _session: aiohttp.ClientSession | None = field(default=None, init=False, repr=False)
    _circuit: Circuit = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._circuit = Circuit(retry=self.retry)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.max_connections),
            # No cookie may identify the device in later requests.
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Content-Type": "application/octet-stream",
                "Accept": f"application/x-safetensors; codec={self.codec}",
                # Compressing a head, float32 noise, would save 7% of the bytes for 12 ms of CPU.
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
        """Request the head of each feature; see `GeneratorClient`."""
        body = request.to_bytes()

        async def send(left_s: float) -> Answer:
            return await self._send(body, len(request.features), left_s)

        return await receive(send, self._circuit, self.sleep, uplink_bytes=len(body))

    async def _send(self, body: bytes, num_heads: int, left_s: float) -> Answer:
        response, content = await self._post(body, left_s)
        if response.status != 200:
            raise self._refusal(response, content)
        # A proxy may have added a header line of its own.
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
            # A payload error is a connection cut during a reply.
            raise ServiceError(
                f"{self.url} cannot be reached: {type(error).__name__} {error}".rstrip(), transient=True
            ) from error
        except aiohttp.ClientError as error:
            fault = str(error)
        # Not chained to the client error, which may hold the sent headers and so the token.
        raise ServiceError(f"{self.url} does not speak HTTP as expected: {fault}")

    def _refusal(self, response: aiohttp.ClientResponse, content: bytes) -> ServiceError:
        reason = read_refusal(content, response.headers.get("Content-Type", ""), self.token)
        transient = response.status in RETRIED_STATUS
        return ServiceError(
            f"the generator answered HTTP {response.status}: {reason}",
            status=response.status,
            retry_after_s=read_retry_after(response.headers.get("Retry-After")) if transient else 0.0,
            transient=transient,
        )
