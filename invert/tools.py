"""Which networks does a recipe need? Generator, inverter, distance and directions, loaded once for many photos."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from editing.directions import Direction
from generators.base import Generator, Identity
from generators.errors import LatentMismatch
from invert.edits import load_directions
from invert.inversion import Inverter
from invert.inverters import check_method, choose_method, load_inverter
from invert.perceptual import Perceptual, load_perceptual
from invert.presets import AUTO, DEFAULT_PRESET, PROJECTOR, STEPS, as_meant, refuse_unused, steps_of
from invert.recipe import METHOD_SETTINGS, Recipe
from pretrained.catalog import DEFAULT_GENERATOR
from pretrained.loading import load_generator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tools:
    """The loaded networks that every photo is worked on with."""

    generator: Generator
    inverter: Inverter
    perceptual: Perceptual
    directions: dict[str, Direction] = field(default_factory=dict)
    """By the names that the edits use."""


def load_tools(
    recipe: Recipe,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    notify: Callable[[str], None] = logger.warning,
) -> tuple[Tools, Recipe]:
    """Load every network that a recipe needs, for ``process_photo`` and ``edit_video``; torch's random numbers are seeded.

    Args:
        recipe: ``read_recipe`` and ``parse_recipe`` make one; what it leaves open has the defaults of the command line.
        device: where everything works.
        on_step: told every step of the projector or of tuning, and its loss terms.
        notify: told what is fetched, and what takes the place of LPIPS where that cannot be had.

    Returns:
        The networks, and the recipe with them, in which ``auto`` and a preset have become a method and its steps.

    Raises:
        UnknownName: no such method, preset, generator or direction.
        RecipeError: see ``settle``.
        LatentMismatch: they do not belong together, or the recipe was made with another generator of this name.
        EditError: the generator lacks a layer that an edit names.
        BrokenFile: a file cannot be read.
        DownloadFailed: a generator had to be fetched and could not be.
    """
    check_method(as_meant(recipe.method, recipe.settings)[0])
    torch.manual_seed(recipe.settings.get("seed", 0))
    name = recipe.generator or DEFAULT_GENERATOR
    dtype = getattr(torch, recipe.settings.get("dtype", "float32"))
    generator = load_generator(name, device, notify).compute_in(dtype)
    made_with = Identity(name, recipe.generator_sha256)
    if recipe.generator_sha256 and not made_with.fits(generator.identity):
        raise LatentMismatch(
            f"the recipe was made with the generator {made_with}, this is {generator.identity}: its result would be another;"
            f" give --generator {name} to use it all the same"
        )
    directions = load_directions(recipe.edits, generator)
    perceptual = load_perceptual(device, notify)
    recipe = settle(recipe, generator, notify)
    options = {key: value for key, value in recipe.settings.items() if key in METHOD_SETTINGS}
    assert recipe.method is not None
    inverter = load_inverter(recipe.method, generator, perceptual=perceptual, on_step=on_step, **options)
    return Tools(generator, inverter, perceptual, directions), recipe


def settle(recipe: Recipe, generator: Generator, notify: Callable[[str], None] = logger.warning) -> Recipe:
    """Say what a recipe means for a generator: the method and its steps, so that the recipe gives the same again.

    Where ``auto`` has steps for both kinds of method, each kind has its own.

    Raises:
        UnknownName: no such preset.
        RecipeError: there are steps for the other kind of method alone, or a space for an encoder.
        ForeignFile: nothing tells which of two methods' the encoder in the generator's file is.
    """
    method, settings = as_meant(recipe.method, recipe.settings)
    if method == AUTO:
        method = choose_method(generator, settings.pop("encoder", None), notify)
        others = "refine" if method == PROJECTOR else "steps"
        if steps_of(method) in settings:
            settings.pop(others, None)
        refuse_unused(method, {key: value for key, value in settings.items() if key in ("space", *STEPS)})
        settings.pop(others, None)  # None of them were asked for.
        settings = ({"space": "w_plus"} if method == PROJECTOR else {}) | settings
        method, settings = as_meant(method, {"preset": DEFAULT_PRESET} | settings)
    return replace(recipe, method=method, settings=settings)
