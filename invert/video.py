"""How is a video edited? Frame by frame like a photo, with crops and codes that move as smoothly as the face does.

Two passes over the file, so that no more than a few frames are ever in memory: the first follows the face, the second cuts
it out along the smoothed track, inverts, edits, draws and pastes. Crops are smoothed, in size and angle more than in place,
as Tzaban et al. 2022 do ("Stitch it in Time", arXiv:2201.08361), but without holding back motion; so are an encoder's codes.
What polishing adds to the first frame's code is carried on: every later frame takes a few steps only.
"""

from __future__ import annotations

import heapq
import json
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from editing.composition import apply_edits
from editing.directions import Edit
from generators.latent import Latent, as_stylemaps
from invert.animation import check_video, write_video
from invert.edits import as_edit, draw_edited
from invert.errors import NoFaceFound, OutputError, VideoError
from invert.faces import MIN_FACE_PX, align_corners, crop_corners, paste_back
from invert.inversion import resize
from invert.inverters import EncoderInverter
from invert.landmarks import Face, find_faces, find_predictor, with_68_landmarks
from invert.photo import MAX_PHOTO_PIXELS, NOTE_KEY, whole_file
from invert.pipeline import followed
from invert.projector import LEARNING_RATES, LOSS_RESOLUTION, Projector
from invert.recipe import Recipe
from invert.tools import Tools

log = logging.getLogger(__name__)

Frame: TypeAlias = UInt8[np.ndarray, "height width 3"]
Corners: TypeAlias = Float64[np.ndarray, "4 2"]

NEAR_RATE = 0.25
"""Share of a vector's learning rate for frames that begin with the code of the one before: it is close already."""
CUT_LEVELS = 25.0
"""Mean difference of small versions of two frames, in levels of 255, from which on they are two shots."""
JUMP = 0.5
"""Way of the crop's centre from one frame to the next, as a share of its side, from which on it is another face."""
LOOK_AROUND = 1.5
"""How far around the last face the next one is looked for first, in sides of its box."""
LOOK_PX = 320
"""Side of the picture in which it is looked for: half a million pixels fewer than a video has, and the face large in it."""


@dataclass(frozen=True)
class Smoothing:
    """How long is smoothed over, in frames (see ``_kernel``); 0 takes every frame by itself."""

    centre: float | int = 1.0
    """Of the crop's place."""
    axes: float | int = 3.0
    """Of the crop's size and angle."""
    code: float | int = 2.0
    """Of an encoder's codes."""

    def __post_init__(self) -> None:
        for name, value in (("centre", self.centre), ("axes", self.axes), ("code", self.code)):
            if not 0 <= value <= 1000:
                raise ValueError(f"smoothing of {name}={value}: expected frames from 0 to 1000")


NO_SMOOTHING = Smoothing(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Clip:
    """What a video's file says about itself."""

    path: Path
    size: tuple[int, int]
    """Height and width as they are shown."""
    fps: Fraction
    has_audio: bool


@dataclass(frozen=True)
class Track:
    """Where a face is in each frame."""

    corners: list[Corners | None]
    """Of its crop, as ``crop_corners`` places them; None where there is no face."""
    shots: list[int]
    """Numbers that change where the picture is cut, or the face is lost or another one."""

    def smoothed(self, smoothing: Smoothing) -> Track:
        """Smooth the crops within each shot."""
        corners = list(self.corners)
        for shot in set(self.shots):
            at = [i for i, number in enumerate(self.shots) if number == shot and corners[i] is not None]
            if at:
                places = np.stack([c for i in at if (c := corners[i]) is not None])
                for i, place in zip(at, _smooth_squares(places, smoothing), strict=True):
                    corners[i] = place
        return Track(corners, self.shots)


class _Item(NamedTuple):
    """A frame on its way."""

    frame: Frame
    shot: int
    crop_from_photo: Float64[np.ndarray, "3 3"] | None
    image: Float[Tensor, "1 3 256 256"] | None
    """The face at the size that encoders and the projector look at."""
    code: Latent | None


def open_clip(path: Path | str) -> Clip:
    """Look at a video.

    Raises:
        VideoError: it is missing, no video, damaged, without frames, or too large.
    """
    path = Path(path)
    first = next(read_frames(path), None)
    if first is None:
        raise VideoError(f"{path}: holds no frame that can be read")
    with _opened(path) as container:
        rate = container.streams.video[0].average_rate
        if not rate or not 0 < rate <= 1000:
            log.warning("%s: says nothing of its frames a second; taken for 25", path)
            rate = Fraction(25)
        return Clip(path, (first.shape[0], first.shape[1]), Fraction(rate), bool(container.streams.audio))


def read_frames(path: Path | str) -> Iterator[Frame]:
    """Read a video's frames one by one, upright; frames that are damaged are left out, with a warning.

    Raises:
        VideoError: it is missing, no video, or too large.
    """
    import av

    damaged = 0
    with _opened(Path(path)) as container:
        packets = container.demux(container.streams.video[0])
        while True:
            try:
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            except (av.FFmpegError, ValueError):
                damaged += 1
                if packet is None or damaged > 1000:
                    break
                continue
            if packet is None:
                break
            for frame in frames:
                turns = round(frame.rotation / 90) % 4
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
    if damaged:
        log.warning("%s: %d parts of the video are damaged and were left out", path, damaged)


def _opened(path: Path) -> Any:
    import av

    if not path.is_file():
        raise VideoError(f"{path}: {'is a folder; expected a video' if path.is_dir() else 'no such file'}")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"{path}: not a video that can be read: {error}") from error
    if not container.streams.video:
        container.close()
        raise VideoError(f"{path}: holds no pictures{', only sound' if container.streams.audio else ''}")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    if stream.width * stream.height > MAX_PHOTO_PIXELS:
        container.close()
        raise VideoError(f"{path}: frames of {stream.width} x {stream.height} px are too large")
    return container


def follow(
    frames: Iterable[Frame], which: str | int = "largest", predictor: Path | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> Track:  # fmt: skip
    """Find one face in every frame: in the first one the largest or the given one, then the one nearest to where it was.

    Args:
        frames: are not kept.
        which: ``largest``, or a number from 0 at the largest.
        predictor: see ``detect``.
        on_frame: called after every frame.
    """
    corners: list[Corners | None] = []
    shots: list[int] = []
    model = find_predictor(predictor)
    last: Face | None = None
    small_before: np.ndarray | None = None
    for frame in frames:
        small = cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
        is_cut = small_before is not None and float(np.abs(small - small_before).mean()) > CUT_LEVELS
        small_before = small
        face = None if last is None or is_cut else _nearby(frame, last)
        if face is None:
            face = _anywhere(frame, None if is_cut else last, which)
        last = face or last
        if face is not None and model is not None:
            face = with_68_landmarks(frame, face, model)
        corners.append(None if face is None else crop_corners(face))
        goes_on = len(corners) > 1 and not is_cut and _is_near(corners[-2], corners[-1])
        shots.append(0 if not shots else shots[-1] + (not goes_on))
        on_frame()
    return Track(corners, shots)


def _nearby(frame: Frame, last: Face) -> Face | None:
    """Look for the face where it was: a tenth of the time of looking everywhere."""
    left, top, right, bottom = last.box
    reach = LOOK_AROUND * last.size_px
    height, width = frame.shape[:2]
    x0, y0 = (max(0, int(low - reach)) for low in (left, top))
    x1, y1 = min(width, int(right + reach) + 1), min(height, int(bottom + reach) + 1)
    window = frame[y0:y1, x0:x1]
    if not window.size:  # The frames' size has changed.
        return None
    shrink = max(1.0, max(window.shape[:2]) / LOOK_PX)
    size = (max(1, round(window.shape[1] / shrink)), max(1, round(window.shape[0] / shrink)))
    small = window if shrink == 1 else cv2.resize(window, size, interpolation=cv2.INTER_AREA)
    scale = np.array([window.shape[1] / size[0], window.shape[0] / size[1]])
    return _nearest([_moved(face, scale, np.array([x0, y0])) for face in find_faces(small)], last)


def _anywhere(frame: Frame, last: Face | None, which: str | int) -> Face | None:
    found = [face for face in find_faces(frame) if face.size_px >= MIN_FACE_PX]
    if last is not None:
        return _nearest(found, last) or (found[0] if found and which == "largest" else None)
    number = which if isinstance(which, int) else 0
    return found[number] if number < len(found) else None


def _moved(face: Face, scale: Float64[np.ndarray, " 2"], offset: np.ndarray) -> Face:
    """Bring a face from a shrunken window back into its frame; a pixel's centre has whole coordinates."""

    def back(points: np.ndarray) -> np.ndarray:
        return (points + 0.5) * scale - 0.5 + offset

    left, top, right, bottom = back(np.reshape(face.box, (2, 2))).ravel()
    return Face((float(left), float(top), float(right), float(bottom)), face.score, back(face.landmarks))


def _nearest(found: Sequence[Face], last: Face) -> Face | None:
    """Give the face nearest to where the last one was, if it can be the same."""

    def centre(face: Face) -> Float64[np.ndarray, " 2"]:
        return np.reshape(face.box, (2, 2)).mean(0)

    def way(face: Face) -> float:
        return float(np.hypot(*(centre(face) - centre(last))))

    near = min((face for face in found if face.size_px >= MIN_FACE_PX), key=way, default=None)
    return near if near is not None and way(near) <= last.size_px else None


def _is_near(before: Corners | None, now: Corners | None) -> bool:
    if before is None or now is None:
        return before is None and now is None
    side_before, side = (float(np.hypot(*(c[3] - c[0]))) for c in (before, now))
    way = float(np.hypot(*(now.mean(0) - before.mean(0))))
    return way <= JUMP * side_before and 2 / 3 <= side / side_before <= 3 / 2


def _smooth_squares(places: Float64[np.ndarray, "frames 4 2"], smoothing: Smoothing) -> Float64[np.ndarray, "frames 4 2"]:
    """Smooth the centres and the sides of squares, each over its own time; squares stay squares."""
    centres, across = places.mean(1), (places[:, 3] - places[:, 0]) / 2
    centres, across = _smooth(centres, smoothing.centre), _smooth(across, smoothing.axes)
    down = np.stack([-across[:, 1], across[:, 0]], 1)
    return np.stack([centres - across - down, centres - across + down, centres + across + down, centres + across - down], 1)


def _smooth(values: Float64[np.ndarray, "frames 2"], sigma: float | int) -> Float64[np.ndarray, "frames 2"]:
    weights = _kernel(sigma)
    reach = len(weights) // 2
    # The ends go on straight, turned around their last point: a moving face is not held back there.
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd") if len(values) > 1 else values
    if len(values) == 1:
        return values
    return np.stack([np.convolve(column, weights, mode="valid") for column in padded.T], 1)


def _kernel(sigma: float | int) -> Float64[np.ndarray, " taps"]:
    """Give the weights of neighbours up to three standard deviations away: a Gaussian that leaves parabolas as they are.

    A plain Gaussian holds back what turns around: a zoom in and out within two seconds lost a quarter of its way, and the
    drawn face swam in the picture.
    """
    if sigma < 0.1:  # The neighbours' weights would round to nothing.
        return np.ones(1)
    reach = math.ceil(3 * sigma)
    at = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (at / sigma) ** 2)
    zeroth, second, fourth = (float((weights * at**power).sum()) for power in (0, 2, 4))
    return np.asarray(weights * (fourth - second * at**2) / (zeroth * fourth - second**2))


def edit_video(
    source: Path | str,
    output: Path | str,
    tools: Tools,
    recipe: Recipe,
    smoothing: Smoothing = Smoothing(),
    later_steps: int | None = None,
    on_frame: Callable[[str, int], None] = lambda step, number: None,
) -> dict[str, Any]:
    """Edit one face of a video, and write the video whole or not at all.

    Frames without the face stay as they are. Sound is copied where the output is an MP4.

    Args:
        source: a video.
        output: ``.mp4``, ``.gif``, or a new folder for PNGs; see ``write_video``.
        tools: loaded networks; ``load_tools`` gives them, and the recipe that goes with them.
        recipe: what to do; its ``face`` is ``largest`` or a number.
        smoothing: of crops and codes.
        later_steps: projector steps of every frame after a shot's first, which takes those of the method; None: a tenth.
        on_frame: told the pass (``follow`` or ``edit``) and how many frames it has done.

    Returns:
        A report: frames, frames with the face, shots, size, frames a second, sound, recipe.

    Raises:
        VideoError: the video cannot be read.
        NoFaceFound: no frame shows a face.
        ImageError: an edit, or an inversion, cannot be drawn.
        OutputError: the video cannot be written.
    """
    if recipe.face == "all" or recipe.is_aligned:
        raise VideoError("a video is edited one face at a time: give --face largest or a number, then edit the result again")
    clip, recipe = open_clip(source), followed(recipe, tools.generator)
    try:
        check_video(output, clip.fps)
    except ValueError as error:
        raise OutputError(f"{output}: {error}; the video's own are kept") from error
    done = iter(range(1, 2**62))
    raw = follow(read_frames(clip.path), recipe.face, recipe.predictor, lambda: on_frame("follow", next(done)))
    with_face = sum(corners is not None for corners in raw.corners)
    if not with_face:
        raise NoFaceFound(f"{clip.path}: no face found in any of {len(raw.corners)} frames")
    track = raw.smoothed(smoothing)
    items = _encoded(read_frames(clip.path), track, tools)
    items = _refined(_smooth_codes(items, smoothing.code), tools, later_steps)
    drawn = _counted(_drawn(items, tools, recipe), on_frame)
    sound = _write(Path(output), drawn, clip, recipe)
    return {
        "source": str(clip.path),
        "output": str(output),
        "frames": len(track.corners),
        "frames_with_face": with_face,
        "shots": len(set(track.shots)),
        "size": list(clip.size),
        "fps": float(clip.fps),
        "sound": sound,
        "recipe": recipe.as_dict(),
    }


def _counted(frames: Iterator[Frame], on_frame: Callable[[str, int], None]) -> Iterator[Frame]:
    for number, frame in enumerate(frames, 1):
        yield frame
        on_frame("edit", number)


def _encoded(frames: Iterator[Frame], track: Track, tools: Tools) -> Iterator[_Item]:
    """Cut the faces out, and encode them where the method has an encoder."""
    device, resolution = tools.generator.w_avg.device, tools.generator.img_resolution
    for frame, corners, shot in zip(frames, track.corners, track.shots, strict=False):
        if corners is None:
            yield _Item(frame, shot, None, None, None)
            continue
        face = align_corners(frame, corners, resolution)
        image = resize(face.image[None].to(device), LOSS_RESOLUTION)
        code = tools.inverter.encode(image) if isinstance(tools.inverter, EncoderInverter) else None
        yield _Item(frame, shot, face.crop_from_photo, image, code)


def _smooth_codes(items: Iterable[_Item], sigma: float | int) -> Iterator[_Item]:
    """Replace every code by the weighted mean of its neighbours in the shot; holds only those."""
    weights = _kernel(sigma)
    reach = len(weights) // 2
    window: deque[_Item | None] = deque([None] * (2 * reach + 1), 2 * reach + 1)

    def middle() -> Iterator[_Item]:
        item = window[reach]
        if item is None:
            return
        near = [
            (float(weight), other.code)
            for weight, other in zip(weights, window, strict=True)
            if other is not None and other.code is not None and other.shot == item.shot
        ]
        yield item if item.code is None else item._replace(code=_mean(near))

    for item in items:
        window.append(item)
        yield from middle()
    for _ in range(reach):
        window.append(None)
        yield from middle()


def _mean(codes: Sequence[tuple[float, Latent]]) -> Latent:
    total = sum(weight for weight, _ in codes)
    return _combined([(weight / total, code) for weight, code in codes])


def _combined(codes: Sequence[tuple[float, Latent]]) -> Latent:
    """Add latents of one kind with weights."""
    layers = zip(*(as_stylemaps(code) for _, code in codes), strict=True)
    maps = [sum((w * style for (w, _), style in zip(codes, layer, strict=True)), torch.zeros(())) for layer in layers]
    if isinstance(codes[0][1], Tensor):
        return torch.stack([style[:, :, 0, 0] for style in maps], 1)
    return tuple(maps)


def _refined(items: Iterable[_Item], tools: Tools, later_steps: int | None) -> Iterator[_Item]:
    """Polish each code by the projector, which starts from the last frame's."""
    projector = tools.inverter.refiner if isinstance(tools.inverter, EncoderInverter) else tools.inverter
    if not isinstance(projector, Projector) or not projector.steps:
        yield from items
        return
    steps = max(1, projector.steps // 10) if later_steps is None else later_steps
    share = 1.0 if projector.space == "stylemap" else NEAR_RATE
    later = replace(projector, steps=steps, learning_rate=share * LEARNING_RATES[projector.space])
    before: _Item | None = None
    polished: Latent | None = None
    for item in items:
        if item.image is not None:
            goes_on = before is not None and before.shot == item.shot and polished is not None
            start = item.code if not goes_on or before is None or polished is None else _carried(before, item, polished)
            inversion = (later if goes_on else projector)(item.image, start=start)
            if inversion.interrupted:
                raise KeyboardInterrupt
            before, polished = item, inversion.latent
            yield item._replace(code=polished)
        else:
            yield item


def _carried(before: _Item, item: _Item, polished: Latent) -> Latent:
    """Take over what polishing added to the last frame's code; the encoder says how the face has moved since."""
    if before.code is None or item.code is None:
        return polished
    return _combined([(1.0, polished), (-1.0, before.code), (1.0, item.code)])


def _drawn(items: Iterable[_Item], tools: Tools, recipe: Recipe) -> Iterator[Frame]:
    specs = recipe.edits_of(recipe.face if isinstance(recipe.face, int) else 0)
    edits: list[tuple[Edit, float]] = []
    shot = -1
    for item in items:
        if item.code is None or item.crop_from_photo is None:
            yield item.frame
            continue
        if item.shot != shot:
            # Masks are found once a shot: in the aligned crop a mouth stays where it is, and steady masks do not flicker.
            image = _draw(tools, item.code) if any(spec.mask for spec in specs) else None
            found = (as_edit(spec, tools.directions[spec.name], tools.generator, image, recipe.predictor) for spec in specs)
            edits, shot = [(edit, spec.strength) for edit, spec in zip(found, specs, strict=True)], item.shot
        edited = _draw(tools, apply_edits(item.code, edits), bool(edits))
        before = _draw(tools, item.code) if recipe.paste == "change" else None
        yield paste_back(item.frame, edited, item.crop_from_photo, inverted=before, match_colour=True)


@torch.no_grad()
def _draw(tools: Tools, code: Latent, is_edited: bool = False) -> Float[Tensor, "3 height width"]:
    # Not around the generator above: between two of its frames the projector needs gradients.
    return (draw_edited(code, tools.generator) if is_edited else tools.generator.synthesis(code))[0].cpu()


def _write(output: Path, frames: Iterator[Frame], clip: Clip, recipe: Recipe) -> str:
    """Write the video, with sound and recipe where it is an MP4; say what became of the sound."""
    if output.suffix.lower() != ".mp4":
        write_video(output, frames, clip.fps)
        return "left out: only an .mp4 has sound" if clip.has_audio else "none"
    with whole_file(output) as part:
        silent = part.with_name(f"{part.stem}-silent.mp4")
        try:
            write_video(silent, frames, clip.fps)
            return _join(silent, clip, part, recipe)
        finally:
            silent.unlink(missing_ok=True)


def _join(silent: Path, clip: Clip, output: Path, recipe: Recipe) -> str:
    """Copy pictures, and sound if the format takes it, into one video; nothing is encoded again."""
    import av

    if clip.has_audio:
        try:
            _mux(silent, clip.path, output, recipe)
            return "copied"
        except (av.FFmpegError, ValueError) as error:
            reason = str(error)
            log.warning("%s: its sound cannot be copied into an MP4 and was left out: %s", clip.path, reason)
    _mux(silent, None, output, recipe)
    return f"left out: {reason}" if clip.has_audio else "none"


def _mux(silent: Path, sound: Path | None, output: Path, recipe: Recipe) -> None:
    import av

    with ExitStack() as stack:
        video = stack.enter_context(av.open(str(output), "w", options={"movflags": "+faststart"}))
        video.metadata["comment"] = f"{NOTE_KEY} {json.dumps(recipe.as_dict())}"
        sources = [stack.enter_context(av.open(str(path))) for path in (silent, sound) if path is not None]
        streams = [source.streams.video[0] if i == 0 else source.streams.audio[0] for i, source in enumerate(sources)]
        targets = [video.add_stream_from_template(stream) for stream in streams]

        def packets(number: int) -> Iterator[tuple[Any, int, Any]]:
            for packet in sources[number].demux(streams[number]):
                if packet.dts is not None:
                    yield packet.dts * packet.time_base, number, packet

        # Side by side in time: players of a video that is still coming need both.
        for _, number, packet in heapq.merge(*map(packets, range(len(sources))), key=lambda entry: entry[:2]):
            packet.stream = targets[number]
            video.mux(packet)
