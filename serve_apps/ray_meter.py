"""The service's metrics through Ray's exporter: `:8090/metrics` of each node, for Prometheus.

Ray puts `ray_` before these names and `_total` after, and adds application, deployment and replica.
Histograms are the counters that Prometheus makes of one (`_bucket` with its label `le`, `_sum`, `_count`): of
Ray's own, an agent takes each observation up again, for 0.03 CPU-ms, and at the middle of its bucket.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

from ray.serve.metrics import Counter

from serve_apps.encoded_heads import EncodedHeads

# A head of 1,501 answers takes from 1 ms, in a full batch, to seconds in a queue that is too long.
_LATENCY_BOUNDARIES_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
_BATCH_BOUNDARIES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
# Ray exports every few seconds; each number that it is told costs a small head a hundredth of its CPU time.
_TELL_EVERY_S = 0.5
# Ray's counters go up by more than nothing, and Prometheus wants the buckets that are empty, too.
_AS_GOOD_AS_NOTHING = 1e-9

_Tags = tuple[tuple[str, str], ...]


class RayMeter:
    """Metrics of one replica; made inside it, since Ray's metrics know where they are counted.

    All are added up on the running event loop and told to Ray twice a second.
    """

    def __init__(self) -> None:
        of_codec = ("model", "version", "codec")
        self._requests = _counter("hyperfleet_requests", "requests that got heads", of_codec)
        self._heads = _counter("hyperfleet_heads", "heads generated for them", of_codec)
        self._bytes = _counter("hyperfleet_reply_bytes", "bytes of replies", of_codec)
        self._refusals = _counter("hyperfleet_refusals", "requests without heads", ("reason",))
        self._batches = _CountedHistogram(
            "hyperfleet_batch_heads", "heads generated together", _BATCH_BOUNDARIES
        )
        self._latency = _CountedHistogram(
            "hyperfleet_latency_s",
            "what a request waited (queue), and a batch and its codecs took (generate, encode)",
            _LATENCY_BOUNDARIES_S,
            ("part",),
        )
        self._untold: defaultdict[tuple[Counter, _Tags], int] = defaultdict(int)
        self._is_waiting = False

    def answered(self, heads: EncodedHeads, num_heads: int) -> None:
        """Count a request that got its heads."""
        info = heads.served.info
        tags = (("model", info.name), ("version", info.version), ("codec", heads.codec))
        self._count(self._requests, tags, 1)
        self._count(self._heads, tags, num_heads)
        self._count(self._bytes, tags, len(heads.body))
        # A clock's grain can make a wait of nothing slightly less than that.
        self._observe(self._latency, max(heads.queue_s, 0.0), (("part", "queue"),))

    def refused(self, reason: str) -> None:
        """Count a request that got none."""
        self._count(self._refusals, (("reason", reason),), 1)

    def generated(self, num_heads: int, generate_s: float) -> None:
        """Count heads made in one product, and what that took."""
        self._observe(self._batches, num_heads, ())
        self._observe(self._latency, generate_s, (("part", "generate"),))

    def encoded(self, encode_s: float) -> None:
        """Count what a codec took for all heads of a product that travel in it."""
        self._observe(self._latency, encode_s, (("part", "encode"),))

    def tell(self) -> None:
        """Tell Ray what was counted since it was told last; to be called once more at the end."""
        untold = self._untold
        # Before Ray is asked: what it does not take is not told twice, and the next count starts the clock.
        self._untold, self._is_waiting = defaultdict(int), False
        for (counter, tags), value in untold.items():
            counter.inc(value, dict(tags))
        self._batches.tell()
        self._latency.tell()

    def _count(self, counter: Counter, tags: _Tags, value: int) -> None:
        self._untold[counter, tags] += value
        self._wait()

    def _observe(self, histogram: "_CountedHistogram", value: float, tags: _Tags) -> None:
        histogram.observe(value, tags)
        self._wait()

    def _wait(self) -> None:
        if not self._is_waiting:
            asyncio.get_running_loop().call_later(_TELL_EVERY_S, self.tell)
            self._is_waiting = True


class _CountedHistogram:
    """A histogram kept in counters of Ray."""

    def __init__(
        self, name: str, description: str, boundaries: Sequence[float], tag_keys: tuple[str, ...] = ()
    ) -> None:
        self._boundaries = list(boundaries)
        self._labels = [*map(str, boundaries), "+Inf"]
        self._buckets = _counter(f"{name}_bucket", f"{description}: as many or less", (*tag_keys, "le"))
        self._sum = _counter(f"{name}_sum", f"{description}: their sum", tag_keys)
        self._num = _counter(f"{name}_count", f"{description}: how often", tag_keys)
        self._untold: dict[_Tags, tuple[list[int], list[float]]] = {}
        self._known: set[_Tags] = set()

    def observe(self, value: float, tags: _Tags) -> None:
        """Count a value, which is not negative."""
        counts, values = self._untold.setdefault(tags, ([0] * len(self._labels), []))
        # A boundary belongs to its bucket.
        counts[bisect_left(self._boundaries, value)] += 1
        values.append(value)

    def tell(self) -> None:
        """Tell Ray what was observed since it was told last."""
        untold, self._untold = self._untold, {}
        for tags, (counts, values) in untold.items():
            least = 0.0 if tags in self._known else _AS_GOOD_AS_NOTHING
            self._known.add(tags)
            for label, num in zip(self._labels, accumulate(counts), strict=True):
                if num or least:
                    self._buckets.inc(num or least, {**dict(tags), "le": label})
            if total := sum(values):
                self._sum.inc(total, dict(tags))
            self._num.inc(len(values), dict(tags))


def _counter(name: str, description: str, tag_keys: tuple[str, ...]) -> Counter:
    # Ray's annotation knows a single key only; any number will do.
    return Counter(name, description=description, tag_keys=tag_keys)  # type: ignore[arg-type]
