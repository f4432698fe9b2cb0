"""Camera models: the change from the true colors of a scene to those that a device records.

A camera multiplies linear RGB by a 3x3 matrix (white balance, saturation, hue rotation about the gray axis,
gain), applies a gamma curve, blurs, darkens corners and adds noise. Because of the matrix, the same pixel
means different true colors on different devices. No invariance can undo this, so personalized parameters
can help.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.seeding import numpy_generator

HUE_ROTATION_DEG = (35.0, 70.0)
MAX_ZOOM = 1.08
MAX_SHAKE_PX = 4

_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraStyle:
    """One camera. `noise` is a standard deviation in 8-bit steps, `vignette` the loss of light in corners.

    `crf` is the quality of the H.264 encoder (18 fine, 40 coarse); `overlay` is "", "timestamp" or
    "letterbox".
    """

    hue_deg: float = 0.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gain: float = 1.0
    gamma: float = 1.0
    saturation: float = 1.0
    blur_px: float = 0.0
    noise: float = 0.0
    vignette: float = 0.0
    zoom: float = 1.0
    shake_px: int = 0
    crf: int = 20
    fps: int = 10
    overlay: str = ""

    def color_matrix(self) -> Float64[np.ndarray, "3 3"]:
        """Return the matrix from true RGB to the camera's RGB (before gamma)."""
        saturation = self.saturation * np.eye(3) + (1 - self.saturation) * np.outer(np.ones(3), _LUMA)
        return self.gain * hue_rotation(self.hue_deg) @ saturation @ np.diag(self.white_balance)

    def gamma_table(self) -> UInt8[np.ndarray, "256"]:
        """Return the gamma curve as a look-up table."""
        values = 255 * (np.arange(256) / 255) ** self.gamma
        return np.round(values).astype(np.uint8)

    def apply_color(self, rgb: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
        """Map a picture in true colors to this camera's colors (matrix and gamma only)."""
        mixed = cv2.transform(rgb, self.color_matrix())
        return np.asarray(cv2.LUT(mixed, self.gamma_table()), np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Family:
    """Typical values of one kind of camera: logarithms for factors, pixels and 8-bit steps otherwise."""

    white_balance: tuple[float, float, float]
    gain: float
    gamma: float
    saturation: float
    blur_px: float
    noise: float
    vignette: float
    zoom: float
    shake_px: int
    overlay: str


FAMILIES = {
    "phone": _Family(
        white_balance=(0.0, 0.0, 0.02), gain=0.04, gamma=-0.05, saturation=0.10, blur_px=0.0,
        noise=1.0, vignette=0.05, zoom=0.05, shake_px=3, overlay="",
    ),
    "webcam": _Family(
        white_balance=(0.08, 0.0, -0.10), gain=-0.02, gamma=0.05, saturation=-0.10, blur_px=0.5,
        noise=3.0, vignette=0.10, zoom=0.02, shake_px=0, overlay="",
    ),
    "doorbell": _Family(
        white_balance=(-0.04, 0.02, 0.04), gain=-0.10, gamma=0.10, saturation=-0.15, blur_px=0.7,
        noise=2.0, vignette=0.30, zoom=0.0, shake_px=0, overlay="timestamp",
    ),
    "dashcam": _Family(
        white_balance=(-0.08, 0.02, 0.08), gain=0.08, gamma=-0.10, saturation=0.0, blur_px=0.3,
        noise=1.5, vignette=0.15, zoom=0.04, shake_px=4, overlay="timestamp",
    ),
    "tablet": _Family(
        white_balance=(0.04, 0.0, -0.04), gain=0.0, gamma=0.0, saturation=0.05, blur_px=0.2,
        noise=1.5, vignette=0.05, zoom=0.03, shake_px=2, overlay="letterbox",
    ),
}  # fmt: skip


def hue_rotation(degrees: float) -> Float64[np.ndarray, "3 3"]:
    """Return the rotation of RGB about the gray axis: red turns towards green, gray stays gray."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    same = cosine + (1 - cosine) / 3
    after = (1 - cosine) / 3 - sine / np.sqrt(3)
    before = (1 - cosine) / 3 + sine / np.sqrt(3)
    return np.array([[same, after, before], [before, same, after], [after, before, same]])


def draw_camera(config: FleetQAConfig, device_id: int) -> tuple[str, CameraStyle]:
    """Draw the family and the camera of one device from the seed and its number.

    `config.shift` only scales the draws: the same device at shift 0 and 1 differs only in strength.
    """
    rng = numpy_generator(config.seed, "camera", device_id)
    name = str(rng.choice(list(FAMILIES)))
    family = FAMILIES[name]
    shift = config.shift
    rotated = rng.random() < config.hue_share
    turn = rng.choice([-1.0, 1.0]) * rng.uniform(*HUE_ROTATION_DEG)
    tilt = rng.normal(0, 3)
    balance = np.exp(shift * (np.array(family.white_balance) + rng.normal(0, 0.05, 3)))
    gain, gamma, saturation = np.exp(
        shift * (np.array([family.gain, family.gamma, family.saturation]) + rng.normal(0, 0.06, 3))
    )
    softness, grain, corner, zoom, fineness = rng.uniform(0, 1, 5)
    style = CameraStyle(
        hue_deg=round(float(shift * (turn if rotated else tilt)), 3),
        white_balance=(round(float(balance[0]), 4), round(float(balance[1]), 4), round(float(balance[2]), 4)),
        gain=round(float(gain), 4),
        gamma=round(float(gamma), 4),
        saturation=round(float(saturation), 4),
        blur_px=round(float(min(2.5, shift * (family.blur_px * (0.5 + softness)))), 3),
        noise=round(float(min(12.0, shift * family.noise * (0.5 + grain))), 3),
        vignette=round(float(min(0.6, shift * family.vignette * (0.5 + corner))), 3),
        zoom=round(float(min(MAX_ZOOM, 1 + shift * family.zoom * zoom)), 4),
        shake_px=min(MAX_SHAKE_PX, round(shift * family.shake_px)),
        crf=int(np.clip(round(20 + shift * 14 * fineness), 18, 40)),
        fps=int(rng.choice(config.fps_choices)),
        overlay=family.overlay if shift > 0 else "",
    )
    return name, style


def day_curve(style: CameraStyle, t: float, shift: float) -> CameraStyle:
    """Apply gradual drift: gain and white balance follow a day from `t` = 0 to 1."""
    warmth = 0.06 * shift * np.sin(2 * np.pi * t)
    red, green, blue = style.white_balance
    return replace(
        style,
        gain=style.gain * float(np.exp(0.12 * shift * np.sin(2 * np.pi * t))),
        white_balance=(red * float(np.exp(warmth)), green, blue * float(np.exp(-warmth))),
    )


def evening(style: CameraStyle, shift: float) -> CameraStyle:
    """Apply the second regime of recurring drift: less light, more noise."""
    return replace(style, gain=style.gain * float(np.exp(-0.15 * shift)), noise=style.noise + 2 * shift)


def aged(style: CameraStyle, t: float, shift: float) -> CameraStyle:
    """Apply ageing: lens blur and sensor noise grow as `t` goes from 0 to 1."""
    return replace(style, blur_px=style.blur_px + 0.6 * shift * t, noise=style.noise + 3 * shift * t)
