"""Replies of the service, the same over HTTP and gRPC: heads that are checked and measured, and refusals."""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import xxhash

from hyperfleet.client.retry import Circuit, ask_until_answered
from hyperfleet.client.settings import ClientSettings
from hyperfleet.errors import HeadLayoutError, ServiceError
from hyperfleet.messages import HeadReply, HeadRequest

_QUOTED_CHARACTERS = 300
_PROBLEM = "application/problem+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedHead:
    """A head and its cost.

    Attributes:
        reply: the head, checked against the layout of the device.
        uplink_bytes: size of the request body.
        downlink_bytes: size of the reply body.
        round_trip_s: from sending the request to the decoded head, pauses between tries included.
        generate_s: part of it in which the cloud computed, as measured by the cloud.
        num_tries: number of times the request was sent; 1 when nothing went wrong.
        encode_s: part of it in which the cloud encoded the reply, as measured by the cloud; 0 if it is not
            reported.
    """

    reply: HeadReply
    uplink_bytes: int
    downlink_bytes: int
    round_trip_s: float
    generate_s: float
    num_tries: int = 1
    encode_s: float = 0.0

    @property
    def queue_s(self) -> float:
        """Seconds other than generating: waiting for a batch and a replica, encoding, HTTP itself."""
        return max(self.round_trip_s - self.generate_s, 0.0)


@runtime_checkable
class GeneratorClient(Protocol):
    """Source of heads for a device."""

    async def request(self, request: HeadRequest) -> ReceivedHead:
        """Return the head of each of the request's features.

        Raises:
            ServiceError: no head came, after retries where they can help.
            HeadLayoutError: the reply is no head for this device.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A decoded reply, its size in bytes, and the server's measurements, in seconds."""

    reply: HeadReply
    num_bytes: int
    generate_s: float
    encode_s: float


async def receive(
    send: Callable[[float], Awaitable[Answer]],
    circuit: Circuit,
    sleep: Callable[[float], Awaitable[None]],
    *,
    uplink_bytes: int,
) -> ReceivedHead:
    """Send until an answer comes and return it with its cost; see `ask_until_answered`."""
    started_s = time.perf_counter()
    answer, num_tries = await ask_until_answered(send, circuit, sleep)
    return ReceivedHead(
        reply=answer.reply,
        uplink_bytes=uplink_bytes,
        downlink_bytes=answer.num_bytes,
        round_trip_s=time.perf_counter() - started_s,
        generate_s=answer.generate_s,
        num_tries=num_tries,
        encode_s=answer.encode_s,
    )


def read_reply(content: bytes, checksum: str, num_heads: int, settings: ClientSettings) -> HeadReply:
    """Decode heads that came with `checksum` (xxh3-64, hexadecimal).

    Raises:
        HeadLayoutError: the heads have another shape, number, codec or model than the client's.
        ServiceError: the checksum differs; transient.
    """
    got = xxhash.xxh3_64_hexdigest(content)
    if got != checksum:
        raise ServiceError(
            f"the reply of {settings.url} was damaged on its way: {len(content)} bytes of checksum {got}, "
            f"sent with {checksum}",
            transient=True,
        )
    reply = HeadReply.from_bytes(content, expected=settings.layout, num_heads=num_heads, base=settings.base)
    if reply.codec != settings.codec:
        raise HeadLayoutError(
            f"asked {settings.url} for heads in codec {settings.codec!r}, got {reply.codec!r}; is it a "
            "parameter generator of this HyperFleet?"
        )
    return reply


def read_refusal(content: bytes, content_type: str, token: str | None) -> str:
    """Return the reason in the body of a refusal: the detail of a problem (RFC 9457) or the text itself."""
    text = content.decode(errors="replace")
    if content_type.partition(";")[0].strip().lower() == _PROBLEM:
        text = _detail(text)
    # Messages end up in logs and event tables, and some proxies echo the request.
    if token is not None:
        text = text.replace(token, "***")
    return text[:_QUOTED_CHARACTERS]


def _detail(text: str) -> str:
    try:
        problem = json.loads(text)
    except (ValueError, RecursionError):
        return text
    detail = problem.get("detail") or problem.get("title") if isinstance(problem, dict) else None
    return str(detail) if detail else text
