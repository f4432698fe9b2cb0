"""Metrics of the service in Ray's exporter, `:8090/metrics` of each node, for Prometheus.

Ray adds the prefix `ray_`, the suffix `_total`, and labels for application, deployment and replica.
Histograms are the counters that Prometheus makes of them (`_bucket` with its label `le`, `_sum`, `_count`).
With Ray's own, an agent would process each observation again, for 0.03 CPU-ms, at the middle of its bucket.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

from ray.serve.metrics import Counter

from hyperfleet.messages import ModelLabel
from serve_apps.batching import Meter

# A head of 1,501 answers takes 1 ms in a full batch and seconds in a queue that is too long.
_LATENCY_BOUNDARIES_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
_BATCH_BOUNDARIES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
# Ray exports every few seconds. Reporting a number costs a hundredth of the CPU time of a small head.
_REPORT_EVERY_S = 0.5
# Ray's counters refuse an increment of zero, and Prometheus needs the empty buckets too.
_NEXT_TO_ZERO = 1e-9

_Tags = tuple[tuple[str, str], ...]


class RayMeter(Meter):
    """Metrics of one replica, created inside it, since Ray labels metrics with the place of their creation.

    They are summed up on the running event loop and reported to Ray twice per second.
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
            "seconds of waiting per request (queue), of a batch (generate) and of its codecs (encode)",
            _LATENCY_BOUNDARIES_S,
            ("part",),
        )
        self._unreported: defaultdict[tuple[Counter, _Tags], int] = defaultdict(int)
        self._is_waiting = False

    def answered(self, label: ModelLabel, codec: str, num_heads: int, num_bytes: int, queue_s: float) -> None:
        """Count a request that got its heads, the bytes of its reply, and the seconds that it waited."""
        tags = (("model", label.model), ("version", label.version), ("codec", codec))
        self._count(self._requests, tags, 1)
        self._count(self._heads, tags, num_heads)
        self._count(self._bytes, tags, num_bytes)
        # The resolution of the clock can make a wait of zero slightly negative.
        self._observe(self._latency, max(queue_s, 0.0), (("part", "queue"),))

    def refused(self, reason: str) -> None:
        """Count a request without heads."""
        self._count(self._refusals, (("reason", reason),), 1)

    def generated(self, num_heads: int, generate_s: float) -> None:
        """Count a matrix product, the heads that it made and its seconds."""
        self._observe(self._batches, num_heads, ())
        self._observe(self._latency, generate_s, (("part", "generate"),))

    def encoded(self, encode_s: float) -> None:
        """Count the seconds of a codec for all heads of a product that it encoded."""
        self._observe(self._latency, encode_s, (("part", "encode"),))

    def report(self) -> None:
        """Report the counts since the last report to Ray; call it once more at the end."""
        counts = self._unreported
        # Cleared first: counts that Ray refuses are not reported twice, and the next count starts the clock.
        self._unreported, self._is_waiting = defaultdict(int), False
        for (counter, tags), value in counts.items():
            counter.inc(value, dict(tags))
        self._batches.report()
        self._latency.report()

    def _count(self, counter: Counter, tags: _Tags, value: int) -> None:
        self._unreported[counter, tags] += value
        self._wait()

    def _observe(self, histogram: "_CountedHistogram", value: float, tags: _Tags) -> None:
        histogram.observe(value, tags)
        self._wait()

    def _wait(self) -> None:
        if not self._is_waiting:
            asyncio.get_running_loop().call_later(_REPORT_EVERY_S, self.report)
            self._is_waiting = True


class _CountedHistogram:
    """A histogram in counters of Ray."""

    def __init__(
        self, name: str, description: str, boundaries: Sequence[float], tag_keys: tuple[str, ...] = ()
    ) -> None:
        self._boundaries = list(boundaries)
        self._labels = [*map(str, boundaries), "+Inf"]
        self._buckets = _counter(f"{name}_bucket", f"{description}: up to the bound", (*tag_keys, "le"))
        self._sum = _counter(f"{name}_sum", f"{description}: sum", tag_keys)
        self._num = _counter(f"{name}_count", f"{description}: number of values", tag_keys)
        self._unreported: dict[_Tags, tuple[list[int], list[float]]] = {}
        self._known: set[_Tags] = set()

    def observe(self, value: float, tags: _Tags) -> None:
        """Count a value >= 0."""
        counts, values = self._unreported.setdefault(tags, ([0] * len(self._labels), []))
        # Bounds are inclusive.
        counts[bisect_left(self._boundaries, value)] += 1
        values.append(value)

    def report(self) -> None:
        """Report the values since the last report to Ray."""
        unreported, self._unreported = self._unreported, {}
        for tags, (counts, values) in unreported.items():
            least = 0.0 if tags in self._known else _NEXT_TO_ZERO
            self._known.add(tags)
            for label, num in zip(self._labels, accumulate(counts), strict=True):
                if num or least:
                    self._buckets.inc(num or least, {**dict(tags), "le": label})
            if total := sum(values):
                self._sum.inc(total, dict(tags))
            self._num.inc(len(values), dict(tags))


def _counter(name: str, description: str, tag_keys: tuple[str, ...]) -> Counter:
    # Ray's annotation names a single key, but any number works.
    return Counter(name, description=description, tag_keys=tag_keys)  # type: ignore[arg-type]
