"""Options of `hyperfleet data`: render, prepare, describe."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from hyperfleet.datasets.bounds import STORE_BOUNDS, check_bounds
from hyperfleet.datasets.fleetqa.scales import USUAL_TRAITS, FleetQAConfig, variant_name, with_traits
from hyperfleet.datasets.official.release import RELEASES, Protocol
from hyperfleet.errors import unknown_name
from pipelines.commands.parsing import default


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderConfig:
    """Render a FleetQA data set: mp4 files, annotations in MSRVTT-QA's format, clip store.

    Attributes:
        scale: smoke (seconds), demo (minutes), full or paper.
        output: folder of the data set.
        seed: another seed gives other scenes and cameras.
        personal: what devices have of their own: words, taste, camera. Without a value it is the control, in
            which personalization cannot help.
        cue_share: share of clips with the maker's mark, which reveals the camera.
    """

    scale: str = "demo"
    output: Annotated[Path | None, default("data/<scale>, or data/<scale>-<personal>")] = None
    seed: int = 0
    personal: tuple[str, ...] = USUAL_TRAITS
    cue_share: float = 1.0

    def __post_init__(self) -> None:
        self.data_set()

    def data_set(self) -> FleetQAConfig:
        """Return the configuration to render.

        Raises:
            ConfigError: an option is out of range.
        """
        return dataclasses.replace(
            with_traits(self.scale, self.personal), seed=self.seed, cue_share=self.cue_share
        )

    @property
    def folder(self) -> Path:
        """Folder of the data set."""
        return self.output or Path("data") / variant_name(self.scale, self.personal)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """Prepare a public data set: read its files, decode its videos once, spread them over devices.

    Attributes:
        dataset: the data set.
        annotations: folder of its annotation files.
        videos: folder of its videos, or the folder above it.
        output: folder to write.
        protocol: source of the validation samples: training data (honest), or the test files, as in
            All-in-One's code (public).
        retrieval_cut: split of msrvtt-retrieval; recalls on different splits do not compare.
        bert_vocab: vocab.txt of bert-base-uncased.
        num_devices: devices to spread the videos over; a fifth of them has no history.
        alpha: Dirichlet concentration of the devices' tastes; small is strong.
        seed: seed of all that the release leaves open.
        store_short_side: side of the stored pictures in pixels.
        stored_frames: stored pictures per video.
        store_quality: JPEG quality of the stored pictures.

    Raises:
        ConfigError: a value out of range.
    """

    dataset: Literal["msrvtt-qa", "msvd-qa", "tgif-frameqa", "msrvtt-mc", "msrvtt-retrieval"]
    annotations: Path
    videos: Path
    output: Annotated[Path | None, default("data/<dataset>")] = None
    protocol: Protocol = "honest"
    retrieval_cut: Literal["9k-1ka", "7k-1ka", "full"] = "9k-1ka"
    bert_vocab: Annotated[
        Path | None, default("the local cache of Hugging Face; without one, a tokenizer is trained")
    ] = None
    num_devices: int = 100
    alpha: float = 0.5
    seed: int = 0
    store_short_side: int = 268
    stored_frames: int = 3
    store_quality: int = 90

    def __post_init__(self) -> None:
        if self.dataset not in RELEASES:
            raise unknown_name("data set", self.dataset, RELEASES)
        check_bounds(self, {"num_devices": (1, 1_000_000), **STORE_BOUNDS})


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribeConfig:
    """Print the sizes of a data set, its skipped videos and its question-only baseline.

    Attributes:
        data: folder of the data set.
    """

    data: Path = Path("data/demo")
