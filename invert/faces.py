"""How does a face get out of a photo into the square a generator knows, and back? The FFHQ crop and its inverse.

Coordinates are photo or crop pixels; a pixel's centre has whole coordinates (x to the right, y down), as in OpenCV and dlib.
``crop_from_photo`` maps photo to crop coordinates, homogeneous and 3x3. The outline of a crop of R pixels therefore runs
from -0.5 to R - 0.5.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Float32, Float64, UInt8
from PIL import Image
from torch import Tensor

from generators.errors import UnknownName
from invert.errors import ImageError, NoFaceFound
from invert.landmarks import Face, find_faces, find_predictor, with_68_landmarks
from invert.photo import check_finite, to_tensor

log = logging.getLogger(__name__)

# Below the first, hardly anything of the face is the photo's own after enlarging; below the second it shows.
MIN_FACE_PX = 40
SMALL_FACE_PX = 100


@dataclass(frozen=True, eq=False)
class AlignedFace:
    """A face cut out of a photo and turned upright.

    Attributes:
        image: the crop in [-1, 1].
        crop_from_photo: photo pixels to crop pixels, pixel centres at whole coordinates.
        photo_size: height and width of the photo.
    """

    image: Float[Tensor, "3 size size"]
    crop_from_photo: Float64[np.ndarray, "3 3"]
    photo_size: tuple[int, int]

    @property
    def resolution(self) -> int:
        """The crop's side in pixels."""
        return self.image.shape[-1]

    @property
    def side_px(self) -> float:
        """The crop's side in the photo's pixels: the detail that was really there."""
        return float(self.resolution / np.sqrt(abs(np.linalg.det(self.crop_from_photo[:2, :2]))))


def detect(
    photo: UInt8[np.ndarray, "height width 3"],
    which: str | int = "largest",
    *,
    predictor: Path | str | None = None,
    min_face_px: int = MIN_FACE_PX,
    advice: str = "use --no-align if the photo is an aligned face already",
) -> list[Face]:
    """Find the faces to work on, the largest first.

    Args:
        photo: the whole photo, upright.
        which: ``largest``, ``all`` (large enough), or a number counted from 0 at the largest.
        predictor: dlib's 68-point model. Without it, the one of an installed ``face_recognition_models`` is used, else the
            crops follow from five landmarks, which comes within a few percent.
        min_face_px: smallest face, from forehead to chin in photo pixels, that is accepted.
        advice: what else may help if there is no face; empty if nothing does.

    Raises:
        NoFaceFound: there is none, fewer than ``which`` asks for, or it is too small.
        PredictorError: ``predictor`` is missing or of another kind.
    """
    if isinstance(which, str) and which not in ("largest", "all"):
        if not which.isdecimal():
            raise UnknownName("face", which, ["largest", "all", "0", "1", "2"])
        which = int(which)
    model = find_predictor(predictor)
    chosen = _choose(find_faces(photo), which, min_face_px, advice)
    return [with_68_landmarks(photo, face, model) for face in chosen] if model else chosen


def _choose(found: list[Face], which: str | int, min_face_px: int, advice: str) -> list[Face]:
    if not found:
        raise NoFaceFound(
            f"no face found; it should be upright, lit and at least {min_face_px} px high{f'; {advice}' if advice else ''}"
        )
    if isinstance(which, int) and not 0 <= which < len(found):
        known = "only face 0" if len(found) == 1 else f"faces 0 (the largest) to {len(found) - 1}"
        raise NoFaceFound(f"there is no face {which}: {known} found in the photo")
    wanted = found if which == "all" else [found[which if isinstance(which, int) else 0]]
    chosen = [face for face in wanted if face.size_px >= min_face_px]
    if not chosen:
        size = max(face.size_px for face in wanted)
        raise NoFaceFound(
            f"the face is too small: {size:.0f} px from forehead to chin, at least {min_face_px} px are needed"
            f"{f' ({len(found)} faces found)' if len(found) > 1 else ''}; use a larger version of the photo"
        )
    if len(chosen) < len(wanted):
        log.warning("left out %d of %d faces: smaller than %d px", len(wanted) - len(chosen), len(wanted), min_face_px)
    for face in chosen:
        if face.size_px < SMALL_FACE_PX:
            log.warning("a face is only %.0f px high: the result will show more detail than the photo has", face.size_px)
    return chosen


# Correction of crops from five landmarks, as MTCNN's eyes lie a little higher than the centres of dlib's eye outlines and
# further apart: scale, and shift down in half sides of the crop. Medians over 24 synthetic portraits and 60 congress photos
# against crops from 68 landmarks. Mean distance of the corners in % of the side, median / worst: 1.6 / 5.8 without it,
# 1.2 / 4.3 with it. Held out: fitted to the portraits alone (0.993, 0.015) the photos have 1.4 / 5.2, fitted to the photos
# alone (0.978, 0.016) the portraits have 1.5 / 4.1. dlib started from its own box and from MTCNN's differs by 0.5 / 2.1.
_FIVE_SCALE, _FIVE_DOWN = 0.982, 0.015


def crop_corners(face: Face) -> Float64[np.ndarray, "4 2"]:
    """Place FFHQ's square around a face: top left, bottom left, bottom right, top right corner of its outline.

    Reference: Karras et al. 2019, arXiv:1812.04948, appendix A, and Karras et al. 2018, arXiv:1710.10196, appendix C.
    """
    eye_to_eye = face.right_eye - face.left_eye
    eyes = (face.left_eye + face.right_eye) / 2
    eye_to_mouth = face.mouth - eyes
    across = eye_to_eye - _quarter_turn(eye_to_mouth)
    length = np.hypot(*across)
    half_side = max(2.0 * np.hypot(*eye_to_eye), 1.8 * np.hypot(*eye_to_mouth))
    if length < 1e-6 or not np.isfinite(half_side):
        raise NoFaceFound("the landmarks of the face coincide, so that it has no size and direction")
    across *= half_side / length
    centre = eyes + 0.1 * eye_to_mouth
    if len(face.landmarks) == 5:
        centre = centre + _FIVE_DOWN * _quarter_turn(across)
        across *= _FIVE_SCALE
    down = _quarter_turn(across)
    return np.stack([centre - across - down, centre - across + down, centre + across + down, centre + across - down])


def _quarter_turn(vector: Float64[np.ndarray, " 2"]) -> Float64[np.ndarray, " 2"]:
    return np.array([-vector[1], vector[0]])


def align(photo: UInt8[np.ndarray, "height width 3"], face: Face, resolution: int = 1024) -> AlignedFace:
    """Cut a face out as FFHQ's were: upright, eyes and mouth in place, the photo mirrored and blurred beyond its edge.

    Follows the procedure of pSp and e4e, with one departure: where the photo has more pixels than the crop, all of them
    count (pSp takes single ones, up to four apart). Images without detail that fine come out the same.

    Raises:
        NoFaceFound: the landmarks coincide or lie far outside the photo.
    """
    return align_corners(photo, crop_corners(face), resolution)


def align_corners(
    photo: UInt8[np.ndarray, "height width 3"], corners: Float64[np.ndarray, "4 2"], resolution: int = 1024
) -> AlignedFace:
    """Cut out a square as ``align`` does, where ``crop_corners`` or a track of it through a film has placed it.

    Raises:
        NoFaceFound: the square lies far outside the photo.
    """
    height, width = photo.shape[:2]
    low, high = corners.min(0), corners.max(0)
    if (high <= 0).any() or (low >= (width - 1, height - 1)).any() or (high - low).max() > 8 * max(height, width):
        raise NoFaceFound("the face lies outside the photo, or reaches far beyond it; are the landmarks this photo's?")
    photo_size = (height, width)
    return AlignedFace(
        to_tensor(_sample_square(photo, corners, resolution)), _crop_from_photo(corners, resolution), photo_size
    )


def already_aligned(photo: UInt8[np.ndarray, "height width 3"], resolution: int = 1024) -> AlignedFace:
    """Take a photo that is an aligned face as it is: its central square, resized."""
    height, width = photo.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = Image.fromarray(photo[top : top + side, left : left + side])
    if side != resolution:
        square = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
    right, bottom = left + side, top + side
    corners = np.array([(left, top), (left, bottom), (right, bottom), (right, top)]) - 0.5
    return AlignedFace(to_tensor(np.array(square)), _crop_from_photo(corners, resolution), (height, width))


def _crop_from_photo(corners: Float64[np.ndarray, "4 2"], resolution: int) -> Float64[np.ndarray, "3 3"]:
    """Turn the outline's corners into the map of pixel centres."""
    across, down = (corners[3] - corners[0]) / resolution, (corners[1] - corners[0]) / resolution
    photo_from_crop = np.eye(3)
    photo_from_crop[:2] = np.stack([across, down, corners[0] + (across + down) / 2], axis=1)
    return np.linalg.inv(photo_from_crop)


def _sample_square(
    photo: UInt8[np.ndarray, "height width 3"], corners: Float64[np.ndarray, "4 2"], resolution: int
) -> UInt8[np.ndarray, "resolution resolution 3"]:
    """Do what FFHQ's script does for one face: shrink, cut, pad, sample."""
    side = float(np.hypot(*(corners[3] - corners[0])))
    # Cut first: what follows then costs the same for any photo. The border is what blurring and sampling look at.
    border = max(round(side * 0.1), 3)
    limit = np.array(photo.shape[1::-1])
    low = (np.floor(corners.min(0)).astype(int) - border).clip(0, limit - 1)
    high = (np.ceil(corners.max(0)).astype(int) + border).clip(low + 1, limit)
    patch = photo[low[1] : high[1], low[0] : high[0]]
    corners = corners - low
    # Shrink to at most twice the crop; the map of corners follows the size that was really reached.
    shrink = side / (2 * resolution)
    if shrink > 1:
        size = np.maximum(np.rint((high - low) / shrink).astype(int), 1)
        small = Image.fromarray(patch).resize((int(size[0]), int(size[1])), Image.Resampling.LANCZOS, reducing_gap=2.0)
        patch, corners, side = np.asarray(small), (corners + 0.5) * size / (high - low) - 0.5, 2.0 * resolution
        border = max(round(side * 0.1), 3)
    before = np.ceil(border - corners.min(0)).astype(int)
    after = np.ceil(corners.max(0)).astype(int) - patch.shape[1::-1] + border
    pads = np.maximum([before, after], 0)
    if pads.max() > border - 4:
        pads = np.maximum(pads, max(round(side * 0.3), 1))
        patch, corners = _pad_and_blur(patch, pads, side, corners), corners + pads[0]
    # QUAD counts from the corner of a pixel. Sampling twice as finely and averaging keeps what a single sample would skip.
    fine = resolution * (2 if side > 1.1 * resolution else 1)
    outline = tuple(float(value) for value in (corners + 0.5).ravel())
    square = Image.fromarray(patch).transform((fine, fine), Image.Transform.QUAD, outline, Image.Resampling.BILINEAR)
    if fine != resolution:
        square = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.array(square)


def _pad_and_blur(
    patch: UInt8[np.ndarray, "height width 3"], pads: np.ndarray, side: float, corners: Float64[np.ndarray, "4 2"]
) -> UInt8[np.ndarray, "padded_height padded_width 3"]:
    """Mirror the photo beyond its edge, then blur it and fade it to its median there, from the edge outwards.

    Args:
        patch: the photo around the face.
        pads: two rows (before, after) of (x, y), all above 0, in pixels.
        side: of the crop; blurring goes by it.
        corners: of the crop in the patch; nothing else will be looked at, so nothing else is blurred.
    """
    (left, top), (right, bottom) = pads.tolist()
    padded = np.pad(patch, ((top, bottom), (left, right), (0, 0)), mode="reflect")
    height, width = padded.shape[:2]

    def outside(x: np.ndarray, y: np.ndarray) -> Float32[np.ndarray, "rows columns 1"]:
        """Give 1 at the padded picture's edge, 0 at the photo's, negative values inside."""
        inside_x = np.minimum(x / left, (width - 1 - x) / right)
        inside_y = np.minimum(y / top, (height - 1 - y) / bottom)
        return (1 - np.minimum(inside_x[None, :], inside_y[:, None]))[..., None].astype(np.float32)

    # The blurred picture holds nothing fine, so that for large crops a small version of it does.
    sigma = 0.02 * side
    shrink = max(1, int(sigma / 5))
    size = (-(-width // shrink), -(-height // shrink))
    small = padded if shrink == 1 else cv2.resize(padded, size, interpolation=cv2.INTER_AREA)
    small = small.astype(np.float32)
    radius = int(4 * sigma / shrink + 0.5)
    blurred = cv2.GaussianBlur(small, (2 * radius + 1,) * 2, sigma / shrink, borderType=cv2.BORDER_REFLECT)
    step = np.array(size) / (width, height)
    weight = outside((np.arange(size[0]) + 0.5) / step[0] - 0.5, (np.arange(size[1]) + 0.5) / step[1] - 0.5)
    median = np.median(small + (blurred - small) * (3 * weight + 1).clip(0, 1), axis=(0, 1)).astype(np.float32)

    low = (np.floor(corners.min(0)).astype(int) + pads[0] - 2).clip(0)
    high = (np.ceil(corners.max(0)).astype(int) + pads[0] + 3).clip(0, (width, height))
    columns = slice(int(low[0]), int(high[0]))
    for start in range(int(low[1]), int(high[1]), 64):  # In bands that stay in the processor's cache.
        rows = slice(start, min(start + 64, int(high[1])))
        weight = outside(np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop))
        band = padded[rows, columns]
        values = band.astype(np.float32)
        enlarge = np.column_stack([np.diag(step), np.array([columns.start + 0.5, rows.start + 0.5]) * step - 0.5])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        blur = cv2.warpAffine(blurred, enlarge, band.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
        values += (blur - values) * (3 * weight + 1).clip(0, 1)
        values += (median - values) * weight.clip(0, 1)
        band[...] = np.rint(values).clip(0, 255)
    return padded


# The mask's outline as a share of the half crop (never quite its border, where a generator draws its worst), and how far
# the fade reaches inwards from it. Exponent 2 would be a circle, a large one a square: 3 keeps the hair, not the corners.
_MASK_REACH, _MASK_EXPONENT = 0.98, 3.0
FEATHER = 0.35


def paste_back(
    photo: UInt8[np.ndarray, "height width 3"],
    edited: Float[Tensor, "3 size size"],
    crop_from_photo: AlignedFace | Float64[np.ndarray, "3 3"],
    *,
    inverted: Float[Tensor, "3 size size"] | None = None,
    feather: float = FEATHER,
    match_colour: bool = False,
) -> UInt8[np.ndarray, "height width 3"]:
    """Put an edited face back where it came from, at the photo's full resolution; the photo given stays as it is.

    Outside the mask, a rounded square inside the crop, not one bit changes; parts beyond the photo's edge are left out.
    Several faces go back one after the other.

    Args:
        photo: the whole photo, of the size that was aligned.
        edited: what the generator drew, in [-1, 1]; may have another resolution than the aligned image.
        crop_from_photo: what ``align`` returned. A bare matrix belongs to a crop of the size of ``edited``.
        inverted: the inversion before editing. With it, the *difference* is added to the photo: background and fine detail
            stay the photo's own and an edit of strength 0 changes nothing, but large changes of shape leave a ghost.
        feather: how far the fade reaches inwards, as a share of half the crop, in (0, 0.98].
        match_colour: shift the face's colours smoothly so that around it, where it fades, they agree with the photo's.

    Raises:
        ValueError: ``photo`` is not of the size that was aligned, or ``feather`` out of range.
        ImageError: the drawn face holds NaN or infinite values, or is a batch.
    """
    if not 0 < feather <= _MASK_REACH:
        raise ValueError(f"feather={feather}: expected a share of half the crop in (0, {_MASK_REACH}]")
    for image in (edited, *([] if inverted is None else [inverted])):
        if image.ndim != 3 or len(image) != 3:
            raise ImageError(f"a face of shape {tuple(image.shape)}: expected (3, h, w): image[0] is the first of a batch")
    size = edited.shape[-1]
    if isinstance(crop_from_photo, AlignedFace):
        if crop_from_photo.photo_size != photo.shape[:2]:
            raise ValueError(f"the face was aligned from a photo of {crop_from_photo.photo_size}, not {photo.shape[:2]}")
        matrix = _resize_matrix(size / crop_from_photo.resolution) @ crop_from_photo.crop_from_photo
    else:
        matrix = crop_from_photo
    window, alpha = _mask(photo.shape[:2], matrix, size, feather)
    result = photo.copy()
    if not alpha.size:
        return result
    old = result[window].astype(np.float32)
    if inverted is None:
        new = _warp(_levels(edited), matrix, window)
        if match_colour:
            new += _ring_shift(old - new, alpha)
    else:
        new = old + _warp(_levels(edited) - _levels(inverted), matrix, window)
    mixed = old + alpha[..., None] * (new - old)
    # Where alpha is 0 this gives back whole numbers unchanged.
    result[window] = np.rint(mixed).clip(0, 255)
    return result


def _levels(image: Float[Tensor, "3 size size"]) -> Float32[Tensor, "3 size size"]:
    return check_finite(image.detach().float()).cpu().clamp(-1, 1).add(1).mul(127.5)


def _resize_matrix(scale: float) -> Float64[np.ndarray, "3 3"]:
    """Map pixel centres to those of the same picture enlarged ``scale`` times."""
    offset = scale / 2 - 0.5
    return np.array([[scale, 0, offset], [0, scale, offset], [0, 0, 1]])


def _mask(
    photo_size: tuple[int, ...], crop_from_photo: Float64[np.ndarray, "3 3"], size: int, feather: float
) -> tuple[tuple[slice, slice], Float32[np.ndarray, "rows columns"]]:
    """Give the part of the photo that the mask touches, and the mask there: exact for any size, so never resampled."""
    outline = np.array([(-0.5, -0.5, 1), (-0.5, size - 0.5, 1), (size - 0.5, size - 0.5, 1), (size - 0.5, -0.5, 1)])
    corners = (outline @ np.linalg.inv(crop_from_photo).T)[:, :2]
    limit = np.array(photo_size[::-1])
    low = np.floor(corners.min(0)).clip(0, limit).astype(int)
    high = (np.ceil(corners.max(0)) + 1).clip(0, limit).astype(int)
    x, y = np.arange(low[0], high[0]), np.arange(low[1], high[1])
    # Shares of the half crop, 0 in its middle. An affine map: the two coordinates contribute independently.
    to_share = (2 / size * crop_from_photo[:2]).astype(np.float32)
    to_share[:, 2] = 2 / size * (crop_from_photo[:2, 2] + 0.5) - 1
    across, down = (np.abs(row[0] * x[None, :] + row[1] * y[:, None] + row[2]) for row in to_share)
    distance = (across**_MASK_EXPONENT + down**_MASK_EXPONENT) ** (1 / _MASK_EXPONENT)
    depth = ((_MASK_REACH - distance) / feather).clip(0, 1)
    return (slice(low[1], high[1]), slice(low[0], high[0])), (depth * depth * (3 - 2 * depth)).astype(np.float32)


def _warp(
    levels: Float32[Tensor, "3 size size"], crop_from_photo: Float64[np.ndarray, "3 3"], window: tuple[slice, slice]
) -> Float32[np.ndarray, "rows columns 3"]:
    """Draw a crop into a window of the photo: antialiased where it shrinks, bicubic where it grows."""
    size = levels.shape[-1]
    side_px = size / np.sqrt(abs(np.linalg.det(crop_from_photo[:2, :2])))
    smaller = max(1, round(side_px))
    if smaller < size:
        levels = F.interpolate(levels[None], (smaller, smaller), mode="bicubic", antialias=True, align_corners=False)[0]
        crop_from_photo = _resize_matrix(smaller / size) @ crop_from_photo
    rows, columns = window
    shift = np.array([[1, 0, columns.start], [0, 1, rows.start], [0, 0, 1]], np.float64)
    crop_from_window = (crop_from_photo @ shift)[:2]
    picture = np.ascontiguousarray(levels.permute(1, 2, 0).numpy())
    extent = (columns.stop - columns.start, rows.stop - rows.start)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, crop_from_window, extent, flags=flags, borderMode=cv2.BORDER_REPLICATE))


def _ring_shift(
    difference: Float32[np.ndarray, "rows columns 3"], alpha: Float32[np.ndarray, "rows columns"]
) -> Float32[np.ndarray, "rows columns 3"]:
    """Continue the colour difference in the fading ring smoothly over the whole face: seen coarsely, 64 pixels a side."""
    rows, columns = alpha.shape
    shrink = max(rows, columns) / 64
    size = (max(1, round(columns / shrink)), max(1, round(rows / shrink)))
    weight = 4 * alpha * (1 - alpha)
    # What differs strongly there is another thing (hair against wall), not another light.
    weight = weight / (1 + (np.abs(difference).max(-1) / 24) ** 2)
    coarse = cv2.resize(np.dstack([difference * weight[..., None], weight]), size, interpolation=cv2.INTER_AREA)
    coarse = cv2.GaussianBlur(coarse, (0, 0), 12, borderType=cv2.BORDER_CONSTANT)
    shift = coarse[..., :3] / (coarse[..., 3:] + 1e-3)
    return cv2.resize(shift, (columns, rows), interpolation=cv2.INTER_LINEAR)
