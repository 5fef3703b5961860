"""What does a person look at first? The photo's face, its inversion and every edit, side by side and labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

PANEL_PX, GAP_PX, MARGIN_PX, LABEL_PX = 512, 16, 32, 76
PAPER, INK, FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)


@dataclass(frozen=True)
class Panel:
    """One picture of the sheet."""

    image: UInt8[np.ndarray, "height width 3"]
    title: str
    note: str = ""


def comparison(panels: Sequence[Panel], columns: int | None = None) -> UInt8[np.ndarray, "height width 3"]:
    """Lay out panels in rows of ``columns``, else in even ones of at most four, each with its title and note below."""
    rows = -(-len(panels) // (columns or 4))
    columns = columns or -(-len(panels) // rows)
    width = 2 * MARGIN_PX + columns * PANEL_PX + (columns - 1) * GAP_PX
    height = MARGIN_PX + rows * (PANEL_PX + LABEL_PX) + MARGIN_PX // 2
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    title_font, note_font = ImageFont.load_default(26), ImageFont.load_default(19)
    for i, panel in enumerate(panels):
        left = MARGIN_PX + i % columns * (PANEL_PX + GAP_PX)
        top = MARGIN_PX + i // columns * (PANEL_PX + LABEL_PX)
        picture = Image.fromarray(panel.image).resize((PANEL_PX, PANEL_PX), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left, top))
        draw.text((left, top + PANEL_PX + 10), panel.title, INK, title_font)
        draw.text((left, top + PANEL_PX + 42), panel.note, FAINT, note_font)
    return np.asarray(sheet)
