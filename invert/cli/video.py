"""``stylegan-invert video CLIP``: edit the face of a video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from invert.cli.options import choose_device, notify, recipe_options, resolve_recipe


@click.command(name="video", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("clip", type=click.Path(path_type=Path))
@recipe_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="A .mp4, a .gif, or a new folder for PNGs; by default CLIP-edited.mp4.",
)  # fmt: skip
@click.option(
    "--later-steps", type=click.IntRange(0), metavar="N",
    help="Projector steps of all frames but a shot's first; by default a tenth of its own.",
)  # fmt: skip
@click.option(
    "--smooth", default=2.0, show_default=True, type=click.FloatRange(0, 1000), metavar="FRAMES",
    help="How long codes are smoothed over time.",
)  # fmt: skip
@click.option("--no-smooth", is_flag=True, help="Take every frame by itself, crops too.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
def command(
    clip: Path,
    edits: tuple[str, ...],
    recipe_file: Path | None,
    output: Path | None,
    later_steps: int | None,
    smooth: float,
    no_smooth: bool,
    device: str,
    as_json: bool,
    **_: Any,  # The entries of a recipe; see resolve_recipe.
) -> None:
    """Edit one face of a video, frame by frame; crops and codes move smoothly, the sound is kept.

    \b
    stylegan-invert video clip.mp4 --edit age=+2 --paste change -o older.mp4
    """  # noqa: D301 (click reads \b as "keep these lines")
    from tqdm import tqdm

    from generators.errors import ToolkitError
    from invert.performance import keep_freed_memory
    from invert.tools import load_tools
    from invert.video import NO_SMOOTHING, Smoothing, edit_video, open_clip
    from pretrained.errors import BrokenFile, DownloadFailed

    chosen = choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    open_clip(clip)  # Fail before the networks are loaded.
    try:
        recipe = resolve_recipe(recipe_file, edits)
        notify(f"loading {recipe.method}, {recipe.generator} ...")
        tools, recipe = load_tools(recipe, chosen, notify=notify)
        if recipe.settings.get("tune"):
            raise click.UsageError(
                "frames share one generator, which is not tuned: leave out --tune, or take --preset better"
            )
    except (BrokenFile, DownloadFailed):
        raise  # No mistake in the command.
    except ToolkitError as error:
        raise click.UsageError(str(error)) from error
    smoothing = NO_SMOOTHING if no_smooth else Smoothing(code=smooth)
    target = output or clip.with_name(f"{clip.stem}-edited.mp4")
    bars: dict[str, Any] = {}

    def show(step: str, number: int) -> None:
        if step not in bars:
            total = bars["follow"].n if bars else None
            bars[step] = tqdm(total=total, desc=f"{clip.name}: {step}", unit="frame")
        bars[step].update(number - bars[step].n)

    try:
        report = edit_video(clip, target, tools, recipe, smoothing, later_steps, show)
    finally:
        for bar in bars.values():
            bar.close()
    with_face = f"{report['frames_with_face']} of {report['frames']} frames show the face"
    click.echo(f"{clip} -> {target}  ({with_face}, sound {report['sound']})", err=True)
    if as_json:
        click.echo(json.dumps(report, indent=2))
