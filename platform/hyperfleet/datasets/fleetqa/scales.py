"""Configuration of a FleetQA data set, and its named sizes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hyperfleet.datasets.bounds import STORE_BOUNDS, check_bounds
from hyperfleet.errors import ConfigError, unknown_name

MAX_OBJECTS = 3
NUM_VOCABULARIES = 3
# What devices have of their own; without any of it, a data set is the control.
TRAITS = ("words", "taste", "camera")
USUAL_TRAITS = ("taste", "camera")


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetQAConfig:
    """Everything that a rendered data set depends on; equal configurations give equal data sets.

    Attributes:
        shift: strength of the differences between cameras (0: every camera is neutral).
        hue_share: share of cameras that rotate hue.
        label_alpha: Dirichlet concentration of the devices' priors (None: uniform, no label skew).
        num_vocabularies: vocabularies for colors, and for shapes, of which each owner has one (1: all owners
            use the same words).
        cue_share: share of clips with the maker's mark, which reveals the camera.
        object_weights: at index i, the share of clips with i + 1 objects.
        letter_share: share of clips with a letter.
        reserved_letter_share: share of the letters in live clips that no history clip shows, so that their
            answers are outside the vocabulary.
        stored_frames: pictures per clip in the clip store, of `store_short_side` pixels.

    Raises:
        ConfigError: a value is out of range.
    """

    seed: int = 0
    num_seen_devices: int = 800
    num_held_out_devices: int = 200
    history_clips: int = 3
    live_clips: int = 2
    val_share: float = 0.07
    shift: float = 1.0
    hue_share: float = 0.6
    label_alpha: float | None = 0.5
    num_vocabularies: int = 1
    cue_share: float = 1.0
    drift: bool = True
    object_weights: tuple[float, ...] = (0.7, 0.3)
    letter_share: float = 0.5
    reserved_letter_share: float = 0.75
    questions_per_clip: int = 5
    min_seconds: float = 2.5
    max_seconds: float = 2.5
    fps_choices: tuple[int, ...] = (10, 12)
    stored_frames: int = 6
    store_short_side: int = 76
    store_quality: int = 92
    max_answers: int = 1500
    tokenizer_vocab_size: int = 512

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_shares()
        if self.label_alpha is not None and not self.label_alpha > 0:
            raise ConfigError(f"label_alpha must be > 0, got {self.label_alpha}; use None for uniform priors")
        if not 0 <= self.shift <= 3:
            raise ConfigError(
                f"shift must be in 0..3, got {self.shift}; 0 makes every camera neutral, 1 is usual"
            )
        if not 1 <= self.min_seconds <= self.max_seconds <= 60:
            raise ConfigError(
                "a clip lasts 1 to 60 seconds with min_seconds <= max_seconds, got "
                f"{self.min_seconds} and {self.max_seconds}"
            )
        if not self.fps_choices or not all(5 <= fps <= 60 for fps in self.fps_choices):
            raise ConfigError(f"fps_choices must name frame rates of 5..60, got {self.fps_choices}")

    def _check_counts(self) -> None:
        bounds = {
            "num_seen_devices": (1, 1_000_000),
            "num_held_out_devices": (0, 1_000_000),
            "history_clips": (1, 10_000),
            "num_vocabularies": (1, NUM_VOCABULARIES),
            "live_clips": (1, 10_000),
            "questions_per_clip": (3, 12),
            "max_answers": (1, 100_000),
            "tokenizer_vocab_size": (64, 100_000),
        }
        check_bounds(self, {**STORE_BOUNDS, **bounds})

    def _check_shares(self) -> None:
        for name in ("val_share", "hue_share", "cue_share", "letter_share", "reserved_letter_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} must be in 0..1, got {value}")
        weights = self.object_weights
        if not 1 <= len(weights) <= MAX_OBJECTS or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
            raise ConfigError(
                f"object_weights must be 1 to {MAX_OBJECTS} shares that sum to 1 (clips with one, two, three "
                f"objects), got {weights}"
            )
        if self.num_val_clips >= self.num_seen_devices * self.history_clips:
            raise ConfigError(
                f"no clip is left to train on: {self.num_seen_devices} seen devices x "
                f"{self.history_clips} history clips, {self.num_val_clips} of them for validation; lower "
                "val_share or add devices"
            )

    @property
    def num_devices(self) -> int:
        """Number of seen and held-out devices; held-out devices have the highest numbers."""
        return self.num_seen_devices + self.num_held_out_devices

    @property
    def num_val_clips(self) -> int:
        """Number of history clips kept for validation, at least one."""
        return max(1, round(self.val_share * self.num_seen_devices * self.history_clips))

    @property
    def num_clips(self) -> int:
        """Number of video files."""
        return self.num_seen_devices * self.history_clips + self.num_devices * self.live_clips


_FULL = FleetQAConfig(
    num_seen_devices=2000,
    num_held_out_devices=500,
    history_clips=8,
    live_clips=4,
    object_weights=(0.4, 0.4, 0.2),
    questions_per_clip=10,
    max_seconds=4.0,
    fps_choices=(10, 12, 15, 25, 30),
)
SCALES = {
    "smoke": FleetQAConfig(num_seen_devices=12, num_held_out_devices=4),
    "demo": FleetQAConfig(),
    "full": _FULL,
    # For All-in-One-Ti: the videos' own height, and the frames that the most demanding method reads.
    "paper": replace(_FULL, stored_frames=5, store_short_side=240, store_quality=90),
}


def with_traits(name: str, traits: Sequence[str]) -> FleetQAConfig:
    """Return a named size whose devices differ in `traits` only; without any, the control.

    Raises:
        UnknownNameError: no size or trait has that name.
    """
    for trait in traits:
        if trait not in TRAITS:
            raise unknown_name("trait", trait, TRAITS)
    named = scale(name)
    return replace(
        named,
        num_vocabularies=NUM_VOCABULARIES if "words" in traits else 1,
        label_alpha=named.label_alpha if "taste" in traits else None,
        shift=named.shift if "camera" in traits else 0.0,
    )


def variant_name(name: str, traits: Sequence[str]) -> str:
    """Name a data set or folder after its devices' traits, unless they have the usual ones."""
    kept = tuple(trait for trait in TRAITS if trait in traits)
    return name if kept == USUAL_TRAITS else "-".join([name, *(kept or ["control"])])


def scale(name: str) -> FleetQAConfig:
    """Return the configuration of a named size: smoke (seconds), demo (minutes), full or paper.

    Raises:
        UnknownNameError: no size has that name.
    """
    if name not in SCALES:
        raise unknown_name("FleetQA scale", name, SCALES)
    return SCALES[name]
