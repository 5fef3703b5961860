"""How much work goes into a face, where the user leaves the method open (``auto``)? Presets: fast, better, best.

What else the command line offers stands here, too, since nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from generators.errors import UnknownName
from invert.errors import RecipeError

AUTO = "auto"
PROJECTOR = "projector"
DEFAULT_METHOD = "stylemap"
MAX_LOOKS = 16
"""Of an encoder at a face (``encoders.feedback``): most is said after three."""
DTYPES = ("float32", "bfloat16", "float16")
"""That the generator computes in; see ``Generator.compute_in``."""


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
    "fast": Preset(0, 60, 0, "the encoder", 0.088, 266, 0.8),
    "better": Preset(30, 100, 0, "the encoder and 30 projector steps", 0.012, 23, 17.0),
    "best": Preset(40, 150, 40, "40 projector steps, then 40 of tuning the generator", 0.006, 12, 58.0),
}
"""Effort by name."""
DEFAULT_PRESET = "better"
STEPS = ("steps", "refine", "tune")
"""Settings of a method that a preset has values for; those given by hand go before."""


def preset_of(name: str) -> Preset:
    """Return a preset.

    Raises:
        UnknownName: there is none of that name.
    """
    if name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return PRESETS[name]


def steps_of(method: str) -> str:
    """Name the setting that says how many steps a method takes."""
    return "steps" if method == PROJECTOR else "refine"


def preset_steps(name: str, method: str) -> dict[str, int]:
    """Return a preset's steps of a method, as options of ``load_inverter``.

    Raises:
        UnknownName: there is no such preset.
    """
    preset = preset_of(name)
    own = {"steps": preset.steps} if method == PROJECTOR else {"refine": preset.refine}
    return own | ({"tune": preset.tune} if preset.tune else {})


def as_meant(method: str | None, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Say which method is meant, and give it a preset's steps; those that were given go before.

    Args:
        method: None where nobody named one: an encoder that is given is the method then, else a preset means ``auto``.
        settings: that were given, and no others; see ``invert.recipe.SETTINGS``.

    Returns:
        The method, and its settings: without a preset, but that of ``auto`` waits for the method which ``auto`` becomes.

    Raises:
        UnknownName: there is no such preset.
    """
    settings = dict(settings)
    if settings.get("encoder") and method in (None, DEFAULT_METHOD):  # Beside the default method, it takes its place.
        method = str(settings.pop("encoder"))
    if method is None:
        method = AUTO if "preset" in settings else DEFAULT_METHOD
    if method == AUTO or "preset" not in settings:
        return method, settings
    return method, preset_steps(settings.pop("preset"), method) | settings


def refuse_unused(method: str, by_hand: dict[str, Any]) -> None:
    """Refuse settings that a method has no use for: whoever gives them expects something of them.

    Raises:
        RecipeError: there is one; the message says what to take for it.
    """
    if method == PROJECTOR:
        if count := by_hand.get("refine"):
            raise RecipeError(
                f"--refine {count} is for the code of an encoder, which the {PROJECTOR} does without: take --steps {count}"
            )
        return
    if method == AUTO:  # It may become either kind; ``settle`` asks again.
        return
    if "space" in by_hand:
        raise RecipeError(
            f"--space {by_hand['space']} is of the {PROJECTOR}, and the method is {method}:"
            f" take --method {PROJECTOR}, or leave it out"
        )
    if "steps" in by_hand:
        raise RecipeError(
            f"--steps {by_hand['steps']} are of the {PROJECTOR}, and the method is {method}:"
            f" take --refine {by_hand['steps']} to polish its code by as many, or --method {PROJECTOR}"
        )
