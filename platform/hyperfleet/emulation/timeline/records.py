"""Inputs and outputs of a timeline."""

from dataclasses import dataclass
from typing import NamedTuple

EventRow = tuple[float, int, int, int, int, int, float, float, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The cost of a sample on a device.

    Attributes:
        encode_gmacs: billions of multiply-accumulates from frames to features.
        apply_gmacs: the same for applying a head.
        uplink_bytes: size of a request.
        downlink_bytes: size of a reply with one head in the scenario's codec.
    """

    encode_gmacs: float
    apply_gmacs: float
    uplink_bytes: int
    downlink_bytes: int


class AnsweredSample(NamedTuple):
    """A sample with its head and their cost; the answer itself is computed elsewhere."""

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
        host_kills: times at which a host is to be killed.
    """

    events: list[EventRow]
    answers: list[AnsweredSample]
    host_kills: tuple[float, ...]
