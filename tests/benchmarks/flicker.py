"""Measure how much an edited video flickers: ``python tests/benchmarks/flicker.py``. Prints a table; nothing is asserted.

A photo is moved, turned and enlarged along a known path, with a camera's noise. The edited frames are brought back along
that path, where they should all be the same: the flicker is the mean absolute difference of one frame to the next inside the
face's crop, in levels of 255. The clip's own row is what noise and resampling alone give. Needs the default generator.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from editing.composition import EditSpec
from invert.animation import write_video
from invert.edits import load_directions
from invert.faces import crop_corners, detect
from invert.inverters import load_inverter
from invert.perceptual import load_perceptual
from invert.performance import keep_freed_memory
from invert.photo import demo_photo, read_photo
from invert.recipe import Recipe
from invert.tools import Tools
from invert.video import NO_SMOOTHING, Smoothing, edit_video, read_frames
from pretrained.loading import load_generator

FRAMES, NOISE, EDIT = 24, 4.0, EditSpec("smile", 2.0)


def main() -> None:
    keep_freed_memory()
    generator, perceptual = load_generator(), load_perceptual()
    directions = load_directions([EDIT], generator)
    photo = read_photo(demo_photo())
    corners = crop_corners(detect(photo)[0])
    encoder = Tools(generator, load_inverter("stylemap", generator), perceptual, directions)
    refined = replace(encoder, inverter=load_inverter("stylemap", generator, refine=30, perceptual=perceptual))
    sys.stdout.write("| frames | flicker | seconds a frame |\n| --- | --- | --- |\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip"
        write_video(clip.with_suffix(".mp4"), moved(photo), 12)
        report("as filmed", read_frames(clip.with_suffix(".mp4")), corners, 0.0)
        for paste in ("change", "face"):
            recipe = Recipe(edits=(EDIT,), paste=paste)
            for label, tools, smoothing in (
                ("each by itself", encoder, NO_SMOOTHING),
                ("crops smoothed", encoder, Smoothing(code=0)),
                ("crops and codes smoothed", encoder, Smoothing()),
                *([("and refined by 30, then 3 steps", refined, Smoothing())] if "--refine" in sys.argv else []),
            ):
                began = time.perf_counter()
                output = folder / f"{paste} {label}"
                edit_video(clip.with_suffix(".mp4"), output, tools, recipe, smoothing)
                seconds = (time.perf_counter() - began) / FRAMES
                frames = (read_photo(path) for path in sorted(output.iterdir()))
                report(f"{EDIT} (--paste {paste}), {label}", frames, corners, seconds)


def path_of(number: int) -> np.ndarray:
    """Give the map from the photo to a frame."""
    turn = 2 * np.pi * number / FRAMES
    matrix = cv2.getRotationMatrix2D((224, 130), 4 * np.sin(turn + 1), 1.25 + 0.15 * np.sin(turn))
    matrix[:, 2] += (32 + 30 * np.cos(turn), 70 + 15 * np.sin(2 * turn))
    return matrix


def moved(photo: np.ndarray) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    for number in range(FRAMES):
        frame = cv2.warpAffine(photo, path_of(number), (512, 512), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        yield (frame + random.normal(0, NOISE, frame.shape)).round().clip(0, 255).astype(np.uint8)


def report(label: str, frames: Iterator[np.ndarray], corners: np.ndarray, seconds: float) -> None:
    side = float(np.hypot(*(corners[3] - corners[0])))
    low, high = (corners.mean(0) - 0.3 * side).astype(int), (corners.mean(0) + 0.3 * side).astype(int)
    still = [
        cv2.warpAffine(frame, path_of(number), (512, 512), flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)[
            low[1] : high[1], low[0] : high[0]
        ].astype(np.float32)
        for number, frame in enumerate(frames)
    ]
    flicker = float(np.mean([np.abs(b - a).mean() for a, b in pairwise(still)]))
    sys.stdout.write(f"| {label} | {flicker:.2f} | {seconds:.2f} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
