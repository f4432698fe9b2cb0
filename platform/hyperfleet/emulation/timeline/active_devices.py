"""The active devices of a timeline, each created with its first sample."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from hyperfleet.emulation.timeline.device_state import Compute, DeviceState
from hyperfleet.emulation.timeline.plan import Plan
from hyperfleet.emulation.timeline.records import Work
from hyperfleet.link.conditions import link_conditions
from hyperfleet.link.device_link import DeviceLink, Pauses
from hyperfleet.link.energy import RADIOS, DeviceRadio
from hyperfleet.scenario.definition import Scenario


class ActiveDevices:
    """Active devices by position.

    Args:
        scenario: the scenario they are in.
        plan: their networks and profiles.
        work: the cost of a sample.
        pauses: outages of each network of the scenario.
        anchor: features of all rows, for policies that look at them.
    """

    def __init__(
        self,
        scenario: Scenario,
        plan: Plan,
        work: Work,
        pauses: Sequence[Pauses],
        anchor: Float32[np.ndarray, "row 192"] | None,
    ) -> None:
        self._scenario = scenario
        # Python's own numbers: NumPy creates an object for each number read from an array.
        self._device_id, self._profile, self._network = (
            each.tolist() for each in (plan.device_id, plan.profile, plan.network)
        )
        self._pauses = pauses
        self._anchor = anchor
        self._conditions = [link_conditions(name) for name in scenario.networks]
        self._compute = [
            Compute(
                encode_s=work.encode_gmacs / each.gmac_per_s,
                apply_s=work.apply_gmacs / each.gmac_per_s,
                watts=each.compute_w,
                battery_j=each.battery_j,
            )
            for each in scenario.profiles
        ]
        self._radio = [RADIOS[each.radio] for each in self._conditions]
        self._states: list[DeviceState | None] = [None] * len(plan.device_id)

    def __getitem__(self, index: int) -> DeviceState:
        """Return the device at a position, creating it if this is its first sample."""
        state = self._states[index]
        if state is None:
            network = self._network[index]
            state = self._states[index] = DeviceState(
                DeviceLink(self._conditions[network], self._scenario.seed, self._device_id[index]),
                DeviceRadio(self._radio[network]),
                self._compute[self._profile[index]],
                self._pauses[network],
                self._scenario.policy,
                self._anchor,
            )
        return state
