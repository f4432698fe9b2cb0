"""State of a device and of a sample on its way to an answer."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from hyperfleet.emulation.timeline.records import AnsweredSample
from hyperfleet.link.device_link import DeviceLink, Pauses, Transfer
from hyperfleet.link.energy import DeviceRadio
from hyperfleet.scenario.policies import OnDrift, RequestPolicy
from hyperfleet.scenario.two_sample import has_drifted


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """Cost of a sample on devices of one profile.

    Attributes:
        encode_s: seconds from frames to features.
        apply_s: seconds of applying a head.
        watts: power of computing.
        battery_j: joules until the device is off, None on mains.
    """

    encode_s: float
    apply_s: float
    watts: float
    battery_j: float | None


class DeviceState:
    """State of a device, created at its first sample.

    Implements `hyperfleet.scenario.policies.HeadAge` for request policies.

    Args:
        link: link of the device.
        radio: radio of the device.
        compute: cost of a sample for its profile.
        pauses: outages of its network, see `DeviceLink.up`.
        policy: request policy of the scenario.
        anchor: features of all rows, for policies that compare them.
    """

    __slots__ = (
        "anchor",
        "busy_until_s",
        "compute",
        "head_number",
        "head_row",
        "head_s",
        "idle_s",
        "is_off",
        "joules",
        "last_sample_s",
        "link",
        "pauses",
        "pending",
        "radio",
        "recent",
        "reference",
        "samples_since_head",
    )

    def __init__(
        self,
        link: DeviceLink,
        radio: DeviceRadio,
        compute: Compute,
        pauses: Pauses,
        policy: RequestPolicy,
        anchor: Float32[np.ndarray, "row 192"] | None,
    ) -> None:
        self.link = link
        self.radio = radio
        self.compute = compute
        self.pauses = pauses
        self.anchor = anchor
        self.busy_until_s = 0.0
        self.joules = 0.0
        self.is_off = False
        self.pending = 0
        self.head_row = -1
        self.head_number = -1
        self.head_s = 0.0
        self.samples_since_head = 0
        self.last_sample_s = -np.inf
        self.idle_s = np.inf
        window = policy.window if isinstance(policy, OnDrift) else 0
        self.reference: list[int] | None = [] if window else None
        self.recent: deque[int] | None = deque(maxlen=window) if window else None

    @property
    def has_head(self) -> bool:
        """Whether the device has received a head."""
        return self.head_row >= 0

    def up(self, now_s: float, num_bytes: int) -> tuple[float, int, float]:
        """Send bytes to the cloud; return arrival time, bytes on the air and joules of the radio."""
        return self._with_joules(self.link.up(now_s, num_bytes, self.pauses), uplink=True)

    def down(self, now_s: float, num_bytes: int) -> tuple[float, int, float]:
        """Send bytes to the device; see `up`."""
        return self._with_joules(self.link.down(now_s, num_bytes, self.pauses), uplink=False)

    def _with_joules(self, transfer: Transfer, *, uplink: bool) -> tuple[float, int, float]:
        finish_s, air_s, sent_bytes, _ = transfer
        # The radio is active while bytes are on the air, not while they wait.
        return finish_s, sent_bytes, self.radio.use(finish_s - air_s, finish_s, sent_bytes, uplink)

    def drain(self, joules: float) -> bool:
        """Take energy from the battery and return whether this switched the device off."""
        self.joules += joules
        battery_j = self.compute.battery_j
        if battery_j is None or self.joules < battery_j or self.is_off:
            return False
        self.is_off = True
        return True

    def saw(self, now_s: float, row: int) -> None:
        """Record a sample."""
        self.idle_s = now_s - self.last_sample_s
        self.last_sample_s = now_s
        self.samples_since_head += 1
        if self.recent is not None and self.reference is not None:
            self.recent.append(row)
            if len(self.reference) < (self.recent.maxlen or 0):
                self.reference.append(row)

    def got_head(self, now_s: float, row: int, number: int) -> None:
        """Keep a head unless it was requested before the present one."""
        if number <= self.head_number:
            return
        self.head_row, self.head_number, self.head_s = row, number, now_s
        self.samples_since_head = 0
        if self.reference is not None and self.recent is not None:
            self.reference.clear()
            self.recent.clear()

    def drifted(self, window: int, p_value: float) -> bool:
        """Return whether the newest features differ from the first ones after the last head."""
        if self.anchor is None or self.reference is None or self.recent is None:
            return False
        return has_drifted(self.anchor[self.reference], self.anchor[list(self.recent)], p_value)


class Request:
    """A sample between arrival and answer, and its cost so far.

    `device` is the position of its device, `state` the device's state. `tries` counts the requests sent for
    its head. `attempt` changes whenever one of them is over, so that late events of earlier requests are
    recognized.
    """

    __slots__ = (
        "attempt",
        "compute_joules",
        "deadline_s",
        "device",
        "downlink_bytes",
        "downlink_s",
        "encode_s",
        "generate_s",
        "joules",
        "late",
        "limit_s",
        "number",
        "received_s",
        "row",
        "sampled_s",
        "sent_s",
        "state",
        "timeout",
        "tries",
        "uplink_bytes",
        "uplink_s",
    )

    def __init__(self, device: int, state: DeviceState, number: int, row: int, sampled_s: float) -> None:
        self.device = device
        self.state = state
        self.number = number
        self.row = row
        self.sampled_s = sampled_s
        self.attempt = 0
        self.tries = 0
        # Number of the current time-out, see `Timeouts`.
        self.timeout = -1
        self.deadline_s = np.inf
        self.limit_s = np.inf
        self.sent_s = 0.0
        self.received_s = 0.0
        self.encode_s = 0.0
        self.uplink_s = 0.0
        self.generate_s = 0.0
        self.downlink_s = 0.0
        self.uplink_bytes = 0
        self.downlink_bytes = 0
        self.joules = 0.0
        self.compute_joules = 0.0
        # Bytes and joules of a head that arrives too late.
        self.late = 0, 0.0

    def answered(
        self, answered_s: float, apply_s: float, head: int, head_row: int, age_s: float, reason: str
    ) -> AnsweredSample:
        """Return the answered sample; its queueing time is the part of the latency that no step explains."""
        measured_s = self.encode_s + self.uplink_s + self.generate_s + self.downlink_s + apply_s
        asked = self.tries > 0
        return AnsweredSample(
            device=self.device,
            number=self.number,
            row=self.row,
            sampled_s=self.sampled_s,
            answered_s=answered_s,
            head=head,
            head_row=head_row,
            head_age_s=age_s,
            attempts=self.tries,
            uplink_bytes=self.uplink_bytes,
            downlink_bytes=self.downlink_bytes,
            encode_s=self.encode_s,
            uplink_s=self.uplink_s,
            queue_s=max(answered_s - self.sampled_s - measured_s, 0.0) if asked else 0.0,
            generate_s=self.generate_s,
            downlink_s=self.downlink_s,
            apply_s=apply_s,
            joules=self.joules,
            compute_joules=self.compute_joules,
            fallback=reason,
        )
