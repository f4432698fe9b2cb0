"""The generator behind BentoML: an inner service that batches, and an outer one that accepts bytes.

BentoML batches arrays that its own endpoints receive as JSON, which takes 100 times as long as any other
step; for bytes, a FastAPI route calls the batching service.
"""

import os
import sys
from pathlib import Path

import aiohttp
import bentoml
import numpy as np
from fastapi import FastAPI, Request, Response
from head_server import FEATURE_DIM, HOST, MAX_BATCH, OCTETS, PATH, PORT, HeadBatch

# Its batcher refuses requests that it expects to take longer than this.
MAX_LATENCY_MS = 10_000
QUIET = {"access": {"enabled": False}}

app = FastAPI()


@bentoml.service(workers=1, logging=QUIET)
class Emitting:
    """Generates heads for the service below."""

    def __init__(self) -> None:
        self._heads = HeadBatch()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def generate(self, features: np.ndarray) -> np.ndarray:
        """Return one row of numbers per feature."""
        return self._heads.generate(np.require(features, np.float32, ["C", "W"]))


@bentoml.service(workers=1, logging=QUIET)
@bentoml.asgi_app(app)
class HeadService:
    """Speaks HTTP."""

    emitting = bentoml.depends(Emitting)

    @app.post(PATH)
    async def generate(self, request: Request) -> Response:
        """Return the numbers as bytes."""
        features = np.frombuffer(await request.body(), dtype="<f4").reshape(-1, FEATURE_DIM)
        try:
            heads = await self.emitting.to_async.generate(features)
        except (aiohttp.ClientError, bentoml.exceptions.BentoMLException, RuntimeError) as error:
            # It loses some of its own connections between the two services; otherwise it would close the
            # client's.
            return Response(str(error), status_code=503)
        return Response(heads.tobytes(), media_type=OCTETS)


if __name__ == "__main__":
    here = Path(__file__)
    serve = ["-m", "bentoml", "serve", f"{here.stem}:HeadService", "--working-dir", str(here.parent)]
    where = ["--host", HOST, "--port", str(PORT), "--timeout-keep-alive", "300"]
    os.execv(sys.executable, [sys.executable, *serve, *where])
