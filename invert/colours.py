"""Which colours does a face have? Skin, hair, lips and light, as means of CIELAB at places that follow from 68 landmarks.

L* goes from 0 (black) to 100 (white), a* from green to red. Places are discs and polygons measured in eye distances, so that
size, place and lean of a face do not matter; where one leaves the picture, the part inside counts.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

Pixels: TypeAlias = UInt8[np.ndarray, "height width 3"]
Points: TypeAlias = Float64[np.ndarray, "68 2"]
Lab: TypeAlias = Float64[np.ndarray, " 3"]


def hair_light(face: Pixels, points: Points) -> float:
    """Return L* of the hair above the forehead."""
    return float(_hair(face, points)[0])


def skin_light(face: Pixels, points: Points) -> float:
    """Return L* of both cheeks."""
    return float(_skin(face, points)[0])


def light_from_right(face: Pixels, points: Points) -> float:
    """Return by how much the cheek on the picture's right is lighter, in L*."""
    left, right = (_cheek(face, points, side) for side in (0, 1))
    return float(right[0] - left[0])


def red_lips(face: Pixels, points: Points) -> float:
    """Return by how much the lips are redder than the skin, in a*."""
    mask = np.zeros(face.shape[:2], np.uint8)
    cv2.fillPoly(mask, [_whole(points[48:60])], 1)
    cv2.fillPoly(mask, [_whole(points[60:68])], 0)
    return float(_mean(face, mask)[1] - _skin(face, points)[1])


def beard(face: Pixels, points: Points) -> float:
    """Return by how much upper lip, chin and jaw are darker than the cheeks, in L*."""
    places = [(points[[33, 51]].mean(0), 0.1), (points[[57, 8]].mean(0), 0.2)]
    places += [(points[[48, 5]].mean(0), 0.15), (points[[54, 11]].mean(0), 0.15)]
    return float(_skin(face, points)[0] - np.mean([_disc(face, points, *place)[0] for place in places]))


def bangs(face: Pixels, points: Points) -> float:
    """Return how far the forehead's colour has gone from that of the cheeks to that of the hair: 0 skin, 1 hair."""
    skin, hair = _skin(face, points), _hair(face, points)
    way = hair - skin
    forehead = _disc(face, points, _above_brows(points, 0.5), 0.3)
    # Where hair and skin are of one colour nothing can be told: ten levels of noise keep the quotient small there.
    return float((forehead - skin) @ way / (way @ way + 100.0))


def background(face: Pixels, points: Points) -> float:
    """Return L* of the picture's upper corners."""
    height, width = face.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    mask[: round(0.3 * height), : max(1, round(0.1 * width))] = 1
    mask[: round(0.3 * height), width - max(1, round(0.1 * width)) :] = 1
    return float(_mean(face, mask)[0])


def _skin(face: Pixels, points: Points) -> Lab:
    return (_cheek(face, points, 0) + _cheek(face, points, 1)) / 2


def _cheek(face: Pixels, points: Points, side: int) -> Lab:
    around = [[41, 48, 3, 31], [46, 54, 13, 35]][side]
    return _disc(face, points, points[around].mean(0), 0.15)


def _hair(face: Pixels, points: Points) -> Lab:
    return _disc(face, points, _above_brows(points, 1.25), 0.25)


def _above_brows(points: Points, eye_distances: float) -> Float64[np.ndarray, " 2"]:
    brows = points[[21, 22]].mean(0)
    up = brows - points[[48, 54]].mean(0)
    return np.asarray(brows + up / np.linalg.norm(up) * eye_distances * _eye_distance(points))


def _eye_distance(points: Points) -> float:
    return float(np.linalg.norm(points[42:48].mean(0) - points[36:42].mean(0)))


def _disc(face: Pixels, points: Points, centre: Float64[np.ndarray, " 2"], radius: float) -> Lab:
    """Return the mean colour of a disc, its radius in eye distances; of the nearest pixels, where it lies outside."""
    height, width = face.shape[:2]
    inside = np.clip(centre, 0, [width - 1, height - 1])
    mask = np.zeros((height, width), np.uint8)
    x, y = _whole(inside[None])[0]
    cv2.circle(mask, (int(x), int(y)), max(1, round(radius * _eye_distance(points))), 1, cv2.FILLED)
    return _mean(face, mask)


def _whole(points: Float64[np.ndarray, "n 2"]) -> np.ndarray:
    return np.round(points).astype(np.int32)


def _mean(face: Pixels, mask: UInt8[np.ndarray, "height width"]) -> Lab:
    pixels = face[mask > 0].astype(np.float32)[None] / 255
    if not pixels.size:  # Lips so thin that no pixel lies between their outlines.
        pixels = np.zeros((1, 1, 3), np.float32)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0].mean(0), np.float64)
