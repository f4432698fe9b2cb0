"""What each fault of a scenario run did, and how long it took until the fleet was served as before.

Served as before means: among `WINDOW` samples that arrived one after the other, no more were slow and no more
fell back than in the worst such window before the fault began. A window is slow by its 99th percentile.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64
from scipy import ndimage

from hyperfleet.emulation.timeline import rows
from hyperfleet.evaluation.measures import codes, is_name, numbers

WINDOW = 100
# The 99th percentile of a window: one sample of a hundred lies above it.
_RANK = WINDOW - 2
# Delays of one size differ in their last bits; a window is slow when it is slower by more than a hundredth.
_SLACK = 1.01

Effect = Literal["none seen", "recovered", "no recovery seen", "nothing to compare with"]
Seconds = Float64[np.ndarray, " sample"]
Marks = Bool[np.ndarray, " sample"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultScore:
    """One fault; times in seconds since the run began.

    Attributes:
        kind: which, as the event log calls it.
        begin_s: when it began.
        end_s: when its cause was gone; None if the run was over first.
        num_samples: samples that were under way at some time of it.
        num_fallbacks: how many of these did not get the head they asked for.
        p99_before_s: 99th percentile of the latency of samples answered before it began and outside earlier
            faults; None where there are fewer than `WINDOW`.
        p99_s: 99th percentile of the latency of `num_samples`; None where there is none.
        effect: what is known of the recovery; it takes `WINDOW` samples after it to be seen.
        recovery_s: from its beginning until the first sample that was served as before, and after it
            `WINDOW - 1` others; 0 where no effect was seen, None where there was no recovery.
    """

    kind: str
    begin_s: float
    end_s: float | None
    num_samples: int
    num_fallbacks: int
    p99_before_s: float | None
    p99_s: float | None
    effect: Effect
    recovery_s: float | None

    @property
    def recovery_after_end_s(self) -> float | None:
        """Seconds of `recovery_s` that lie after the end of the fault's cause; None where unknown."""
        if self.recovery_s is None or self.end_s is None:
            return None
        return max(self.begin_s + self.recovery_s - self.end_s, 0.0)


def fault_scores(events: pa.Table, answers: pa.Table) -> tuple[FaultScore, ...]:
    """Judge every fault of a run, in the order in which they began.

    Faults of one kind that overlap are told apart by their order alone: the one that began first ends first.
    """
    sampled_s = numbers(answers, "sampled_s")
    order = np.argsort(sampled_s, kind="stable")
    sampled_s, answered_s = sampled_s[order], numbers(answers, "answered_s")[order]
    fell_back = ~is_name(answers, "fallback", "")[order]
    troubled = np.zeros(len(order), dtype=bool)
    scores = []
    for kind, begin_s, end_s in _spans(events):
        score = _score(kind, begin_s, end_s, sampled_s, answered_s, fell_back, troubled)
        scores.append(score)
        # What an earlier fault spoiled is no measure for a later one.
        over_s = max(end_s or begin_s, begin_s + (score.recovery_s or 0.0))
        if score.effect == "no recovery seen":
            over_s = np.inf
        troubled |= (answered_s > begin_s) & (sampled_s < over_s)
    return tuple(scores)


def _spans(events: pa.Table) -> list[tuple[str, float, float | None]]:
    """Kind, beginning and end of each fault."""
    begins, ends = (
        events.filter(pa.array(is_name(events, "kind", rows.KINDS[kind])))
        for kind in (rows.FAULT_BEGINS, rows.FAULT_ENDS)
    )
    ended: dict[str, list[float]] = defaultdict(list)
    code, names = codes(ends, "detail")
    for kind, time_s in sorted(zip(code.tolist(), numbers(ends, "time_s").tolist(), strict=True)):
        ended[names[kind]].append(time_s)
    code, names = codes(begins, "detail")
    spans: list[tuple[str, float, float | None]] = []
    for time_s, kind in sorted(zip(numbers(begins, "time_s").tolist(), code.tolist(), strict=True)):
        name = names[kind]
        spans.append((name, time_s, ended[name].pop(0) if ended[name] else None))
    return spans


def _score(
    kind: str,
    begin_s: float,
    end_s: float | None,
    sampled_s: Seconds,
    answered_s: Seconds,
    fell_back: Marks,
    troubled: Marks,
) -> FaultScore:
    latency_s = answered_s - sampled_s
    until_s = np.inf if end_s is None else end_s
    under_way = (answered_s > begin_s) & (sampled_s < until_s)
    calm = (answered_s <= begin_s) & ~troubled
    effect: Effect = "nothing to compare with"
    recovery_s: float | None = None
    p99_before_s = None
    if calm.sum() >= WINDOW:
        p99_before_s = float(np.percentile(latency_s[calm], 99))
        slow_s = float(_window_p99(latency_s[calm]).max()) * _SLACK
        most_fallbacks = int(_window_sum(fell_back[calm]).max())
        bad = (_window_p99(latency_s) > slow_s) | (_window_sum(fell_back) > most_fallbacks)
        effect, recovery_s = _recovery(bad, under_way, sampled_s, begin_s)
    return FaultScore(
        kind=kind,
        begin_s=begin_s,
        end_s=end_s,
        num_samples=int(under_way.sum()),
        num_fallbacks=int((under_way & fell_back).sum()),
        p99_before_s=p99_before_s,
        p99_s=float(np.percentile(latency_s[under_way], 99)) if under_way.any() else None,
        effect=effect,
        recovery_s=recovery_s,
    )


def _recovery(
    bad: Bool[np.ndarray, " window"], under_way: Marks, sampled_s: Seconds, begin_s: float
) -> tuple[Effect, float | None]:
    """Say from which windows are bad whether and when things were as before."""
    hit = np.flatnonzero(under_way)
    if len(hit) == 0:
        return "none seen", 0.0
    first = max(int(hit[0]) - WINDOW + 1, 0)
    bad_ones = first + np.flatnonzero(bad[first : int(hit[-1]) + 1])
    if len(bad_ones) == 0:
        return "none seen", 0.0
    # A fault that hits here and there is over after its last effect, not after its first.
    good_ones = np.flatnonzero(~bad[bad_ones[-1] :])
    if len(good_ones) == 0:
        return "no recovery seen", None
    back_s = float(sampled_s[bad_ones[-1] + good_ones[0]])
    return "recovered", max(back_s - begin_s, 0.0)


def _window_p99(latency_s: Seconds) -> Float64[np.ndarray, " window"]:
    """Return the 99th percentile of every `WINDOW` samples in a row."""
    ranked = ndimage.rank_filter(latency_s, _RANK, size=WINDOW)
    return np.asarray(ranked[WINDOW // 2 : WINDOW // 2 + len(latency_s) - WINDOW + 1])


def _window_sum(marks: Marks) -> np.ndarray:
    """Return how many of every `WINDOW` samples in a row are marked."""
    total = np.r_[0, np.cumsum(marks)]
    return np.asarray(total[WINDOW:] - total[:-WINDOW])
