"""A device with default settings."""

import numpy as np

from hyperfleet.emulation.timeline.device_state import Compute, DeviceState
from hyperfleet.link.conditions import link_conditions
from hyperfleet.link.device_link import DeviceLink
from hyperfleet.link.energy import RADIOS, DeviceRadio
from hyperfleet.scenario.policies import EverySample, RequestPolicy


def device(
    policy: RequestPolicy | None = None, anchor: np.ndarray | None = None, battery_j: float | None = None
) -> DeviceState:
    """Return a device that has done nothing yet."""
    link = DeviceLink(link_conditions("4g-5"), 0, 0)
    compute = Compute(encode_s=0.1, apply_s=0.01, watts=2.0, battery_j=battery_j)
    return DeviceState(link, DeviceRadio(RADIOS["lte"]), compute, (), policy or EverySample(), anchor)
