"""Sends hostile HTTP over raw connections, kept open where the bytes allow it, and judges every reply."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import xxhash
from clients.hostile_http import Shot
from clients.tally import Tally

# Replies of Serve itself, before the application is called.
SERVES_OWN = {404: b"Ping http://.../-/routes", 408: b"timed out after", 429: b"dropped due to backpressure"}
# The proxy's own pages, for bytes that it cannot forward as a request.
PROXYS_OWN = {400, 408, 414, 431, 501, 505}
_LIMIT = 1 << 20
_NO_BODY = {204, 304}
_UNTIL_END_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes


async def attack(port: int, shots: Iterator[Shot], tally: Tally, *, connections: int, bound_s: float) -> None:
    """Send all requests over `connections` connections; none may take longer than `bound_s`."""

    async def drive() -> None:
        stream = None
        for shot in shots:
            began = time.perf_counter()
            try:
                async with asyncio.timeout(bound_s):
                    stream = stream or await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
                    end, fault, keeps = await _fire(stream, shot)
            except TimeoutError:
                end, fault, keeps = "hang", f"no answer and no close within {bound_s:g} s", False
            except OSError as error:
                refused = isinstance(error, ConnectionRefusedError)
                end, keeps = "refused" if refused else "closed", False
                fault = "no connection" if refused else "closed" if shot.num_replies else None
            tally.add(shot.kind, end, time.perf_counter() - began, fault=fault, sent=shot.data)
            if not keeps and stream is not None:
                stream[1].close()
                stream = None
        if stream is not None:
            stream[1].close()

    await asyncio.gather(*(drive() for _ in range(connections)))


async def _fire(
    stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], shot: Shot
) -> tuple[str, str | None, bool]:
    """Return the outcome, the promise that it breaks, and whether the connection can be used again."""
    reader, writer = stream
    writer.write(shot.data)
    if not shot.num_replies:
        # It may wait for more bytes forever. For the proxy, a closed sending side also means that nobody
        # waits for a reply.
        asyncio.get_running_loop().call_later(_UNTIL_END_S * (len(shot.data) % 2), _end, writer)
    ends, fault, keeps = [], None, True
    while len(ends) < (shot.num_replies or 99):
        try:
            reply = await read_reply(reader, shot.has_body)
        except (asyncio.IncompleteReadError, ConnectionError):
            ends.append("closed")
            keeps = False
            break
        except ValueError as error:
            return "not HTTP", f"the reply is no HTTP: {error}"[:120], False
        ends.append(f"{reply.status} by Serve" if _is_serves(reply) else str(reply.status))
        fault = fault or judge(reply, shot)
        # Without a length, the body ends with the connection.
        if reply.headers.get("connection", "").lower() == "close" or "content-length" not in reply.headers:
            keeps = False
            if shot.num_replies:
                break
    if shot.num_replies and ends[0] == "closed":
        fault = "closed without an answer"
    return ends[0] if len(set(ends)) == 1 else " ".join(sorted(set(ends))), fault, keeps and len(ends) > 0


def _end(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        if not writer.is_closing():
            writer.write_eof()


async def read_reply(reader: asyncio.StreamReader, has_body: bool = True) -> Reply:
    """Read one reply and skip interim ones.

    Raises:
        IncompleteReadError: the connection ended first.
        ValueError: it is no HTTP/1.1.
    """
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        first, _, rest = head.decode("latin-1").partition("\r\n")
        version, _, code = first.partition(" ")
        if not version.startswith("HTTP/1.") or not code[:3].isdecimal():
            raise ValueError(f"{first[:60]!r}")
        status = int(code[:3])
        if status >= 200:
            break
    headers = {}
    for line in rest.splitlines():
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Reply(status=status, headers=headers, body=await _read_body(reader, status, headers, has_body))


async def _read_body(
    reader: asyncio.StreamReader, status: int, headers: dict[str, str], has_body: bool
) -> bytes:
    if not has_body or status in _NO_BODY:
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        headers["content-length"] = str(len(body))
        return body
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()


def judge(reply: Reply, shot: Shot) -> str | None:
    """Return the promise that a reply breaks."""
    status = reply.status
    if status >= 500 and status != 503 and not (status == 504 and shot.own_deadline):
        own_page = status in PROXYS_OWN and not shot.num_replies
        return None if own_page else f"status {status}: {reply.body[:80]!r}"
    if status == 429 and "retry-after" not in reply.headers:
        return "429 without Retry-After"
    if status < 400:
        return _judge_success(reply, shot)
    if not shot.has_body or status == 503 or _is_serves(reply):
        return None
    if reply.headers.get("content-type") == "application/problem+json":
        problem = json.loads(reply.body)
        return None if problem.get("status") == status else "the problem names another status"
    if not shot.num_replies and status in PROXYS_OWN:
        return None
    return f"{status} is no problem+json but {reply.headers.get('content-type')} {reply.body[:80]!r}"


def _is_serves(reply: Reply) -> bool:
    return reply.status in SERVES_OWN and SERVES_OWN[reply.status] in reply.body


def _judge_success(reply: Reply, shot: Shot) -> str | None:
    checksum = reply.headers.get("x-checksum")
    if checksum is None or not shot.has_body:
        return None
    return None if checksum == f"xxh3-64={xxhash.xxh3_64_hexdigest(reply.body)}" else "a wrong checksum"
