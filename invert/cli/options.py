"""Options that several verbs share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invert.presets import (
    AUTO,
    DEFAULT_METHOD,
    DEFAULT_PRESET,
    DTYPES,
    MAX_LOOKS,
    PRESETS,
    PROJECTOR,
    STEPS,
    as_meant,
    refuse_unused,
    steps_of,
)
from pretrained.catalog import DEFAULT_GENERATOR

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from invert.recipe import Recipe


class FaceChoice(click.ParamType):  # type: ignore[type-arg]
    """``largest``, ``all`` or a number."""

    name = "face"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """Read the value."""
        if value in ("largest", "all"):
            return str(value)
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r}: expected largest, all or a number from 0 (the largest face)", param, ctx)
        if number < 0:
            self.fail(f"{number}: faces are counted from 0, the largest", param, ctx)
        return number


generator_option = click.option(
    "--generator",
    default=DEFAULT_GENERATOR,
    show_default=True,
    metavar="NAME|FILE",
    help="A name of 'models list', or a file.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps."
)
space_option = click.option(
    "--space",
    type=click.Choice(["w", "w_plus", "stylemap"]),
    default="w_plus",
    show_default=True,
    help="Of the projector: one style vector for all layers, one for each, or maps.",
)
DTYPE = click.Choice(list(DTYPES))
dtype_option = click.option(
    "--dtype",
    type=DTYPE,
    default="float32",
    show_default=True,
    help="That the generator computes in; bfloat16 is faster and 43 dB from float32.",
)

SEED = click.IntRange(0, 2**63 - 1)
"""What torch and numpy both take."""

_RECIPE_OPTIONS = (
    click.option(
        "--method",
        default=DEFAULT_METHOD,
        show_default=True,
        metavar="NAME",
        help="auto, stylemap-e, stylemap, restyle, e4e, psp, projector, or an encoder's file.",
    ),
    click.option(
        "--preset",
        default=DEFAULT_PRESET,
        show_default=f"none; {DEFAULT_PRESET} with --method {AUTO}",
        type=click.Choice(list(PRESETS)),
        help="Of --method auto, or the steps of another one; seconds are those of two CPU cores. "
        + " ".join(f"{name}: {preset.about}." for name, preset in PRESETS.items()),
    ),
    click.option(
        "--encoder",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="The method's encoder, where it is another one than ships or lies in the generator's file.",
    ),
    click.option(
        "--looks",
        metavar="N",
        show_default="the encoder's own: stylemap-e and restyle 3, published restyle 5, others 1",
        type=click.IntRange(1, MAX_LOOKS),
        help="Let the encoder look N times: at the face, and at what was drawn so far, to correct the code.",
    ),
    click.option(
        "--refine", default=0, metavar="N", type=click.IntRange(0), help="Polish an encoder's code by N projector steps."
    ),
    click.option(
        "--tune",
        default=0,
        metavar="N",
        type=click.IntRange(0),
        help="Tune the generator itself to each face by N steps afterwards (PTI).",
    ),
    click.option(
        "--steps", default=100, show_default=True, metavar="N", type=click.IntRange(1), help="Steps of the projector."
    ),
    space_option,
    click.option(
        "--edit",
        "edits",
        multiple=True,
        metavar="NAME=STRENGTH",
        help="Such as age=+2, smile@coarse=-1 or smile=2@mouth; several compose in order.",
    ),
    click.option(
        "--recipe",
        "recipe_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A .toml or .json, or any earlier result, to do again; options given beside it win, edits are added.",
    ),
    click.option(
        "--face", default="largest", show_default=True, type=FaceChoice(), help="largest, all, or a number from 0."
    ),
    click.option(
        "--predictor",
        type=click.Path(path_type=Path, exists=True),
        metavar="FILE",
        help="dlib's 68-point model, for exact FFHQ crops.",
    ),
    click.option(
        "--paste",
        type=click.Choice(["face", "change"]),
        default="face",
        show_default=True,
        help="Put the drawn face into the photo, or only what the edits changed.",
    ),
    generator_option,
    dtype_option,
    device_option,
    click.option("--seed", default=0, show_default=True, metavar="N", type=SEED, help="Of everything random."),
)


def recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say what is done to a face; ``resolve_recipe`` puts them together."""
    for option in reversed(_RECIPE_OPTIONS):
        command = option(command)
    return command


def notify(message: str) -> None:
    """Tell the user something, beside the results."""
    click.echo(message, err=True)


def choose_device(name: str) -> torch.device:
    """Turn a name into a device; ``auto`` takes a GPU where there is one."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise click.UsageError(f"--device {name}: {reason}; expected auto, cpu, or a GPU that this machine has") from error
    return device


def resolve_recipe(recipe_file: Path | None, edits: tuple[str, ...]) -> Recipe:
    """Put together what the running command is to do: its options where they were typed, else the recipe, else defaults.

    For a generator of the catalogue the edits' names are checked here, before anything is fetched; for a file once it is
    loaded. What is typed has to mean something to the method; what a recipe says need not.
    """
    from dataclasses import replace

    from editing.composition import parse_edits
    from invert.edits import check_name
    from invert.inverters import check_method
    from invert.recipe import SETTINGS, Recipe, read_recipe
    from pretrained.catalog import CATALOG

    context = click.get_current_context()
    recipe = Recipe() if recipe_file is None else read_recipe(recipe_file)
    by_hand = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    is_opened = by_hand.get("method") == AUTO and recipe.method not in (None, AUTO)
    # Whoever types these asks for a preset's steps, not for what the recipe had for its own method.
    outdone = {*(STEPS if is_opened or "preset" in by_hand else ()), *(("space",) if is_opened else ())}
    given = {name: value for name, value in recipe.settings.items() if name not in outdone}
    given |= {name: value for name, value in by_hand.items() if name in SETTINGS}
    fields = ("method", "face", "is_aligned", "predictor", "paste", "generator")
    recipe = replace(recipe, **{name: by_hand[name] for name in fields if name in by_hand})
    if "generator" in by_hand:
        recipe = replace(recipe, generator_sha256="")
    generator = recipe.generator or DEFAULT_GENERATOR
    method, given = as_meant(recipe.method, given)
    check_method(method)
    refuse_unused(method, {name: by_hand[name] for name in ("space", *STEPS) if name in by_hand})
    settings = {name: value for name, value in context.params.items() if name not in by_hand} | given
    names: tuple[str, ...]
    if method == AUTO:
        names = ("preset", *(name for name in ("space", *STEPS) if name in given))
    else:
        names = (*(("space",) if method == PROJECTOR else ()), steps_of(method), *(("tune",) if settings["tune"] else ()))
    names = ("seed", "dtype", *names, *(name for name in ("looks", "encoder") if settings.get(name)))
    specs = (*recipe.edits, *parse_edits(edits))
    if generator in CATALOG:
        specs = tuple(check_name(spec, generator) for spec in specs)
    settings = {name: settings[name] for name in names}
    return replace(recipe, method=method, generator=generator, settings=settings, edits=specs)


def total_steps(recipe: Recipe) -> int:
    """Return how many optimiser steps a face takes."""
    return sum(int(recipe.settings.get(name, 0)) for name in STEPS)


class Progress:
    """A bar over the projector's steps, with the loss; nothing where no step is taken."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.label, self.total = "", 0

    def begin(self, label: str, total: int) -> None:
        """Start with a photo."""
        self.label, self.total = label, total

    def on_step(self, step: int, terms: dict[str, float]) -> None:
        """Show a step."""
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, desc=self.label, unit="step", leave=False, file=sys.stderr)
        self.bar.set_postfix_str(f"loss {terms['loss']:.4f}", refresh=False)
        self.bar.update(min(step, self.total) - self.bar.n)

    def end(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
