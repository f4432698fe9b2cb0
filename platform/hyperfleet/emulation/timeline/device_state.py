"""What the timeline knows of a device, and of a sample on its way to an answer."""

from collections import deque

import numpy as np
from jaxtyping import Float32

from hyperfleet.emulation.scenario.drift_test import has_drifted
from hyperfleet.emulation.scenario.policies import OnDrift, RequestPolicy
from hyperfleet.link.device_link import DeviceLink
from hyperfleet.link.energy import DeviceRadio


class DeviceState:
    """A device that had a sample; one that had none yet has no state at all.

    It is what a policy sees, see `hyperfleet.emulation.scenario.policies.HeadAge`.
    """

    __slots__ = (
        "anchor",
        "busy_until_s",
        "head_number",
        "head_row",
        "head_s",
        "idle_s",
        "is_off",
        "joules",
        "last_sample_s",
        "link",
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
        policy: RequestPolicy,
        anchor: Float32[np.ndarray, "row 192"] | None,
    ) -> None:
        self.link = link
        self.radio = radio
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
        """Whether it ever got a head, or asked for one that is still under way."""
        return self.head_row >= 0

    def saw(self, now_s: float, row: int) -> None:
        """Take note of a sample."""
        self.idle_s = now_s - self.last_sample_s
        self.last_sample_s = now_s
        self.samples_since_head += 1
        if self.recent is not None and self.reference is not None:
            self.recent.append(row)
            if len(self.reference) < (self.recent.maxlen or 0):
                self.reference.append(row)

    def got_head(self, now_s: float, row: int, number: int) -> None:
        """Take note of a head; one that was asked for earlier than the one at hand is not kept."""
        if number <= self.head_number:
            return
        self.head_row, self.head_number, self.head_s = row, number, now_s
        self.samples_since_head = 0
        if self.reference is not None and self.recent is not None:
            self.reference.clear()
            self.recent.clear()

    def drifted(self, window: int, p_value: float) -> bool:
        """Whether the newest features differ from the first ones after the last head."""
        if self.anchor is None or self.reference is None or self.recent is None:
            return False
        return has_drifted(self.anchor[self.reference], self.anchor[list(self.recent)], p_value)


class Request:
    """A sample between its arrival and its answer, and what that has taken so far.

    `tries` counts the requests sent for its head; `attempt` changes whenever one of them is over, so that
    what still comes of it can be told from what is waited for.
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
        "tries",
        "uplink_bytes",
        "uplink_s",
    )

    def __init__(self, device: int, number: int, row: int, sampled_s: float) -> None:
        self.device = device
        self.number = number
        self.row = row
        self.sampled_s = sampled_s
        self.attempt = 0
        self.tries = 0
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
        # Bytes and joules of a head that will come too late.
        self.late = 0, 0.0
