"""Open-loop load of one binary POST: requests at a fixed rate, however long their replies take.

Requests are due at times fixed in advance, and latency counts from the due time, sent or not (no coordinated
omission). A client that costs as much as the server would measure itself, so this one speaks just enough
HTTP/1.1: it repeats one prepared request and reads Content-Length.

    python benchmarks/clients/open_loop.py --port 8000 --codec fp16 --rate 200 --seconds 5
"""

import argparse
import asyncio
import collections
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Result of a load: replies with status 200 per second, their latency, and everything else.

    A request without a reply some time after the end counts with its latency up to then.
    """

    replies_per_s: float
    p50_ms: float
    p99_ms: float
    refused: int
    unanswered: int
    reply_bytes: int
    client_cpu_ms: float


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request in flight."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._missing = 0
        self._head = b""
        self.status = 0
        self.reply_bytes = 0
        self.is_last = False
        self.done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Count down to the end of the reply."""
        if self._missing == 0:
            self._head += data
            end = self._head.find(HEAD_END)
            if end < 0:
                return
            head = self._head[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            self.status = int(head[9:12])
            # After reloading its configuration, a proxy accepts no more requests on old connections.
            self.is_last = b"\nconnection: close" in head
            self.reply_bytes = length
            self._missing = length - (len(self._head) - end - len(HEAD_END))
            self._head = b""
        else:
            self._missing -= len(data)
        if self._missing == 0 and self.done is not None and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request in flight, and accept no more."""
        self.is_last = True
        if self.done is not None and not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("closed by the server"))

    def abort(self) -> None:
        """Close it at once."""
        self._transport.abort()

    async def ask(self) -> None:
        """Send the request and wait for its reply."""
        self.done = asyncio.get_running_loop().create_future()
        self._transport.write(self._request)
        await self.done


def prepared_request(path: str, host: str, codec: str | None, body: bytes) -> bytes:
    """Return the bytes of one request."""
    accept = f"accept: application/x-safetensors; codec={codec}\r\n" if codec else ""
    return (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/octet-stream\r\n{accept}"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


class _Loading:
    """State of a running load; `due` holds the times at which requests are due."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        start: float,
        end: float,
        due: Iterator[float],
    ) -> None:
        self._connect = connect
        self._start, self._end, self.due = start, end, due
        self.latencies: list[float] = []
        self.refused = collections.Counter[int]()
        self.num_in_time = 0
        self.under_way: dict[Connection, float] = {}

    async def drive(self, connection: Connection) -> None:
        """Send requests one after the other until none is due."""
        while True:
            due_s = next(self.due, None)
            if due_s is None:
                return
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            if connection.is_last:
                connection = await self._connect()
            self.under_way[connection] = due_s
            await connection.ask()
            del self.under_way[connection]
            now = time.perf_counter()
            if now < self._start:
                continue
            if connection.status != 200:
                self.refused[connection.status] += 1
                continue
            self.latencies.append(now - due_s)
            self.num_in_time += now < self._end

    async def drive_all(self, connections: list[Connection], patience_s: float) -> None:
        """Run all connections, and wait up to `patience_s` after the end for the remaining replies."""
        driving = [asyncio.ensure_future(self.drive(connection)) for connection in connections]
        until_s = self._end + patience_s - time.perf_counter()
        try:
            done, _ = await asyncio.wait(driving, timeout=until_s, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                # A broken connection is an error of the benchmark.
                task.result()
        finally:
            for task in driving:
                task.cancel()
            await asyncio.gather(*driving, return_exceptions=True)


async def run(host: str, port: int, request: bytes, *, connections: int, seconds: float, rate: float) -> Load:
    """Load the server for `seconds` after a warm-up of a fifth of that; wait as long for late replies."""
    made: list[Connection] = []

    async def connect() -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(request), host, port)
        made.append(connection)
        return connection

    cpu_s = time.process_time()
    try:
        idle = [await connect() for _ in range(connections)]
        start = time.perf_counter() + seconds / 5
        end = start + seconds
        due = iter(np.arange(start - seconds / 5, end, 1 / rate))
        loading = _Loading(connect, start, end, due)
        await loading.drive_all(idle, patience_s=seconds)
    finally:
        for connection in made:
            connection.abort()
    cpu_s = time.process_time() - cpu_s
    # Requests that found no free connection had no reply either.
    unanswered = [*loading.under_way.values(), *loading.due]
    latencies = loading.latencies + [time.perf_counter() - due_s for due_s in unanswered]
    p50, p99 = np.percentile(latencies, [50, 99]) if latencies else (np.nan, np.nan)
    return Load(
        replies_per_s=loading.num_in_time / seconds,
        p50_ms=1e3 * float(p50),
        p99_ms=1e3 * float(p99),
        refused=sum(loading.refused.values()),
        unanswered=len(unanswered),
        reply_bytes=max(connection.reply_bytes for connection in made),
        client_cpu_ms=1e3 * cpu_s / max(1, len(latencies)),
    )


def main() -> None:
    """Print one load as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--task", default="open-ended-qa")
    parser.add_argument("--model", default="")
    parser.add_argument("--codec", default=None)
    parser.add_argument("--connections", type=int, default=128, help="most requests in flight at once")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    args = parser.parse_args()
    body = np.random.default_rng(0).standard_normal(192, dtype=np.float32).tobytes()
    path = f"/v1/generate/{args.task}" + (f"?model={args.model}" if args.model else "")
    request = prepared_request(path, args.host, args.codec, body)
    load = run(
        args.host, args.port, request, connections=args.connections, seconds=args.seconds, rate=args.rate
    )
    print(json.dumps(asdict(asyncio.run(load))))


if __name__ == "__main__":
    main()
