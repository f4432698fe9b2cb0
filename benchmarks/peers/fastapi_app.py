"""The generator behind FastAPI and uvicorn alone, with a hand-written batcher."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fastapi import FastAPI, Request, Response
from head_server import HOST, MAX_BATCH, OCTETS, PATH, PORT, HeadBatch


class Batcher:
    """Batches all requests that arrived during the last batch, so nothing ever waits for a timer."""

    def __init__(self, heads: HeadBatch) -> None:
        self._heads = heads
        self._waiting: list[tuple[bytes, asyncio.Future[bytes]]] = []
        self._working: asyncio.Task[None] | None = None
        # The event loop sends and receives while the next batch is computed.
        self._thread = ThreadPoolExecutor(1)

    async def __call__(self, body: bytes) -> bytes:
        """Return the reply to one request."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, future))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            bodies = [body for body, _ in batch]
            replies = await loop.run_in_executor(self._thread, self._heads, bodies)
            for (_, future), reply in zip(batch, replies, strict=True):
                if not future.done():
                    future.set_result(reply)


def build() -> FastAPI:
    """Return the application."""
    app, batcher = FastAPI(), Batcher(HeadBatch())

    @app.post(PATH)
    async def generate(request: Request) -> Response:
        return Response(await batcher(await request.body()), media_type=OCTETS)

    return app


if __name__ == "__main__":
    uvicorn.run(build(), host=HOST, port=PORT, access_log=False, log_level="warning")
