"""``stylegan-invert [run] PHOTO...``: the main job."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invert.cli.options import Progress, choose_device, notify, recipe_options, resolve_recipe, total_steps

if TYPE_CHECKING:
    from invert.recipe import Recipe


@click.command(name="run", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path), metavar="PHOTO...")
@click.option("--demo", is_flag=True, help="Take scikit-image's public-domain portrait instead of a photo.")
@recipe_options
@click.option("--no-align", "is_aligned", is_flag=True, help="The photos are aligned faces already.")
@click.option(
    "-o", "--output", default="stylegan-invert-out", show_default=True, type=click.Path(path_type=Path), metavar="DIR",
    help="Where the results go.",
)  # fmt: skip
@click.option("--compile", "compiled", is_flag=True,
              help="Compile the generator first: a minute or two, for many photos (see doctor --benchmark).")  # fmt: skip
@click.option("--skip-done", is_flag=True,
              help="Leave out photos whose results are in DIR already, by the same recipe; go on after a stop.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON on standard output.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and stop.")
def command(
    photos: tuple[Path, ...],
    demo: bool,
    edits: tuple[str, ...],
    recipe_file: Path | None,
    output: Path,
    device: str,
    compiled: bool,
    skip_done: bool,
    as_json: bool,
    dry_run: bool,
    **_: Any,  # The entries of a recipe; see resolve_recipe.
) -> None:
    """Invert and edit the faces of photos (files, folders, or - for standard input).

    Each face gets DIR/STEM/ with comparison.png (look at this first), aligned.png, inverted.png, edited.png, result.jpg
    (the whole photo with the face put back), latent.safetensors and report.json. A bad photo is reported, the rest go on;
    the exit code is then 1.

    An edit is NAME[@LAYERS]=[raw:]STRENGTH[@MASK]. Layers go by level or number (coarse, 0-3,7); raw is a length in W
    instead of standard deviations; a mask is a part of the face (mouth, eyes+brows, hair), a shape (rectangle:0,0.5,1,1) or
    a file painted over aligned.png. --recipe edited.png does again what made that picture.
    """
    if demo == bool(photos):
        raise click.UsageError("give one photo or more, or --demo" if not photos else "give either photos or --demo")
    _check_some_exist(photos)
    _refuse_codes(photos)
    from generators.errors import ToolkitError
    from invert.errors import OutputError
    from invert.performance import compile_synthesis, keep_freed_memory
    from invert.photo import demo_photo, find_photos, photo_stem, what_is_left_out
    from invert.pipeline import earlier_reports, process_photo, unique_stems
    from invert.tools import load_tools
    from pretrained.errors import BrokenFile, DownloadFailed

    chosen = choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    try:
        recipe = resolve_recipe(recipe_file, edits)
        sources = [demo_photo()] if demo else find_photos(photos)
        for note in filter(None, map(what_is_left_out, dict.fromkeys(photos))):
            notify(note)
        if dry_run:
            _echo_plan(sources, recipe, output, str(chosen))
            return
        _check_writable(output)
        progress = Progress()
        notify(f"loading {recipe.method}, {recipe.generator} ...")
        tools, recipe = load_tools(recipe, chosen, progress.on_step, notify)
        if compiled:
            compile_synthesis(tools.generator)
    except (BrokenFile, DownloadFailed):
        raise  # No mistake in the command.
    except ToolkitError as error:
        raise click.UsageError(str(error)) from error
    reports, failures, num_done = [], [], 0
    stems = unique_stems([photo_stem(source) for source in sources], several_faces=recipe.face == "all")
    for number, (source, stem) in enumerate(zip(sources, stems, strict=True)):
        progress.begin(f"{source.name} ({number + 1}/{len(sources)})", total_steps(recipe))
        try:
            if skip_done and (done := earlier_reports(source, output, tools, recipe, stem)):
                reports += done
                num_done += 1
                continue
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
    if num_done:
        notify(f"left out {num_done} of {len(sources)} photos: their results are in {output} already, by the same recipe")
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    if failures:
        click.echo(f"{len(failures)} of {len(sources)} photos failed:", err=True)
        for failed, reason in failures:
            click.echo(f"  {failed}: {type(reason).__name__}", err=True)
        sys.exit(1)
    if any(report["interrupted"] for report in reports):
        sys.exit(130)


def _check_some_exist(photos: tuple[Path, ...]) -> None:
    """Refuse what cannot be meant, before anything is loaded for it: a mistyped command, or nothing that there is."""
    from invert.cli.main import VERBS

    missing = [photo for photo in photos if _is_missing(photo)]
    if missing and missing[0] == photos[0] and not photos[0].suffix:
        for verb in difflib.get_close_matches(str(photos[0]), VERBS, n=1):
            raise click.UsageError(f"{photos[0]}: no such file or folder; did you mean the command {verb}?")
    if missing and len(missing) == len(photos):
        raise click.UsageError(f"{', '.join(map(str, missing))}: no such file or folder")


def _is_missing(photo: Path) -> bool:
    try:
        return photo != Path("-") and not photo.exists() and not str(photo).startswith("seed:")  # See _refuse_codes.
    except OSError:
        return False  # Reading it says why.


def _refuse_codes(photos: tuple[Path, ...]) -> None:
    """Say what seeds and saved latents are for, before anything is loaded: as photos they would be unknown data."""
    from invert.sources import is_code

    for photo in photos:
        if is_code(str(photo)):
            raise click.UsageError(
                f"{photo} is a code, not a photo: seeds and saved latents are for mix, interpolate and blend, as in"
                f" stylegan-invert blend {photo} --edit smile=+1 --mask face"
            )


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
    if (similarity := metrics["identity"]["value"]) is not None:
        figures += f", identity {similarity:.2f}"
    note = f"; dlib sees another person{_how_to_come_closer(report['settings'])}" if report["same_person"] is False else ""
    click.echo(
        f"{report['photo']} -> {Path(report['folder']) / 'comparison.png'}  ({figures}, {seconds:.1f} s{note})", err=True
    )


def _how_to_come_closer(settings: dict[str, Any]) -> str:
    """Name the next preset; nothing where the generator is tuned already."""
    if settings.get("tune"):
        return ""
    return f": try --preset {'best' if settings.get('refine') or settings.get('steps') else 'better'}"
