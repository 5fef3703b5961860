"""How are faces laid out that come from two sides? Sources above and at the left, what becomes of them in between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

Picture = UInt8[np.ndarray, "_ _ 3"]

PAPER, INK = (255, 255, 255), (24, 24, 27)
GAP_PX, LABEL_PX = 6, 34
MAX_SIDE_PX = 4096
"""Of the whole sheet; many faces become small ones."""


def grid(
    above: Sequence[Picture], left: Sequence[Picture], cells: Sequence[Sequence[Picture]], cell_px: int = 256,
    titles: tuple[str, str] = ("", ""),
) -> Picture:  # fmt: skip
    """Lay out a table of square pictures.

    Args:
        above: heads of the columns.
        left: heads of the rows.
        cells: a row for each of ``left``, with a picture for each of ``above``.
        cell_px: side of a picture; smaller where the sheet would grow beyond ``MAX_SIDE_PX``.
        titles: of the heads above, and of those at the left.

    Reference: Karras et al. 2019, arXiv:1812.04948, figure 3.
    """
    columns, rows = len(above) + 1, len(left) + 1
    cell_px = min(cell_px, (MAX_SIDE_PX - LABEL_PX) // max(columns, rows) - GAP_PX)
    step = cell_px + GAP_PX
    sheet = Image.new("RGB", (columns * step + GAP_PX, rows * step + LABEL_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(20)
    draw.text((step + GAP_PX, 6), titles[0], INK, font)
    draw.text((GAP_PX, LABEL_PX + cell_px - 28), titles[1], INK, font)
    lines: list[list[Picture | None]] = [[None, *above]]
    lines += [[head, *line] for head, line in zip(left, cells, strict=True)]
    for row, pictures in enumerate(lines):
        for column, picture in enumerate(pictures):
            if picture is not None:
                small = Image.fromarray(picture).resize((cell_px, cell_px), Image.Resampling.LANCZOS)
                sheet.paste(small, (GAP_PX + column * step, LABEL_PX + row * step))
    return np.asarray(sheet)
