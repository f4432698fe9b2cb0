"""FleetQA devices: a camera, priors of what its owner films, and the drift of both."""

from dataclasses import dataclass, replace

import numpy as np

from hyperfleet.datasets.fleetqa.camera import CameraStyle, aged, day_curve, draw_camera, evening
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.datasets.fleetqa.scene import BACKGROUNDS, COLORS, MOTIONS, SHAPES, Priors
from hyperfleet.seeding import numpy_generator

DRIFTS = ("none", "gradual", "sudden", "recurring", "ageing")

# Share of a device's own taste in its priors; the rest follows the configuration.
TASTE_SHARE = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSpec:
    """One device before drift. A sudden drift changes its priors to `later`."""

    device_id: int
    seen: bool
    family: str
    style: CameraStyle
    priors: Priors
    drift: str
    later: Priors


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Camera, priors and drift regime of a device at one time."""

    style: CameraStyle
    priors: Priors
    regime: str


def draw_device(config: FleetQAConfig, device_id: int) -> DeviceSpec:
    """Draw one device, depending only on the configuration and its number."""
    family, style = draw_camera(config, device_id)
    rng = numpy_generator(config.seed, "priors", device_id)
    priors = Priors(
        color=_skew(rng, config, _uniform(len(COLORS))),
        shape=_skew(rng, config, _uniform(len(SHAPES))),
        motion=_skew(rng, config, _uniform(len(MOTIONS))),
        background=_skew(rng, config, _uniform(len(BACKGROUNDS))),
        count=_skew(rng, config, config.object_weights),
    )
    later = replace(
        priors,
        motion=_skew(rng, config, _uniform(len(MOTIONS))),
        background=_skew(rng, config, _uniform(len(BACKGROUNDS))),
    )
    drift = str(rng.choice(DRIFTS))
    return DeviceSpec(
        device_id=device_id,
        seen=device_id < config.num_seen_devices,
        family=family,
        style=style,
        priors=priors,
        drift=drift if config.drift else "none",
        later=later,
    )


def conditions_at(device: DeviceSpec, t: float, shift: float) -> Conditions:
    """Return camera and priors at time `t` in 0..1. Hue rotation never drifts: it identifies the camera."""
    style, priors = device.style, device.priors
    if device.drift == "gradual":
        return Conditions(style=day_curve(style, t, shift), priors=priors, regime="gradual")
    if device.drift == "sudden":
        if t < 0.5:
            return Conditions(style=style, priors=priors, regime="sudden:before")
        return Conditions(style=style, priors=device.later, regime="sudden:after")
    if device.drift == "recurring":
        if int(4 * t) % 2 == 0:
            return Conditions(style=style, priors=priors, regime="recurring:day")
        return Conditions(style=evening(style, shift), priors=priors, regime="recurring:evening")
    if device.drift == "ageing":
        return Conditions(
            style=aged(style, t, shift), priors=priors, regime=f"ageing:{1 + min(4, int(5 * t))}"
        )
    return Conditions(style=style, priors=priors, regime="none")


def _uniform(size: int) -> tuple[float, ...]:
    return (1 / size,) * size


def _skew(rng: np.random.Generator, config: FleetQAConfig, base: tuple[float, ...]) -> tuple[float, ...]:
    # Dirichlet around `base`, so that the mean over devices equals the configured one.
    # Always drawn, so that later draws are the same with and without skew.
    alpha = 1.0 if config.label_alpha is None else config.label_alpha
    share = np.array(base)
    taste = rng.dirichlet(np.maximum(alpha * len(base) * share, 1e-6))
    mixed = share if config.label_alpha is None else TASTE_SHARE * taste + (1 - TASTE_SHARE) * share
    return tuple((mixed / mixed.sum()).tolist())
