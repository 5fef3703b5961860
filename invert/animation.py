"""How do pictures become a video? One frame at a time into an MP4, a GIF or a folder of PNGs, whole or not at all.

MP4s hold H.264 in 4:2:0, which every browser plays, in the colours of BT.709. Only the frame at hand is in memory.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import UInt8

from invert.errors import OutputError
from invert.photo import whole_file, write_image

if TYPE_CHECKING:
    from av.container import OutputContainer

Frame: TypeAlias = UInt8[np.ndarray, "height width 3"]
AnyFrame: TypeAlias = UInt8[np.ndarray, "_ _ 3"]
"""A frame that may differ in size from the one before: whether it does is what is checked."""
Rate: TypeAlias = float | int | Fraction
"""Frames a second; a fraction keeps the rate of another video exactly."""

VIDEO_SUFFIXES = (".mp4", ".gif")
MAX_GIF_FPS = 50
"""GIF counts in hundredths of a second, and browsers slow frames of less than two of them down."""
PALETTE_PX = 128
"""Side of what a GIF's colours are chosen from: a third of the time of the whole frame, and as close to it."""
QUALITY = "18"
"""x264's constant rate factor: no difference to the eye."""


def write_video(path: Path | str, frames: Iterable[Frame], fps: Rate = 25) -> int:
    """Write frames as a video, in the format of the suffix, or, without one, as ``000000.png``, ... into a new folder.

    Frames are taken one by one, so that a generator keeps memory flat. On any failure, Ctrl-C included, what was there
    before stays, and no part is left behind.

    Args:
        path: ``.mp4``, ``.gif``, or a folder that is empty or not there yet.
        frames: all of one size. An MP4 of odd sides repeats the last row or column; a GIF loops, with 256 colours a frame.
        fps: frames a second; above 0, at most 1000, of a GIF at most 50. Of no use to PNGs.

    Returns:
        How many frames were written.

    Raises:
        OutputError: another suffix, no frames, frames of different sizes, or the place cannot be written.
        ValueError: ``fps`` is out of range.
    """
    path = check_video(path, fps)
    if not path.suffix:
        with _whole_folder(path) as part:
            return _write_stills(part, frames)
    with whole_file(path) as part:
        return _write_gif(part, frames, fps) if path.suffix.lower() == ".gif" else _write_mp4(part, frames, fps)


def check_video(path: Path | str, fps: Rate = 25) -> Path:
    """Check what ``write_video`` will be given, before the work.

    Raises:
        OutputError: neither ``.mp4`` nor ``.gif`` nor a folder's name, or a folder that holds something.
        ValueError: ``fps`` is out of range.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    highest = MAX_GIF_FPS if suffix == ".gif" else 1000
    if not 0 < fps <= highest:
        raise ValueError(f"fps={fps}: expected frames a second above 0, at most {highest}{' in a GIF' * (suffix == '.gif')}")
    if suffix and suffix not in VIDEO_SUFFIXES:
        raise OutputError(f"{path}: cannot write a video of this kind; use .mp4, .gif, or a folder's name for PNGs")
    if not suffix and path.exists() and (not path.is_dir() or next(path.iterdir(), None)):
        raise OutputError(f"{path}: expected a new or empty folder for the frames; choose another, or a .mp4 or .gif")
    return path


@contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """Fill a folder whole or not at all: give one beside it, move that into place only if the block succeeds."""
    part = path.parent / f".{path.name[:40]}-{secrets.token_hex(6)}"
    try:
        part.mkdir(parents=True)
        yield part
        if path.is_dir():
            path.rmdir()
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_stills(folder: Path, frames: Iterable[Frame]) -> int:
    number = 0
    for number, frame in enumerate(_of_one_size(frames, folder), 1):
        write_image(folder / f"{number - 1:06d}.png", frame)
    return number


def _write_mp4(path: Path, frames: Iterable[Frame], fps: Rate) -> int:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    def prepare(frame: Frame, container: OutputContainer) -> tuple[Any, Callable[[Frame], Iterator[Any]]]:
        height, width = (side + side % 2 for side in frame.shape[:2])
        stream = container.add_stream("libx264", rate=_rate(fps), options={"crf": QUALITY, "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # Without these marks players guess, by the height: BT.601 below 720 px, BT.709 above.
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU709, ColorRange.MPEG
        stream.codec_context.color_primaries = stream.codec_context.color_trc = 1

        def convert(frame: Frame) -> Iterator[Any]:
            grown = np.pad(frame, [(0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)], mode="edge")
            picture = av.VideoFrame.from_ndarray(grown, format="rgb24")
            yield picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)

        return stream, convert

    return _encode(path, frames, prepare, options={"movflags": "+faststart"})  # Plays before all of it has come.


def _write_gif(path: Path, frames: Iterable[Frame], fps: Rate) -> int:
    import av
    from av.filter import Graph

    def prepare(frame: Frame, container: OutputContainer) -> tuple[Any, Callable[[Frame], Iterator[Any]]]:
        height, width = frame.shape[:2]
        stream = container.add_stream("gif", rate=_rate(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"

        def convert(frame: Frame) -> Iterator[Any]:
            # A palette of its own for every frame; one for all would have to see all of them first.
            graph = Graph()
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts = 0
            source = graph.add_buffer(width=width, height=height, format=picture.format, time_base=1 / _rate(fps))
            split, colours = graph.add("split"), graph.add("palettegen", "stats_mode=single")
            fewer = graph.add("scale", f"{min(width, PALETTE_PX)}:{min(height, PALETTE_PX)}:flags=neighbor")
            use, sink = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4"), graph.add("buffersink")
            source.link_to(split)
            split.link_to(use, 0, 0)
            split.link_to(fewer, 1, 0)
            fewer.link_to(colours)
            colours.link_to(use, 0, 1)
            use.link_to(sink)
            graph.configure()
            graph.push(picture)
            graph.push(None)
            yield graph.pull()

        return stream, convert

    return _encode(path, frames, prepare, options={"loop": "0"})


def _rate(fps: Rate) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


def _encode(
    path: Path,
    frames: Iterable[Frame],
    prepare: Callable[[Frame, OutputContainer], tuple[Any, Callable[[Frame], Iterator[Any]]]],
    options: dict[str, str],
) -> int:
    """Encode frame by frame; ``prepare`` makes the stream once the first frame tells the size."""
    import av

    number = 0
    with av.open(str(path), "w", options=options) as container:
        for number, frame in enumerate(_of_one_size(frames, path), 1):
            if number == 1:
                stream, convert = prepare(frame, container)
            for picture in convert(frame):
                picture.pts, picture.time_base = number - 1, 1 / stream.codec_context.framerate
                container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return number


def _of_one_size(frames: Iterable[AnyFrame], path: Path) -> Iterator[AnyFrame]:
    """Pass frames on, at least one, all of the first one's size."""
    first: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        first = first or frame.shape
        if frame.shape != first:
            raise OutputError(f"{path.name}: frame {number} has the shape {frame.shape}, the first one {first}")
        yield frame
    if first is None:
        raise OutputError(f"{path.name}: there are no frames to write")
