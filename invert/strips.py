"""What does a direction look like? One row for each face, from one end to the other: a sheet to browse by eye."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from editing.directions import Direction
from generators.base import Generator
from invert.samples import Draw, Progress, drawer, quiet, sample_codes

STRENGTHS = (-3.0, -1.5, 0.0, 1.5, 3.0)
TRUNCATION_PSI = 0.7
_FACE_PX, _LABEL_PX, _GAP_PX = 192, 30, 6
_PAPER, _INK = (255, 255, 255), (24, 24, 27)


def strips(
    directions: Sequence[Direction],
    generator: Generator,
    faces: int = 2,
    strengths: Sequence[float] = STRENGTHS,
    *,
    seed: int = 0,
    draw: Draw | None = None,
    progress: Progress = quiet,
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the same faces moved along each direction, with the direction's name above its rows.

    Args:
        directions: to show, from top to bottom.
        generator: that draws.
        faces: rows for each direction.
        strengths: columns.
        seed: of the faces.
        draw: draws faces; by default the generator does.
        progress: told how far it is.

    Raises:
        LatentMismatch: a direction does not fit the generator.
    """
    draw = draw or drawer(generator)
    w = sample_codes(generator, faces, seed, (TRUNCATION_PSI, TRUNCATION_PSI))
    w_plus = w[:, None].repeat(1, generator.num_ws, 1)
    step = _FACE_PX + _GAP_PX
    block = _LABEL_PX + faces * step
    sheet = Image.new("RGB", (_GAP_PX + len(strengths) * step, _GAP_PX + len(directions) * block), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for number, direction in enumerate(directions):
        top = number * block
        pen.text((_GAP_PX, top + 5), _title(direction, strengths), _INK, font)
        for column, strength in enumerate(strengths):
            moved = direction(w_plus, strength)
            for row, face in enumerate(draw(cast(Tensor, moved))):
                picture = Image.fromarray(face).resize((_FACE_PX, _FACE_PX), Image.Resampling.LANCZOS)
                sheet.paste(picture, (_GAP_PX + column * step, top + _LABEL_PX + row * step))
        progress("drawing previews", number + 1, len(directions))
    return np.asarray(sheet)


def _title(direction: Direction, strengths: Sequence[float]) -> str:
    sign = "" if direction.sign.startswith(("unknown", "not known")) else f"   + is {direction.sign}"
    return f"{direction.name}   {strengths[0]:+g} to {strengths[-1]:+g}{sign}"
