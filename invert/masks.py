"""Where is the mouth, and what did a user paint? Masks from pictures, and from the landmarks of a face.

Parts come from dlib's 68 landmarks; without its model, five landmarks give eyes, nose and mouth as ellipses, which is about
right for an upright face. Hair and background are found by colour, from where they usually are around those landmarks.
Left and right are the picture's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from PIL import Image
from torch import Tensor

from editing.errors import EditError
from editing.masks import Number, check_mask, linear_gradient, radial_gradient, rectangle, resize_mask
from generators.errors import UnknownName
from invert.errors import NoFaceFound, PhotoError
from invert.landmarks import Face, find_faces, find_predictor, with_68_landmarks
from invert.photo import decode_image, read_bytes, to_uint8, upright

log = logging.getLogger(__name__)

Pixels = UInt8[np.ndarray, "height width 3"]
Region = Bool[np.ndarray, "height width"]
Point = Float64[np.ndarray, " 2"]
Mask = Float[Tensor, "1 1 _ _"]

SMALLEST_PART = 1e-4
"""Share of the picture below which a part counts as not visible: 10 x 10 px of 1024 x 1024."""
SEGMENTED_PX = 256
"""Hair and background are found at this size."""


def read_mask(path: Path | str) -> Float[Tensor, "1 1 size size"]:
    """Read a painted mask: white works, black does not.

    A picture with transparent parts is set where it is opaque, whatever its colour, as a layer that was painted on; any
    other by its brightest channel, so that pure colours count as white. 16 bits and palettes are fine. It is laid over the
    aligned face and has to be square like that (any size, it is resized).

    Raises:
        PhotoError: it cannot be read, or is not square.
        EditError: nothing is painted.
    """
    values = decode_image(read_bytes(path), str(path), _mask_values)
    height, width = values.shape
    if height != width:
        raise PhotoError(
            f"{path}: the mask has {width} x {height} pixels, the aligned face is a square: paint it over aligned.png"
        )
    mask = torch.from_numpy(values)[None, None]
    try:
        check_mask(mask)
    except EditError as error:
        raise EditError(f"{path}: {error}") from error
    return mask


def _mask_values(image: Image.Image, name: str) -> Float[np.ndarray, "height width"]:
    image = upright(image, name)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return np.asarray(image).astype(np.float32).clip(0, 65535) / 65535
    if image.mode in ("I", "F"):
        raise PhotoError(f"{name}: its pixels are 32-bit numbers without a known white; save it with 8 or 16 bits")
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            return alpha.astype(np.float32) / 255
    return np.asarray(image.convert("RGB")).max(-1).astype(np.float32) / 255


@dataclass(frozen=True, eq=False)
class _Sight:
    """A face in a picture, as parts are found in it. Lengths are in units: twentieths of the distance of the eyes."""

    pixels: Pixels
    face: Face

    @property
    def is_exact(self) -> bool:
        """Whether there are 68 landmarks."""
        return len(self.face.landmarks) == 68

    @property
    def across(self) -> Point:
        """One unit along the line of the eyes, to the picture's right."""
        return (self.face.right_eye - self.face.left_eye) / 20

    @property
    def down(self) -> Point:
        """One unit at right angles to the line of the eyes."""
        return np.array([-self.across[1], self.across[0]])

    @property
    def head(self) -> Point:
        """Middle between the ears; with five landmarks, between the eyes."""
        ends = self.face.landmarks[[0, 16]] if self.is_exact else np.stack([self.face.left_eye, self.face.right_eye])
        return np.asarray(ends.mean(0))

    @property
    def unit_px(self) -> float:
        """One unit in pixels."""
        return float(np.hypot(*self.across))

    def hull(self, *groups: tuple[int, int], grown: Number = 0.0) -> Region:
        """Return the hull of some of the 68 landmarks, given as ranges."""
        return self.filled(np.concatenate([self.face.landmarks[first:last] for first, last in groups]), grown)

    def filled(self, points: Float64[np.ndarray, "points 2"], grown: Number = 0.0) -> Region:
        """Return the hull of points."""
        canvas = np.zeros(self.pixels.shape[:2], np.uint8)
        cv2.fillConvexPoly(canvas, cv2.convexHull(np.rint(points).astype(np.int32)), 1)
        side = 2 * round(grown * self.unit_px) + 1
        return cv2.dilate(canvas, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0

    def ellipse(self, centre: Point, width: Number, height: Number) -> Region:
        """Return an ellipse that lies as the face does, of half so many units each way."""
        turns = np.linspace(0, 2 * np.pi, 72)[:, None]
        return self.filled(centre + np.cos(turns) * width * self.across + np.sin(turns) * height * self.down)


def _left_eye(sight: _Sight) -> Region:
    return sight.hull((36, 42), grown=2.5) if sight.is_exact else sight.ellipse(sight.face.left_eye, 7, 4.5)


def _right_eye(sight: _Sight) -> Region:
    return sight.hull((42, 48), grown=2.5) if sight.is_exact else sight.ellipse(sight.face.right_eye, 7, 4.5)


def _left_brow(sight: _Sight) -> Region:
    return sight.hull((17, 22), grown=1.5) if sight.is_exact else _brow_over(sight, sight.face.left_eye)


def _right_brow(sight: _Sight) -> Region:
    return sight.hull((22, 27), grown=1.5) if sight.is_exact else _brow_over(sight, sight.face.right_eye)


def _brow_over(sight: _Sight, eye: Point) -> Region:
    return sight.ellipse(eye - 6.5 * sight.down, 8, 3)


def _nose(sight: _Sight) -> Region:
    if sight.is_exact:
        return sight.hull((27, 36), grown=1.5)
    return sight.ellipse(sight.face.landmarks[2] - 3 * sight.down, 5.5, 8)


def _mouth(sight: _Sight) -> Region:
    return sight.hull((48, 68), grown=3) if sight.is_exact else sight.ellipse(sight.face.mouth, 11, 7)


def _lips(sight: _Sight) -> Region:
    return sight.hull((48, 60), grown=0.5) if sight.is_exact else sight.ellipse(sight.face.mouth, 8.5, 4)


def _face(sight: _Sight) -> Region:
    """Jaw line, and above the eyes half an ellipse up to the hairline: a third of a face lies above its brows."""
    middle = (sight.face.left_eye + sight.face.right_eye) / 2
    if not sight.is_exact:
        return sight.ellipse(middle + 5 * sight.down, 19, 28)
    points = sight.face.landmarks
    third = float(np.hypot(*(points[33] - points[17:27].mean(0)))) / sight.unit_px
    ears, half_width = (points[0] + points[16]) / 2, (points[16] - points[0]) / 2
    turns = np.linspace(0, np.pi, 36)[:, None]
    arc = ears + np.cos(turns) * half_width - np.sin(turns) * (third + 5) * sight.down
    return sight.filled(np.concatenate([points[:17], arc]))


def _forehead(sight: _Sight) -> Region:
    return _face(sight) & _beyond(sight, 5.5, upwards=True) & ~(_left_brow(sight) | _right_brow(sight))


def _chin(sight: _Sight) -> Region:
    if sight.is_exact:
        return sight.hull((5, 12), (54, 60), grown=0.5) & ~_lips(sight)
    return sight.ellipse(sight.face.mouth + 9.5 * sight.down, 10, 5.5)


def _jaw(sight: _Sight) -> Region:
    below = _beyond(sight, _depth(sight, sight.face.mouth) - 7, upwards=False)
    jaw = sight.hull((2, 15), grown=1) if sight.is_exact else _face(sight)
    return jaw & below & ~_mouth(sight)


def _cheeks(sight: _Sight) -> Region:
    below = _beyond(sight, 5, upwards=False) & _beyond(sight, -_depth(sight, sight.face.mouth) - 5, upwards=True)
    return _face(sight) & below & ~(_nose(sight) | _mouth(sight))


def _skin(sight: _Sight) -> Region:
    if sight.is_exact:
        eyes = sight.hull((36, 42), grown=0.8) | sight.hull((42, 48), grown=0.8)
    else:
        eyes = _left_eye(sight) | _right_eye(sight)
    return _face(sight) & ~(eyes | _left_brow(sight) | _right_brow(sight) | _lips(sight))


def _depth(sight: _Sight, point: Point) -> float:
    """Return how many units a point lies below the line of the eyes."""
    middle = (sight.face.left_eye + sight.face.right_eye) / 2
    return float((point - middle) @ sight.down) / sight.unit_px**2


def _beyond(sight: _Sight, units: Number, upwards: bool) -> Region:
    """Return all that lies more than so many units below, or above, the line of the eyes."""
    height, width = sight.pixels.shape[:2]
    y, x = np.mgrid[:height, :width]
    middle = (sight.face.left_eye + sight.face.right_eye) / 2
    depth = ((x - middle[0]) * sight.down[0] + (y - middle[1]) * sight.down[1]) / sight.unit_px**2
    return (-depth if upwards else depth) > units


def _hair(sight: _Sight) -> Region:
    """Find hair by colour: what looks like the band above the hairline, unlike face, neck and what is far from the head.

    Reference: Rother et al. 2004, "GrabCut".
    """
    small = _at(sight, SEGMENTED_PX)
    middle = small.head
    face, above = _face(small), _beyond(small, 15, upwards=True)
    near = small.ellipse(middle, 27, 37) & _beyond(small, -10, upwards=True) & ~face
    band = near & above & small.ellipse(middle + 2 * small.down, 21.5, 33)
    labels = np.full(small.pixels.shape[:2], cv2.GC_PR_BGD, np.uint8)
    labels[near] = cv2.GC_PR_FGD
    labels[band] = cv2.GC_FGD
    labels[~small.ellipse(middle + 8 * small.down, 48, 60)] = cv2.GC_BGD
    labels[small.ellipse(small.face.mouth + 26 * small.down, 14, 14)] = cv2.GC_BGD
    # A fringe may hang into the forehead.
    labels[_narrowed(face, 6) & ~_beyond(small, 9, upwards=True)] = cv2.GC_BGD
    found = _cut(small.pixels, labels)
    count, parts = cv2.connectedComponents(found.astype(np.uint8))
    touching = [part for part in range(1, count) if (parts == part)[near].any()]
    return _enlarged(np.isin(parts, touching), sight)


def _background(sight: _Sight) -> Region:
    """Find what is neither head nor shoulders, by colour from where these usually are."""
    small = _at(sight, SEGMENTED_PX)
    labels = np.full(small.pixels.shape[:2], cv2.GC_PR_BGD, np.uint8)
    body = small.ellipse(small.face.mouth + 34 * small.down, 46, 22)
    labels[small.ellipse(small.head + 2 * small.down, 26, 38) | body] = cv2.GC_PR_FGD
    neck, chest = ((22, 9, 14), (30, 34, 13))
    for below, width, height in (neck, chest):
        labels[small.ellipse(small.face.mouth + below * small.down, width, height)] = cv2.GC_FGD
    labels[_face(small)] = cv2.GC_FGD
    return _enlarged(~_cut(small.pixels, labels), sight) & ~_hair(sight)


def _at(sight: _Sight, size: int) -> _Sight:
    """Return the same face in a picture of another size."""
    scale = size / sight.pixels.shape[1]
    pixels = cv2.resize(sight.pixels, (size, size), interpolation=cv2.INTER_AREA)
    return _Sight(pixels, Face.from_landmarks((sight.face.landmarks + 0.5) * scale - 0.5))


def _narrowed(region: Region, by_px: int) -> Region:
    return cv2.erode(region.astype(np.uint8), np.ones((2 * by_px + 1,) * 2, np.uint8)) > 0


def _cut(pixels: Pixels, labels: UInt8[np.ndarray, "height width"]) -> Region:
    cv2.setRNGSeed(0)  # It starts from random clusters of colours.
    cv2.grabCut(pixels, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _enlarged(region: Region, sight: _Sight) -> Region:
    size = sight.pixels.shape[1::-1]
    return cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_CUBIC) > 0.5


PARTS: Mapping[str, Callable[[_Sight], Region]] = {
    "eyes": lambda sight: _left_eye(sight) | _right_eye(sight),
    "left_eye": _left_eye,
    "right_eye": _right_eye,
    "brows": lambda sight: _left_brow(sight) | _right_brow(sight),
    "left_brow": _left_brow,
    "right_brow": _right_brow,
    "nose": _nose,
    "mouth": _mouth,
    "lips": _lips,
    "chin": _chin,
    "jaw": _jaw,
    "cheeks": _cheeks,
    "forehead": _forehead,
    "face": _face,
    "skin": _skin,
    "hair": _hair,
    "background": _background,
}
"""Parts of a face by name; left and right as in the picture."""


def part_mask(
    image: Float[Tensor, "3 size size"], part: str, predictor: Path | str | None = None
) -> Float[Tensor, "1 1 size size"]:
    """Find a part of a face: 1 inside, 0 outside.

    Args:
        image: an aligned face in [-1, 1].
        part: of ``PARTS``.
        predictor: dlib's 68-point model; without it the one of an installed ``face_recognition_models``, else parts are
            ellipses around five landmarks, and a warning says so.

    Raises:
        UnknownName: no such part.
        NoFaceFound: there is no face, or the part is not visible.
        PredictorError: ``predictor`` is missing or of another kind.
    """
    if part not in PARTS:
        raise UnknownName("part of a face", part, PARTS)
    pixels = to_uint8(image)
    faces = find_faces(pixels)
    if not faces:
        raise NoFaceFound(f"no face found in which there could be {part}: paint a mask instead")
    model = find_predictor(predictor)
    if model is None:
        log.warning("%s: about, from five landmarks; exactly, with: pip install face_recognition_models", part)
    face = faces[0] if model is None else with_68_landmarks(pixels, faces[0], model)
    region = PARTS[part](_Sight(pixels, face))
    if region.mean() < SMALLEST_PART:
        raise NoFaceFound(f"{part}: not visible in this picture; paint a mask instead")
    return torch.from_numpy(region.astype(np.float32))[None, None]


SHAPES: Mapping[str, tuple[str, Callable[..., Mask]]] = {
    "rectangle": ("LEFT,TOP,RIGHT,BOTTOM", rectangle),
    "linear": ("DEGREES[,START,END]", linear_gradient),
    "radial": ("X,Y,RADIUS[,CORE]", radial_gradient),
    "vertical": ("", lambda: linear_gradient(90)),
    "horizontal": ("", lambda: linear_gradient(0)),
}
"""Masks by geometry, with what a user writes behind the name and a colon, in shares of the picture's sides."""


def mask_of(spec: str, image: Float[Tensor, "3 size size"], predictor: Path | str | None = None) -> Mask:
    """Make the mask that a user names: a part, a shape, a painted file, or several of them joined by ``+``.

    Args:
        spec: ``mouth``, ``eyes+brows``, ``rectangle:0.2,0.5,0.8,1``, ``linear:90,0.3,0.7``, ``radial:0.5,0.4,0.2``,
            ``vertical``, ``horizontal``, or the path of a picture.
        image: the aligned face, in [-1, 1].
        predictor: see ``part_mask``.

    Raises:
        UnknownName: no part, shape or file of this name; close names are given.
        EditError: a shape's numbers are none or out of range, or nothing is painted.
        NoFaceFound: there is no face, or the part is not visible.
        PhotoError: the file cannot be read, or is not square.
    """
    size = image.shape[-1]
    masks = [_one_mask(part.strip(), image, predictor) for part in ([spec] if Path(spec).is_file() else spec.split("+"))]
    return torch.stack([resize_mask(mask, size, size) for mask in masks]).amax(0)


def _one_mask(spec: str, image: Float[Tensor, "3 size size"], predictor: Path | str | None) -> Mask:
    name, _, numbers = spec.partition(":")
    if name.lower() in PARTS:
        return part_mask(image, name.lower(), predictor)
    if name.lower() in SHAPES:
        expected, shape = SHAPES[name.lower()]
        try:
            return shape(*(float(number) for number in numbers.split(",") if numbers))
        except (ValueError, TypeError) as error:
            raise EditError(f"mask {spec!r}: expected {name.lower()}{':' * bool(expected)}{expected}") from error
    if not Path(spec).is_file():
        raise UnknownName("mask (nor is there such a file)", spec, [*PARTS, *SHAPES])
    return read_mask(spec)
