"""The service's metrics through Ray's exporter: `:8090/metrics` of each node, for Prometheus.

Ray puts `ray_` before and, for counters, `_total` after these names, and adds application, deployment and
replica.
"""

import asyncio
from collections import defaultdict

from ray.serve.metrics import Counter, Histogram

from serve_apps.encoded_heads import EncodedHeads

# A head of 1,501 answers takes from 1 ms, in a full batch, to seconds in a queue that is too long.
_LATENCY_BOUNDARIES_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
_BATCH_BOUNDARIES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
# Ray exports every few seconds; each number that it is told costs a small head a hundredth of its CPU time.
_TELL_EVERY_S = 0.5

_Tags = tuple[tuple[str, str], ...]


class RayMeter:
    """Metrics of one replica; made inside it, since Ray's metrics know where they are counted.

    Counters are added up on the running event loop and told to Ray twice a second.
    """

    def __init__(self) -> None:
        of_codec = ("model", "version", "codec")
        self._requests = _counter("hyperfleet_requests", "requests that got heads", of_codec)
        self._heads = _counter("hyperfleet_heads", "heads generated for them", of_codec)
        self._bytes = _counter("hyperfleet_reply_bytes", "bytes of replies", of_codec)
        self._refusals = _counter("hyperfleet_refusals", "requests without heads", ("reason",))
        self._batches = Histogram(
            "hyperfleet_batch_heads", description="heads generated together", boundaries=_BATCH_BOUNDARIES
        )
        self._latency = Histogram(
            "hyperfleet_latency_s",
            description="what a request waited (queue), and a batch and its codecs took (generate, encode)",
            boundaries=_LATENCY_BOUNDARIES_S,
            tag_keys=("part",),
        )
        self._untold: defaultdict[tuple[Counter, _Tags], int] = defaultdict(int)

    def answered(self, heads: EncodedHeads, num_heads: int) -> None:
        """Count a request that got its heads."""
        info = heads.served.info
        tags = (("model", info.name), ("version", info.version), ("codec", heads.codec))
        self._count(self._requests, tags, 1)
        self._count(self._heads, tags, num_heads)
        self._count(self._bytes, tags, len(heads.body))
        # A clock's grain can make a wait of nothing slightly less than that.
        self._latency.observe(max(heads.queue_s, 0.0), {"part": "queue"})

    def refused(self, reason: str) -> None:
        """Count a request that got none."""
        self._count(self._refusals, (("reason", reason),), 1)

    def generated(self, num_heads: int, generate_s: float) -> None:
        """Count heads made in one product, and what that took."""
        self._batches.observe(num_heads)
        self._latency.observe(generate_s, {"part": "generate"})

    def encoded(self, encode_s: float) -> None:
        """Count what a codec took for all heads of a product that travel in it."""
        self._latency.observe(encode_s, {"part": "encode"})

    def tell(self) -> None:
        """Tell Ray what was counted since it was told last; to be called once more at the end."""
        untold = self._untold
        # Before Ray is asked: what it does not take is not told twice, and the next count starts the clock.
        self._untold = defaultdict(int)
        for (counter, tags), value in untold.items():
            counter.inc(value, dict(tags))

    def _count(self, counter: Counter, tags: _Tags, value: int) -> None:
        if not self._untold:
            asyncio.get_running_loop().call_later(_TELL_EVERY_S, self.tell)
        self._untold[counter, tags] += value


def _counter(name: str, description: str, tag_keys: tuple[str, ...]) -> Counter:
    # Ray's annotation knows a single key only; any number will do.
    return Counter(name, description=description, tag_keys=tag_keys)  # type: ignore[arg-type]
