"""Decoder of video files into a few evenly spaced frames.

Frames are decoded in sequence, without seeking: seeking returns wrong frames on open GOPs, variable rates
and B-frames in AVI, and short clips cost little. Decoders use one thread each, because callers run many in
parallel.
"""

from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.container.input import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Int64, UInt8

from hyperfleet.errors import VideoDecodeError

MAX_PIXELS = 64_000_000
MAX_DEMUXED_PACKETS = 1_000_000


def read_clip(
    path: Path, num_frames: int, *, short_side: int
) -> tuple[UInt8[np.ndarray, "frame height width 3"], int]:
    """Decode `num_frames` RGB frames spread evenly over a clip; return them and the clip's frame count.

    Frame i is the middle of the i-th of `num_frames` equal parts, scaled to `short_side` pixels. A clip with
    fewer frames repeats some. Rotation noted in the file is applied; transparent parts become black.

    Raises:
        VideoDecodeError: the file is missing, has no video or broken data, or its picture is too large.
    """
    if not path.is_file():
        raise _error(path, "no such file", 0)
    promised = _count_frames(path)
    frames, num_decoded = _decode(path, spread(promised, num_frames), short_side)
    if not frames:
        # Headers of edited and truncated files promise too many frames: choose again among those found.
        promised = num_decoded
        frames, _ = _decode(path, spread(promised, num_frames), short_side)
    return np.stack(frames), promised


def spread(num_available: int, num_frames: int) -> Int64[np.ndarray, " frame"]:
    """Return the indices of `num_frames` of `num_available` frames, each the middle of an equal part."""
    return ((2 * np.arange(num_frames) + 1) * num_available) // (2 * num_frames)


def _error(path: Path, reason: str, num_decoded: int) -> VideoDecodeError:
    return VideoDecodeError(
        f"{path}: {reason} ({num_decoded} frames decoded); expected a readable video file; "
        "fetch or render it again, or continue without it: building a clip store skips and counts it"
    )


def _reason(error: Exception) -> str:
    # FFmpeg's message without error number and function name.
    return str(getattr(error, "strerror", None) or error)


def _open(path: Path) -> InputContainer:
    try:
        # The prefix makes FFmpeg treat names such as -clip.mp4 or a:b.mp4 as files.
        return av.open(f"file:{path}", metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError) as error:
        raise _error(path, f"not a video file: {_reason(error)}", 0) from error


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise _error(path, "holds no video stream", 0)
    # None if FFmpeg has no decoder, despite the type hints.
    if getattr(stream, "codec_context", None) is None:
        raise _error(path, "is of a codec this FFmpeg cannot decode", 0)
    if stream.width * stream.height > MAX_PIXELS:
        raise _error(path, f"{stream.width}x{stream.height} pixels exceed the limit of {MAX_PIXELS}", 0)
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def _count_frames(path: Path) -> int:
    with _open(path) as container:
        stream = _video_stream(path, container)
        if stream.frames > 0:
            return int(stream.frames)
        try:
            num_packets = 0
            for packet in container.demux(stream):
                num_packets += packet.size > 0
                if num_packets > MAX_DEMUXED_PACKETS:
                    raise _error(path, f"more than {MAX_DEMUXED_PACKETS} frames", 0)
        except av.error.FFmpegError as error:
            raise _error(path, f"broken while counting frames: {_reason(error)}", 0) from error
    if num_packets == 0:
        raise _error(path, "the video stream is empty", 0)
    return num_packets


def _decode(
    path: Path, wanted: Int64[np.ndarray, " frame"], short_side: int
) -> tuple[list[UInt8[np.ndarray, "height width 3"]], int]:
    # Returns the pictures and the number of decoded frames; no pictures if the clip ends too early.
    last = int(wanted[-1])
    kept: dict[int, UInt8[np.ndarray, "height width 3"]] = {}
    num_decoded = 0
    chosen = set(wanted.tolist())
    with _open(path) as container:
        stream = _video_stream(path, container)
        try:
            for frame in container.decode(stream):
                if num_decoded in chosen:
                    kept[num_decoded] = _to_rgb(path, frame, short_side)
                num_decoded += 1
                if num_decoded > last:
                    return [kept[index] for index in wanted.tolist()], num_decoded
        except (av.error.FFmpegError, ValueError) as error:
            raise _error(path, f"broken video data: {_reason(error)}", num_decoded) from error
    if num_decoded == 0:
        raise _error(path, "no frame could be decoded", 0)
    return [], num_decoded


def _to_rgb(path: Path, frame: VideoFrame, short_side: int) -> UInt8[np.ndarray, "height width 3"]:
    # The size in the header may be wrong.
    if frame.width * frame.height > MAX_PIXELS:
        raise _error(path, f"{frame.width}x{frame.height} pixels exceed the limit of {MAX_PIXELS}", 0)
    scale = Fraction(short_side, min(frame.width, frame.height))
    width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    transparent = any(component.is_alpha for component in frame.format.components)
    picture = frame.to_ndarray(
        width=width, height=height, format="rgba" if transparent else "rgb24", interpolation="AREA"
    )
    if transparent:
        alpha = picture[..., 3:].astype(np.uint16)
        picture = (picture[..., :3] * alpha // 255).astype(np.uint8)
    return np.ascontiguousarray(np.rot90(picture, frame.rotation // 90), np.uint8)
