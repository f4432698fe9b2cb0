"""Outcomes of hostile requests: counts by kind and outcome, the slowest of each kind, broken promises."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

_EXAMPLES = 3
_SHOWN_BYTES = 400


@dataclass(kw_only=True, slots=True)
class Tally:
    """Counts by kind.

    Attributes:
        ends: number of each outcome per kind.
        slowest_s: longest duration of a request of each kind.
        faults: number of times each promise was broken.
        examples: the first requests that broke each promise.
    """

    ends: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    slowest_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    faults: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(
        self, kind: str, end: str, seconds: float, *, fault: str | None = None, sent: object = ""
    ) -> None:
        """Count one request."""
        self.ends[kind][end] += 1
        self.slowest_s[kind] = max(self.slowest_s[kind], seconds)
        if fault is not None:
            name = f"{kind}: {fault}"
            self.faults[name] += 1
            if len(self.examples[name]) < _EXAMPLES:
                self.examples[name].append(repr(sent)[:_SHOWN_BYTES])

    @property
    def total(self) -> int:
        """Requests so far."""
        return sum(ends.total() for ends in self.ends.values())
