"""How a device asks the cloud for a head: over HTTP, or by a plain call in the same process.

Both clients encode and decode the real messages, so a run without a network counts the same bytes.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import aiohttp
import numpy as np
import tenacity

from hyperfleet.errors import ConfigError, ServiceError
from hyperfleet.messages import HeadLayout, HeadReply, HeadRequest

# 408, 429, 503: the server asks to come again. 500, 502, 504: the replica died under the request; Serve
# answers for it, and asking again reaches another one (generating a head changes nothing, so twice is once).
RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})

_GENERATE_MS = re.compile(r"\bgenerate\s*;\s*dur=([0-9.]+)")
_QUOTED_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedHead:
    """A head and what it took to get it.

    Attributes:
        reply: the head, checked against the layout of the device.
        uplink_bytes: size of the request body.
        downlink_bytes: size of the reply body.
        round_trip_s: from sending the request to holding the decoded head, pauses between tries included.
        generate_s: part of it in which the cloud computed, as the cloud measured it.
        num_tries: how often the request was sent; 1 when nothing went wrong.
    """

    reply: HeadReply
    uplink_bytes: int
    downlink_bytes: int
    round_trip_s: float
    generate_s: float
    num_tries: int = 1

    @property
    def queue_s(self) -> float:
        """What was neither generating nor link: waiting for a batch and a free replica, and HTTP itself."""
        return max(self.round_trip_s - self.generate_s, 0.0)


@runtime_checkable
class GeneratorClient(Protocol):
    """Anything a device can ask for a head."""

    async def request(self, request: HeadRequest) -> ReceivedHead:
        """Return the head of the request's feature.

        Raises:
            ServiceError: no head came, in spite of trying again where that can help.
            HeadLayoutError: what came is no head for this device.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """When a device gives up.

    Attributes:
        max_tries: requests sent at most for one head.
        try_timeout_s: time limit of one try, in seconds; generous, since emulated devices share their
            cores with the cloud and a busy machine must not look like a cloud that is down.
        deadline_s: no further try starts when this much time is over.
        backoff_s: mean pause before the second try; it doubles from try to try, and each pause is
            drawn at random so that a fleet does not come back all at once. A longer Retry-After of
            the server is honoured.
        max_hangs: requests in a row that waited `try_timeout_s` or longer for no head, after which a client
            stops asking (its circuit is open) and fails at once; `deadline_s` later one request tries again.
            Refusals that come quickly do not count: asking again costs nothing.
    """

    max_tries: int = 4
    try_timeout_s: float = 30.0
    deadline_s: float = 60.0
    backoff_s: float = 0.1
    max_hangs: int = 8

    def __post_init__(self) -> None:
        for name in ("max_tries", "max_hangs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"RetryPolicy.{name} must be >= 1, got {getattr(self, name)}")
        for name in ("try_timeout_s", "deadline_s", "backoff_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"RetryPolicy.{name} must be > 0 seconds, got {getattr(self, name)}")


class _AskAgainError(ServiceError):
    """The try failed in a way that another one may mend; `retry_after_s` is what the server asked for."""

    retry_after_s = 0.0


@dataclass(kw_only=True)
class _Circuit:
    """Remembers hangs in a row, so that a cloud that hangs costs a fleet one deadline, not thousands."""

    retry: RetryPolicy
    num_hangs: int = 0
    open_until_s: float = 0.0

    def check(self) -> None:
        if self.num_hangs < self.retry.max_hangs:
            return
        now_s = time.monotonic()
        if now_s < self.open_until_s:
            raise ServiceError(
                f"not asked: the last {self.num_hangs} requests waited for a head and got none; the next try "
                f"is in {self.open_until_s - now_s:.0f} s"
            )
        # This request is the one that tries; those beside it go on failing at once until it is back.
        self.open_until_s = now_s + self.retry.deadline_s

    def failed(self, waited_s: float) -> None:
        if waited_s < self.retry.try_timeout_s:
            return
        self.num_hangs += 1
        if self.num_hangs == self.retry.max_hangs:
            self.open_until_s = time.monotonic() + self.retry.deadline_s

    def succeeded(self) -> None:
        self.num_hangs = 0


@dataclass(kw_only=True)
class HttpGeneratorClient:
    """Asks the generator service over HTTP with keep-alive connections; use it in `async with`.

    Attributes:
        url: where the service listens, e.g. "http://127.0.0.1:8000".
        layout: the head that fits the device.
        task: what the device does with the head, the last part of the path.
        max_connections: connections kept open; further requests wait for one.
        retry: when to try again and when to give up.
        sleep: waits between tries.
    """

    url: str
    layout: HeadLayout
    task: str = "vqa"
    max_connections: int = 16
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _session: aiohttp.ClientSession | None = field(default=None, init=False, repr=False)
    _circuit: _Circuit = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._circuit = _Circuit(retry=self.retry)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.max_connections),
            timeout=aiohttp.ClientTimeout(total=self.retry.try_timeout_s),
            # Nothing a server hands out may mark the device when it comes back.
            cookie_jar=aiohttp.DummyCookieJar(),
            # A head is float32 noise to a compressor: 12 ms of CPU for 7% of the bytes.
            headers={"Content-Type": "application/octet-stream", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(self, request: HeadRequest) -> ReceivedHead:
        """Ask for the head of one feature; see `GeneratorClient`."""
        self._circuit.check()
        started = time.perf_counter()
        tries = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_AskAgainError),
            stop=tenacity.stop_after_attempt(self.retry.max_tries)
            | tenacity.stop_before_delay(self.retry.deadline_s),
            wait=_pause(self.retry.backoff_s),
            sleep=self.sleep,
            reraise=True,
        )
        body = request.to_bytes()
        try:
            async for attempt in tries:
                with attempt:
                    reply, downlink_bytes, generate_s = await self._post(body, len(request.features))
        except _AskAgainError as error:
            self._circuit.failed(time.perf_counter() - started)
            num_tries = tries.statistics["attempt_number"]
            raise ServiceError(f"no head after {num_tries} tries: {error}") from error
        self._circuit.succeeded()
        return ReceivedHead(
            reply=reply,
            uplink_bytes=len(body),
            downlink_bytes=downlink_bytes,
            round_trip_s=time.perf_counter() - started,
            generate_s=generate_s,
            num_tries=tries.statistics["attempt_number"],
        )

    async def _post(self, body: bytes, num_heads: int) -> tuple[HeadReply, int, float]:
        if self._session is None:
            raise ServiceError("the client is closed; use it inside `async with HttpGeneratorClient(...)`")
        try:
            url = f"{self.url}/v1/generate/{self.task}"
            async with self._session.post(url, data=body, allow_redirects=False) as response:
                content = await response.read()
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
            # Payload errors are connections cut in the middle of a reply.
            raise _AskAgainError(
                f"{self.url} cannot be reached: {type(error).__name__} {error}".rstrip()
            ) from error
        except aiohttp.ClientError as error:
            raise ServiceError(f"{self.url} does not speak HTTP as expected: {error}") from error
        if response.status != 200:
            raise _refusal(response.status, response.headers.get("Retry-After"), content)
        version = response.headers.get("X-Model-Version")
        generate_ms = _GENERATE_MS.search(response.headers.get("Server-Timing", ""))
        if version is None or generate_ms is None:
            raise ServiceError(
                f"the reply of {self.url} lacks X-Model-Version or Server-Timing with 'generate;dur=<ms>', "
                f"got headers {sorted(response.headers)}; is it a parameter generator of this HyperFleet?"
            )
        reply = HeadReply.from_bytes(
            content, expected=self.layout, num_heads=num_heads, model_version=version
        )
        return reply, len(content), float(generate_ms[1]) / 1000


def _refusal(status: int, retry_after: str | None, content: bytes) -> ServiceError:
    text = content[:_QUOTED_CHARACTERS].decode(errors="replace")
    message = f"the generator answered HTTP {status}: {text}"
    if status not in RETRIED_STATUS:
        return ServiceError(message)
    error = _AskAgainError(message)
    error.retry_after_s = _retry_after_s(retry_after)
    return error


def _retry_after_s(value: str | None) -> float:
    """Read Retry-After, which is a number of seconds or a date; nonsense counts as absent."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max((date - datetime.now(UTC)).total_seconds(), 0.0) if date.tzinfo is not None else 0.0


def _pause(backoff_s: float) -> Callable[[tenacity.RetryCallState], float]:
    # Full jitter: uniform between zero and the bound, so a bound of twice the mean.
    jittered = tenacity.wait_random_exponential(multiplier=2 * backoff_s)

    def pause_s(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked_s = error.retry_after_s if isinstance(error, _AskAgainError) else 0.0
        return max(asked_s, jittered(state))

    return pause_s


# (features (n, 192)) -> weights (n, classes, hidden), biases (n, classes), model version
Generate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, str]]


@dataclass(frozen=True, slots=True)
class InProcessClient:
    """Calls a generator of this process, as the serial emulation does; nothing queues but its own work."""

    generate: Generate

    async def request(self, request: HeadRequest) -> ReceivedHead:
        """Ask for the head of one feature; see `GeneratorClient`."""
        started = time.perf_counter()
        uplink = request.to_bytes()
        features = HeadRequest.from_bytes(uplink).features
        generating = time.perf_counter()
        weight, bias, version = self.generate(features)
        generate_s = time.perf_counter() - generating
        generated = HeadReply(weight=weight, bias=bias, model_version=version)
        downlink = generated.to_bytes()
        reply = HeadReply.from_bytes(
            downlink, expected=generated.layout, num_heads=len(features), model_version=version
        )
        return ReceivedHead(
            reply=reply,
            uplink_bytes=len(uplink),
            downlink_bytes=len(downlink),
            round_trip_s=time.perf_counter() - started,
            generate_s=generate_s,
        )
