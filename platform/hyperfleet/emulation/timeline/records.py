"""What goes into a timeline and what comes out of it."""

from dataclasses import dataclass
from typing import NamedTuple

EventRow = tuple[float, int, int, int, int, int, float, float, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a sample costs a device.

    Attributes:
        encode_gmacs: billions of multiply-accumulates from frames to features.
        apply_gmacs: of applying a head.
        uplink_bytes: of a request.
        downlink_bytes: of a reply with one head in the scenario's codec.
    """

    encode_gmacs: float
    apply_gmacs: float
    uplink_bytes: int
    downlink_bytes: int


class AnsweredSample(NamedTuple):
    """A sample with the head it gets and what that took; the answer itself is computed elsewhere."""

    device: int
    number: int
    row: int
    sampled_s: float
    answered_s: float
    head: int
    head_row: int
    head_age_s: float
    attempts: int
    uplink_bytes: int
    downlink_bytes: int
    encode_s: float
    uplink_s: float
    queue_s: float
    generate_s: float
    downlink_s: float
    apply_s: float
    joules: float
    compute_joules: float
    fallback: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Window:
    """A stretch of the run.

    Attributes:
        events: rows of the event log, see `rows.EVENT_COLUMNS`.
        answers: samples answered, in order.
        until_s: when the stretch ends.
        host_kills: times at which a host is to be killed.
        samples_left: samples that are still to come.
    """

    events: list[EventRow]
    answers: list[AnsweredSample]
    until_s: float
    host_kills: tuple[float, ...]
    samples_left: int
