"""Effect of each fault of a run, and the time until the fleet was served as before.

A window is `WINDOW` samples in the order of their arrival. It was served as before if its 99th percentile of
latency and its fallbacks are no worse than in the worst window before the fault.
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
# The 99th percentile of a window: one sample of a hundred is above it.
_RANK = WINDOW - 2
# Equal delays differ in their last bits; a window is slow if it is slower by more than a hundredth.
_SLACK = 1.01

Effect = Literal["none seen", "recovered", "no recovery seen", "nothing to compare with"]
Seconds = Float64[np.ndarray, " sample"]
Marks = Bool[np.ndarray, " sample"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultScore:
    """One fault; times in seconds since the run began.

    Attributes:
        kind: name in the event log.
        begin_s: start of the fault.
        end_s: end of its cause; None if the run ended first.
        num_samples: samples in progress at any time during the fault.
        num_fallbacks: those that did not get the head they asked for.
        p99_before_s: 99th percentile of the latency of samples answered before the fault and outside earlier
            faults; None if there are fewer than `WINDOW`.
        p99_s: 99th percentile of the latency of the `num_samples` samples; None if there are none.
        effect: state of the recovery, which takes `WINDOW` samples to be seen.
        recovery_s: time from the start of the fault until the first of `WINDOW` samples in a row that were
            served as before; 0 if no effect was seen, None without recovery.
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
        """Seconds of `recovery_s` after the end of the fault's cause; None if unknown."""
        if self.recovery_s is None or self.end_s is None:
            return None
        return max(self.begin_s + self.recovery_s - self.end_s, 0.0)


def fault_scores(events: pa.Table, answers: pa.Table) -> tuple[FaultScore, ...]:
    """Score every fault of a run, in the order in which they began.

    The log does not tell overlapping faults of one kind apart; the one that began first is taken to end
    first.
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
        # Samples hit by an earlier fault are no baseline for a later one.
        over_s = max(end_s or begin_s, begin_s + (score.recovery_s or 0.0))
        if score.effect == "no recovery seen":
            over_s = np.inf
        troubled |= (answered_s > begin_s) & (sampled_s < over_s)
    return tuple(scores)


def _spans(events: pa.Table) -> list[tuple[str, float, float | None]]:
    """Return kind, start and end of each fault."""
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
    """Derive effect and recovery time from the windows that are worse than before the fault."""
    hit = np.flatnonzero(under_way)
    if len(hit) == 0:
        return "none seen", 0.0
    first = max(int(hit[0]) - WINDOW + 1, 0)
    bad_ones = first + np.flatnonzero(bad[first : int(hit[-1]) + 1])
    if len(bad_ones) == 0:
        return "none seen", 0.0
    # An intermittent fault is over after its last effect, not after its first.
    good_ones = np.flatnonzero(~bad[bad_ones[-1] :])
    if len(good_ones) == 0:
        return "no recovery seen", None
    back_s = float(sampled_s[bad_ones[-1] + good_ones[0]])
    return "recovered", max(back_s - begin_s, 0.0)


def _window_p99(latency_s: Seconds) -> Float64[np.ndarray, " window"]:
    """Return the 99th percentile of every `WINDOW` consecutive samples."""
    ranked = ndimage.rank_filter(latency_s, _RANK, size=WINDOW)
    return np.asarray(ranked[WINDOW // 2 : WINDOW // 2 + len(latency_s) - WINDOW + 1])


def _window_sum(marks: Marks) -> np.ndarray:
    """Count the marks among every `WINDOW` consecutive samples."""
    total = np.r_[0, np.cumsum(marks)]
    return np.asarray(total[WINDOW:] - total[:-WINDOW])
