"""``stylegan-invert [run] PHOTO...``: the main job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invert.cli.options import choose_device, device_option, generator_option, notify
from pretrained.catalog import DEFAULT_GENERATOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from invert.pipeline import Tools
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


@click.command(name="run", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path), metavar="PHOTO...")
@click.option("--demo", is_flag=True, help="Take scikit-image's public-domain portrait instead of a photo.")
@click.option(
    "--method", default="stylemap", show_default=True, metavar="NAME", help="stylemap, projector, or an encoder's file."
)
@click.option(
    "--refine", default=0, metavar="N", type=click.IntRange(0), help="Polish an encoder's code by N projector steps."
)
@click.option("--steps", default=100, show_default=True, metavar="N", type=click.IntRange(1), help="Steps of the projector.")
@click.option("--space", default="w_plus", show_default=True, metavar="SPACE", help="Of the projector: w or w_plus.")
@click.option(
    "--edit",
    "edits",
    multiple=True,
    metavar="NAME[@LAYERS]=STRENGTH",
    help="Such as age=+2 or smile@coarse=-1; several compose in order.",
)
@click.option(
    "--recipe",
    "recipe_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A .toml or .json, or any earlier result, to do again; options given beside it win, edits are added.",
)
@click.option("--face", default="largest", show_default=True, type=FaceChoice(), help="largest, all, or a number from 0.")
@click.option("--no-align", "is_aligned", is_flag=True, help="The photos are aligned faces already.")
@click.option(
    "--predictor",
    type=click.Path(path_type=Path, exists=True),
    metavar="FILE",
    help="dlib's 68-point model, for exact FFHQ crops.",
)
@click.option(
    "--paste",
    type=click.Choice(["face", "change"]),
    default="face",
    show_default=True,
    help="Put the drawn face into the photo, or only what the edits changed.",
)
@generator_option
@click.option(
    "-o", "--output", default="stylegan-invert-out", show_default=True, type=click.Path(path_type=Path), metavar="DIR",
    help="Where the results go.",
)  # fmt: skip
@device_option
@click.option("--seed", default=0, show_default=True, metavar="N", help="Of everything random.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON on standard output.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and stop.")
def command(
    photos: tuple[Path, ...],
    demo: bool,
    edits: tuple[str, ...],
    recipe_file: Path | None,
    output: Path,
    device: str,
    as_json: bool,
    dry_run: bool,
    **_: Any,  # The entries of a recipe; see resolve_recipe.
) -> None:
    """Invert and edit the faces of photos (files, folders, or - for standard input).

    Each face gets DIR/STEM/ with comparison.png (look at this first), aligned.png, inverted.png, edited.png, result.jpg
    (the whole photo with the face put back), latent.safetensors and report.json. A bad photo is reported, the rest go on;
    the exit code is then 1.

    An edit is NAME[@LAYERS]=[raw:]STRENGTH: layers by level or number (coarse, 0-3,7), raw for a length in W instead of
    standard deviations. --recipe edited.png does again what made that picture.
    """
    if demo == bool(photos):
        raise click.UsageError("give one photo or more, or --demo" if not photos else "give either photos or --demo")
    import torch

    from generators.errors import ToolkitError
    from invert.errors import OutputError
    from invert.performance import keep_freed_memory
    from invert.photo import demo_photo, find_photos
    from invert.pipeline import process_photo, unique_stems
    from pretrained.errors import BrokenFile, DownloadFailed

    chosen = choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    try:
        recipe = resolve_recipe(recipe_file, edits)
        sources = [demo_photo()] if demo else find_photos(photos)
        if dry_run:
            _echo_plan(sources, recipe, output, str(chosen))
            return
        _check_writable(output)
        progress = Progress()
        notify(f"loading {recipe.method}, {recipe.generator} ...")
        torch.manual_seed(recipe.settings["seed"])
        tools = load_tools(recipe, chosen, progress.on_step)
    except (BrokenFile, DownloadFailed):
        raise  # No mistake in the command.
    except ToolkitError as error:
        raise click.UsageError(str(error)) from error
    reports, failures = [], []
    for number, (source, stem) in enumerate(zip(sources, unique_stems(sources), strict=True)):
        progress.begin(f"{source.name} ({number + 1}/{len(sources)})", recipe.settings.get(_steps_of(recipe.method), 0))
        try:
            found = process_photo(source, output, tools, recipe, stem)
        except OutputError:
            raise
        except ToolkitError as error:
            progress.end()
            failures.append((source, error))
            click.echo(f"error: {error}", err=True)
            continue
        progress.end()
        reports += found
        for report in found:
            _echo_report(report)
        if any(report["interrupted"] for report in found):
            click.echo("stopped by the user; the best code so far was kept", err=True)
            break
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    if failures:
        click.echo(f"{len(failures)} of {len(sources)} photos failed:", err=True)
        for failed, reason in failures:
            click.echo(f"  {failed}: {type(reason).__name__}", err=True)
        sys.exit(1)
    if any(report["interrupted"] for report in reports):
        sys.exit(130)


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


def resolve_recipe(recipe_file: Path | None, edits: tuple[str, ...]) -> Recipe:
    """Put together what the running command is to do: its options where they were typed, else the recipe, else defaults.

    For a generator of the catalogue the edits' names are checked here, before anything is fetched; for a file once it is
    loaded.
    """
    from dataclasses import replace

    from editing.composition import parse_edits
    from invert.edits import check_name
    from invert.recipe import Recipe, read_recipe
    from pretrained.catalog import CATALOG

    context = click.get_current_context()
    recipe = Recipe() if recipe_file is None else read_recipe(recipe_file)
    typed = {
        name: value
        for name, value in context.params.items()
        if recipe_file is None or context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    fields = ("method", "face", "is_aligned", "predictor", "paste", "generator")
    recipe = replace(recipe, **{name: typed[name] for name in fields if name in typed})
    if "generator" in typed:
        recipe = replace(recipe, generator_sha256="")
    generator = recipe.generator or DEFAULT_GENERATOR
    settings = context.params | recipe.settings | typed
    names = (*(("space",) if recipe.method == "projector" else ()), _steps_of(recipe.method), "seed")
    specs = (*recipe.edits, *parse_edits(edits))
    if generator in CATALOG:
        specs = tuple(check_name(spec, generator) for spec in specs)
    return replace(recipe, generator=generator, settings={name: settings[name] for name in names}, edits=specs)


def _steps_of(method: str) -> str:
    """Name the setting that says how many steps a method takes."""
    return "steps" if method == "projector" else "refine"


def load_tools(recipe: Recipe, device: Any, on_step: Callable[[int, dict[str, float]], None] | None = None) -> Tools:
    """Load every network that a recipe needs.

    Raises:
        UnknownName: no such method, generator or direction.
        LatentMismatch: they do not belong together, or the recipe was made with another generator of this name.
    """
    from generators.base import Identity
    from generators.errors import LatentMismatch, UnknownName
    from invert.edits import load_directions
    from invert.inverters import load_inverter, method_names
    from invert.perceptual import load_perceptual
    from invert.pipeline import Tools
    from pretrained.loading import load_generator

    if recipe.method not in method_names() and not Path(recipe.method).is_file():
        raise UnknownName("method", recipe.method, method_names())  # Before anything is fetched.
    generator = recipe.generator or DEFAULT_GENERATOR
    network = load_generator(generator, device, notify)
    made_with = Identity(generator, recipe.generator_sha256)
    if recipe.generator_sha256 and not made_with.fits(network.identity):
        raise LatentMismatch(
            f"the recipe was made with the generator {made_with}, this is {network.identity}: its result would be another;"
            f" give --generator {generator} to use it all the same"
        )
    directions = load_directions(recipe.edits, network)
    perceptual = load_perceptual(device, notify)
    options = {key: value for key, value in recipe.settings.items() if key in ("space", "steps", "refine")}
    inverter = load_inverter(recipe.method, network, perceptual=perceptual, on_step=on_step, **options)
    return Tools(network, inverter, perceptual, directions)


def _check_writable(output: Path) -> None:
    """Fail before the work, not after it."""
    import tempfile

    from invert.errors import OutputError

    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise OutputError(
            f"{output} cannot be written to ({error.strerror}): choose another folder with --output"
        ) from error


def _echo_plan(sources: list[Path], recipe: Recipe, output: Path, device: str) -> None:
    plan = {"photos": [str(source) for source in sources], **recipe.as_dict(), "output": str(output), "device": device}
    plan["edits"] = [str(spec) for spec in recipe.edits]
    click.echo(json.dumps(plan, indent=2))


def _echo_report(report: dict[str, Any]) -> None:
    metrics, seconds = report["metrics"], sum(report["seconds"].values())
    figures = f"{metrics['perceptual']['backbone']} {metrics['perceptual']['value']:.3f}, MSE {metrics['mse']['value']:.4f}"
    click.echo(f"{report['photo']} -> {Path(report['folder']) / 'comparison.png'}  ({figures}, {seconds:.1f} s)", err=True)
