"""What is the same for every answer, however it came: tries, checksum, codec, and what is told of it."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import xxhash

from hyperfleet.client.received import ReceivedHead
from hyperfleet.client.retry import Circuit, ask_again, ask_until_answered
from hyperfleet.client.settings import ClientSettings
from hyperfleet.errors import HeadLayoutError
from hyperfleet.messages import HeadReply


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A decoded reply, its size in bytes, and what the server measured, in seconds."""

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
    """Send until an answer comes and tell what that took; see `ask_until_answered`."""
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
        HeadLayoutError: heads of another shape, number, codec or model than the client's.
        ServiceError: other bytes than were sent, which asking again may mend.
    """
    got = xxhash.xxh3_64_hexdigest(content)
    if got != checksum:
        raise ask_again(
            f"the reply of {settings.url} was damaged on its way: {len(content)} bytes of checksum {got}, "
            f"sent with {checksum}"
        )
    reply = HeadReply.from_bytes(content, expected=settings.layout, num_heads=num_heads, base=settings.base)
    if reply.codec != settings.codec:
        raise HeadLayoutError(
            f"asked {settings.url} for heads in codec {settings.codec!r}, got {reply.codec!r}; is it a "
            "parameter generator of this HyperFleet?"
        )
    return reply
