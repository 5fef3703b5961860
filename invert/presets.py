"""How much work goes into a face, where the user leaves the method open (``auto``)? Presets: fast, better, best."""

from __future__ import annotations

from dataclasses import dataclass

from generators.errors import UnknownName

AUTO = "auto"
PROJECTOR = "projector"
MAX_LOOKS = 16
"""Of an encoder at a face (``encoders.feedback``): most is said after three."""


@dataclass(frozen=True)
class Preset:
    """How much work goes into a face."""

    refine: int
    """Projector steps after an encoder."""
    steps: int
    """Of the projector, for a generator without an encoder."""
    tune: int
    """Steps of tuning the generator (PTI)."""
    what: str
    """It does, in words."""
    lpips: float
    """LPIPS-SqueezeNet that it gave on test faces (README, "Methods")."""
    faces: int
    """That it was measured on."""
    seconds: float
    """That a face takes on two CPU cores."""

    @property
    def about(self) -> str:
        """What it does, and what that gave."""
        return f"{self.what}; LPIPS {self.lpips} on {self.faces} faces, {self.seconds:g} s a face"


PRESETS = {
    "fast": Preset(0, 60, 0, "the encoder", 0.086, 266, 0.8),
    "better": Preset(30, 100, 0, "the encoder and 30 projector steps", 0.013, 7, 17.0),
    "best": Preset(40, 150, 40, "40 projector steps, then 40 of tuning the generator", 0.005, 4, 58.0),
}
"""Effort by name."""
DEFAULT_PRESET = "better"


def preset_of(name: str) -> Preset:
    """Return a preset.

    Raises:
        UnknownName: there is none of that name.
    """
    if name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return PRESETS[name]
