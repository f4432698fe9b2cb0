"""Writer of one clip from its plan: pixels, mp4 file, questions and ground truth."""

import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from jaxtyping import UInt8

from hyperfleet.datasets.fleetqa.device import Conditions, conditions_at, draw_device
from hyperfleet.datasets.fleetqa.drawing import draw_clip
from hyperfleet.datasets.fleetqa.plan import ClipPlan
from hyperfleet.datasets.fleetqa.questions import QuestionAnswer, ask
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.datasets.fleetqa.scene import BACKGROUNDS, HEIGHT, WIDTH, Scene, draw_scene
from hyperfleet.seeding import numpy_generator


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTruth:
    """Ground truth of one rendered clip, without its pixels. Questions and answers have the owner's words."""

    plan: ClipPlan
    scene: Scene
    conditions: Conditions
    num_frames: int
    has_mark: bool
    questions: tuple[QuestionAnswer, ...]

    @property
    def category_id(self) -> int:
        """The background as a number, in place of the 20 categories of MSRVTT-QA."""
        return BACKGROUNDS.index(self.scene.background)

    @property
    def spoken(self) -> Scene:
        """The scene in the owner's words."""
        return self.conditions.words.speak(self.scene)

    def to_record(self) -> dict[str, Any]:
        """Return plain values for scenes.json."""
        return {
            "video_id": self.plan.video_id,
            "device_id": self.plan.device_id,
            "split": self.plan.split,
            "t": self.plan.t,
            "regime": self.conditions.regime,
            "num_frames": self.num_frames,
            "camera": asdict(self.conditions.style),
            "words": asdict(self.conditions.words),
            "has_mark": self.has_mark,
            **asdict(self.scene),
        }


def clip_truth(config: FleetQAConfig, plan: ClipPlan) -> ClipTruth:
    """Draw the content of a clip, depending only on the configuration and the plan."""
    device = draw_device(config, plan.device_id)
    conditions = conditions_at(device, plan.t, config.shift)
    rng = numpy_generator(config.seed, "scene", plan.video_number)
    scene = draw_scene(rng, conditions.priors, config, live=plan.split == "test")
    seconds = rng.uniform(config.min_seconds, config.max_seconds)
    asking = numpy_generator(config.seed, "questions", plan.video_number)
    mark = numpy_generator(config.seed, "mark", plan.video_number)
    spoken = conditions.words.speak(scene)
    return ClipTruth(
        plan=plan,
        scene=scene,
        conditions=conditions,
        num_frames=round(seconds * conditions.style.fps),
        has_mark=bool(mark.random() < config.cue_share),
        questions=tuple(ask(spoken, config.questions_per_clip, asking)),
    )


def clip_frames(config: FleetQAConfig, truth: ClipTruth) -> UInt8[np.ndarray, "frame 240 320 3"]:
    """Draw the pixels of a clip, before encoding."""
    return draw_clip(
        truth.scene,
        truth.conditions.style,
        num_frames=truth.num_frames,
        cue=truth.has_mark,
        rng=numpy_generator(config.seed, "pixels", truth.plan.video_number),
    )


def render_clip(config: FleetQAConfig, videos_dir: Path, plan: ClipPlan) -> ClipTruth:
    """Write `videos_dir`/videoN.mp4 unless it exists, and return its ground truth.

    The file is written atomically, so an interrupted run can be resumed.
    """
    truth = clip_truth(config, plan)
    path = videos_dir / f"{plan.video_id}.mp4"
    if not path.exists():
        partial = path.with_suffix(".partial")
        style = truth.conditions.style
        write_video(partial, clip_frames(config, truth), style.fps, style.crf)
        os.replace(partial, path)
    return truth


def write_video(path: Path, frames: UInt8[np.ndarray, "frame 240 320 3"], fps: int, crf: int) -> None:
    """Encode frames as mp4: H.264, or MPEG-4 if this build of FFmpeg has no x264."""
    codec = video_codec()
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        # Many clips are drawn at once, one per core.
        stream.codec_context.thread_count = 1
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": str(crf)}
        else:
            # MPEG-4 has no constant quality; six steps of crf halve the bit rate.
            stream.bit_rate = round(2_000_000 * 2 ** ((20 - crf) / 6))
        for frame in frames:
            planes = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


@cache
def video_codec() -> str:
    """Return the name of the encoder: libx264 if available, otherwise mpeg4."""
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"
