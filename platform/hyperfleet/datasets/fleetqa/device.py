"""FleetQA devices: a camera, its owner's words and priors of what they film, and the drift of all three."""

from dataclasses import dataclass, replace

import numpy as np

from hyperfleet.datasets.fleetqa.camera import CameraStyle, aged, day_curve, draw_camera, evening
from hyperfleet.datasets.fleetqa.dialect import Dialect, draw_dialect
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.datasets.fleetqa.scene import BACKGROUNDS, COLORS, MOTIONS, SHAPES, Priors
from hyperfleet.seeding import numpy_generator

DRIFTS = ("none", "gradual", "sudden", "recurring", "ageing")

# In the history, which ends at 0.8, so that live clips are all of the new owner.
SUDDEN_AT = 0.5
# Share of a device's own taste in its priors; the rest follows the configuration.
TASTE_SHARE = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSpec:
    """One device before drift. A sudden drift brings a new owner, with priors `later` and `later_words`."""

    device_id: int
    seen: bool
    family: str
    style: CameraStyle
    priors: Priors
    words: Dialect
    drift: str
    later: Priors
    later_words: Dialect


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Camera, priors, words and drift regime of a device at one time."""

    style: CameraStyle
    priors: Priors
    words: Dialect
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
    motion, background = (_skew(rng, config, _uniform(len(names))) for names in (MOTIONS, BACKGROUNDS))
    drift = str(rng.choice(DRIFTS))
    later = replace(
        priors,
        motion=motion,
        background=background,
        color=_skew(rng, config, _uniform(len(COLORS))),
        shape=_skew(rng, config, _uniform(len(SHAPES))),
    )
    speech = numpy_generator(config.seed, "words", device_id)
    return DeviceSpec(
        device_id=device_id,
        seen=device_id < config.num_seen_devices,
        family=family,
        style=style,
        priors=priors,
        words=draw_dialect(speech, config.num_vocabularies),
        drift=drift if config.drift else "none",
        later=later,
        later_words=draw_dialect(speech, config.num_vocabularies),
    )


def conditions_at(device: DeviceSpec, t: float, shift: float) -> Conditions:
    """Return the conditions at time `t` in 0..1. Hue rotation never drifts: it identifies the camera."""
    style = device.style
    first = Conditions(style=style, priors=device.priors, words=device.words, regime=device.drift)
    match device.drift:
        case "gradual":
            return replace(first, style=day_curve(style, t, shift))
        case "sudden" if t < SUDDEN_AT:
            return replace(first, regime="sudden:before")
        case "sudden":
            return replace(first, priors=device.later, words=device.later_words, regime="sudden:after")
        case "recurring" if int(4 * t) % 2 == 0:
            return replace(first, regime="recurring:day")
        case "recurring":
            return replace(first, style=evening(style, shift), regime="recurring:evening")
        case "ageing":
            return replace(first, style=aged(style, t, shift), regime=f"ageing:{1 + min(4, int(5 * t))}")
        case _:
            return first


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
