"""Requests for heads, independent of the transport: access, admission, deadline, batch, reply.

Nothing here knows Ray, HTTP or gRPC; the transports map its errors to their statuses.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import xxhash

from hyperfleet.errors import DeadlineError, OverloadedError, TooManyFeaturesError
from hyperfleet.messages import HeadRequest
from serve_apps.access import BearerTokens, RateLimit
from serve_apps.batching import Chunk, GeneratedChunk, Meter
from serve_apps.served_models import ModelTable, ServedGenerator

CHECKSUM = "xxh3-64"
ANYONE = "anyone"
# Until batches have shown how fast they are.
_FIRST_GUESS_S_PER_HEAD = 1e-3
_SMOOTHING = 0.1
_SHARD_ROWS = 512


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedHeads:
    """The reply to a request, before a transport writes it.

    Attributes:
        body: a safetensors file.
        checksum: xxh3-64 of the body in hexadecimal.
        codec: encoding of the heads.
        served: the version that made them.
        queue_s: seconds of waiting for the batch.
        generate_s: seconds of the product that made them.
        encode_s: seconds of the codec, for all heads of the batch that it encoded, and of packing this reply.
    """

    body: bytes
    checksum: str
    codec: str
    served: ServedGenerator
    queue_s: float
    generate_s: float
    encode_s: float


class HeadService:
    """Answers requests for heads.

    Args:
        table: the models.
        batched: generates the heads of a chunk; a `Batcher`.
        max_features: maximum heads per request.
        max_waiting_heads: maximum heads that wait in this process; more are refused.
        batch_heads: maximum heads per batch.
        tokens: valid tokens; None admits anyone.
        rate: limit per client; None for no limit.
        meter: counts replies, and refusals of the transports.
    """

    def __init__(
        self,
        table: ModelTable,
        batched: Callable[[Chunk], Awaitable[GeneratedChunk]],
        *,
        max_features: int,
        max_waiting_heads: int,
        batch_heads: int = 32,
        tokens: BearerTokens | None = None,
        rate: RateLimit | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.table = table
        self.meter = meter if meter is not None else Meter()
        self.max_features = max_features
        self._batched = batched
        self._max_waiting_heads = max_waiting_heads
        self._batch_heads = batch_heads
        self._tokens = tokens
        self._rate = rate
        # Admitted heads that are not encoded yet.
        self.num_waiting = 0
        self._s_per_head = _FIRST_GUESS_S_PER_HEAD

    def authenticate(self, authorization: str | None) -> str:
        """Return the client's name.

        Raises:
            UnauthenticatedError: tokens are required and this one is not valid.
        """
        return self._tokens.authenticate(authorization) if self._tokens is not None else ANYONE

    def must_wait(self, num_heads: int) -> bool:
        """Return whether a request for `num_heads` heads would have to wait for the batch after the next."""
        return self.num_waiting + num_heads > self._batch_heads

    async def generate(
        self, served: ServedGenerator, body: bytes, *, codec: str, client: str, deadline_s: float | None
    ) -> EncodedHeads:
        """Generate and encode one head per feature in `body`.

        Raises:
            FeatureError: the body holds no features, or too many of them.
            RateLimitedError: the client exceeds its rate.
            OverloadedError: too many heads wait already.
            DeadlineError: the deadline passed first.
            HeadLayoutError: the codec cannot carry the model's heads.
        """
        arrived_s = time.perf_counter()
        features = HeadRequest.from_bytes(body).features
        if len(features) > self.max_features:
            raise TooManyFeaturesError(
                f"a request carries at most {self.max_features} features, got {len(features)}; "
                "send several requests"
            )
        self._check_room(len(features))
        if self._rate is not None:
            self._rate.acquire(client, len(features))
        # They count as waiting until they are encoded, which takes time too.
        self.num_waiting += len(features)
        try:
            asked = Chunk(served=served, features=features, codec=codec, deadline_s=deadline_s)
            chunk = await self._batched(asked)
            if chunk.files is None:
                raise chunk.error or DeadlineError(
                    "the deadline was over before the heads were generated; nothing was computed"
                )
            packing_s = time.perf_counter()
            encoded = chunk.files.of(chunk.start, chunk.start + len(features))
            pack_s = time.perf_counter() - packing_s
        finally:
            self.num_waiting -= len(features)
        share_s = (chunk.generate_s + chunk.encode_s) / chunk.batch_heads + pack_s / len(features)
        self._s_per_head += _SMOOTHING * (share_s - self._s_per_head)
        answer = EncodedHeads(
            body=encoded,
            checksum=xxhash.xxh3_64_hexdigest(encoded),
            codec=codec,
            served=served,
            queue_s=packing_s - arrived_s - chunk.generate_s - chunk.encode_s,
            generate_s=chunk.generate_s,
            encode_s=chunk.encode_s + pack_s,
        )
        self.meter.answered(served.label, codec, len(features), len(encoded), answer.queue_s)
        return answer

    async def generate_shard(self, served: ServedGenerator, features: np.ndarray) -> np.ndarray:
        """Return the hypernetwork's output for a shard of devices, (n, k) float32, as one array.

        For callers in the cluster: no queue, no codec, no limit but memory. A shard is its own batch.

        Raises:
            FeatureError: wrong shape or type, or a value that is not finite.
        """
        parts = []
        for start in range(0, len(features), _SHARD_ROWS):
            parts.append(served.generator.generate(features[start : start + _SHARD_ROWS]).numbers.numpy())
            # Lets other requests run.
            await asyncio.sleep(0)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _check_room(self, num_heads: int) -> None:
        if self.num_waiting + num_heads > self._max_waiting_heads:
            # The time until the queue that exists now is done.
            retry_after_s = self.num_waiting * self._s_per_head
            raise OverloadedError(
                f"{self.num_waiting} heads are waiting, at most {self._max_waiting_heads} may; "
                f"retry in {retry_after_s:.1f} s or add replicas",
                retry_after_s,
            )
