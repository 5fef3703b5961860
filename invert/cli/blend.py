"""``stylegan-invert blend A B --mask hair``: change a part of a face, by another face or by an edit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invert.cli.options import notify
from invert.cli.sources import draw, load_sources, source_options, write_results

if TYPE_CHECKING:
    import numpy as np

    from generators.base import Generator
    from generators.latent import Latent
    from invert.blends import Settings
    from invert.sources import Source

MASK_HELP = (
    "Where: a part (eyes, left_eye, right_eye, brows, nose, mouth, lips, chin, jaw, cheeks, forehead, face, skin, hair,"
    " background), a painted square picture, vertical, horizontal, linear:DEGREES,START,END, radial:X,Y,RADIUS,CORE,"
    " rectangle:LEFT,TOP,RIGHT,BOTTOM; joined by +. Repeated for each further face."
)


@click.command(name="blend", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("faces", nargs=-1, required=True, metavar="A [B]...")
@click.option("--mask", "masks", multiple=True, metavar="MASK", help=MASK_HELP)
@click.option("--gradient", type=click.Choice(["vertical", "horizontal"]), help="Short for --mask vertical: B below A.")
@click.option(
    "--edit", "edits", multiple=True, metavar="NAME=STRENGTH", help="In place of B: an edit, under the mask alone."
)
@click.option(
    "--in", "how_blended", type=click.Choice(["styles", "features", "pixels"]), show_default="styles; features with --edit",
    help="styles: a stylemap, kept as latent.safetensors; features: joined inside the generator, strongest and most local;"
    " pixels: the drawn pictures.",
)  # fmt: skip
@click.option("--layers", default="all", show_default=True, metavar="LAYERS", help="That are blended as styles.")
@click.option(
    "--feather", default=0.03, show_default=True, metavar="SHARE", type=click.FloatRange(0, 0.5),
    help="How far a mask fades out, as a share of the picture's side.",
)  # fmt: skip
@click.option(
    "--paste", type=click.Choice(["face", "change"]), default="face", show_default=True,
    help="Where A is a photo: put the drawn face into it, or only what was changed.",
)  # fmt: skip
@click.option("--grid", "as_grid", is_flag=True, help="Blend every face of A with every face of B, as one sheet.")
@source_options
@click.option("-o", "--output", default="stylegan-invert-out/blend", show_default=True, type=click.Path(path_type=Path),
              metavar="DIR", help="Where the results go.")  # fmt: skip
def command(
    faces: tuple[str, ...],
    masks: tuple[str, ...],
    gradient: str | None,
    edits: tuple[str, ...],
    how_blended: str | None,
    layers: str,
    feather: float,
    paste: str,
    as_grid: bool,
    output: Path,
    **how: Any,
) -> None:
    """Change a part of face A: by faces B, C, ... or by an edit. Each is a photo, a saved latent (see mix), or seed:42.

    With an edit, A may hold many faces (seed:1-8): how much of the change stays in the mask is printed for each. Faces that
    come from photos are put back into them: result.jpg, or NAME-result.jpg with an edit.

    \b
    stylegan-invert blend anna.jpg ben.jpg --mask hair
    stylegan-invert blend anna.jpg --edit smile=+2 --mask mouth
    stylegan-invert blend seed:1-4 seed:11-14 --gradient vertical --grid
    """  # noqa: D301 (click reads \b as "keep these lines")
    from editing.composition import parse_edits
    from editing.layers import parse_layers
    from invert.blends import Settings

    specs = (*masks, *([gradient] if gradient else []))
    if not specs:
        raise click.UsageError("where? give --mask mouth, a painted --mask FILE, or --gradient vertical")
    if edits and (len(faces) > 1 or len(specs) > 1 or as_grid):
        raise click.UsageError("an edit takes one face (or seed:1-8) and one mask; join parts by +, as in eyes+brows")
    if not edits and len(specs) != len(faces) - 1:
        raise click.UsageError(f"{len(faces)} faces and {len(specs)} masks: expected one mask for each face but the first")
    if layers != "all" and how_blended in ("features", "pixels"):
        raise click.UsageError("--layers goes with --in styles; an edit's own layers are written smile@4-8=+2")
    wanted = parse_edits(edits)
    network, groups = load_sources([[face] for face in faces], **how)
    space = how_blended or ("features" if edits and layers == "all" else "styles")
    settings = Settings(space, parse_layers(layers, network.num_ws), feather)
    settings.check(network)
    report: dict[str, Any] = {"command": "blend", "masks": list(specs), "in": settings.space, "layers": layers}
    report |= {
        "feather": feather,
        "paste": paste,
        "edits": list(map(str, wanted)),
        "faces": [[s.name for s in group] for group in groups],
    }
    if as_grid:
        _grid(network, groups, specs, settings, how["predictor"], output, report)
    elif wanted:
        _edit(network, groups[0], wanted, specs[0], settings, how["predictor"], output, report)
    else:
        _blend(network, groups, specs, settings, how["predictor"], output, report)


def _blend(
    network: Generator, groups: list[Any], specs: tuple[str, ...], settings: Settings, predictor: Path | None,
    output: Path, report: dict[str, Any],
) -> None:  # fmt: skip
    """Lay faces over the first one."""
    from invert.blends import blend_faces
    from invert.panels import Panel, comparison
    from invert.photo import to_uint8

    if any(len(group) != 1 for group in groups):
        raise click.UsageError("each argument has to be one face; --grid blends all of A with all of B")
    latents = [group[0].latent for group in groups]
    images = [draw(network, latent) for latent in latents]
    made = blend_faces(network, latents, images, specs, settings, predictor)
    pictures = {chr(ord("a") + i): to_uint8(image) for i, image in enumerate(images)}
    pictures["mask"] = to_uint8(made.mask[0].expand(3, -1, -1) * 2 - 1)
    pictures["blended"] = to_uint8(made.image)
    panels = [Panel(pictures["a"], groups[0][0].name, "A")]
    panels += [
        Panel(pictures[chr(ord("b") + i)], group[0].name, spec)
        for i, (group, spec) in enumerate(zip(groups[1:], specs, strict=True))
    ]
    panels.append(Panel(pictures["blended"], f"blended in {settings.space}", _figure(made.share)))
    photos = [("result", _into_photo(groups[0][0], pictures["blended"], pictures["a"], report["paste"]))]
    report |= {"inside": made.share}
    write_results(output, "comparison", pictures, comparison(panels), network, made.latent, report, photos)
    click.echo(_figure(made.share))


def _edit(
    network: Generator, sources: list[Any], wanted: list[Any], spec: str, settings: Settings, predictor: Path | None,
    output: Path, report: dict[str, Any],
) -> None:  # fmt: skip
    """Edit a part of each face."""
    from dataclasses import replace

    from generators.errors import ToolkitError
    from invert.blends import edit_face
    from invert.edits import as_edit, draw_edited, load_directions
    from invert.panels import Panel, comparison
    from invert.photo import to_uint8
    from invert.pipeline import unique_stems

    # x.jpg and x.png of a folder are both called x, and "seed 1" becomes the file name of seed-1.jpg.
    sources = [replace(s, name=name) for s, name in zip(sources, unique_stems([s.name for s in sources]), strict=True)]
    stems = dict(zip(sources, unique_stems([s.name.replace(" ", "-") for s in sources]), strict=True))
    report |= {"faces": [[s.name for s in sources]]}
    directions = load_directions(wanted, network)

    def edit(latent: Latent) -> Latent:
        for entry in wanted:
            latent = as_edit(entry, directions[entry.name], network)(latent, entry.strength)
        return latent

    pictures: dict[str, Any] = {}
    shares: dict[str, float | None] = {}
    panels, codes, failed = [], [], []
    label = ", ".join(map(str, wanted))
    for source in sources:
        image = draw(network, source.latent)
        try:
            edited = edit(source.latent)
            everywhere = draw_edited(edited, network)[0].cpu()
            made = edit_face(network, source.latent, edited, image, spec, settings, predictor)
        except ToolkitError as error:
            failed.append(source.name)
            notify(f"error: {source.name}: {error}")
            continue
        shares[source.name] = made.share
        codes.append(made.latent)
        before, after, whole = (to_uint8(picture) for picture in (image, made.image, everywhere))
        pictures |= {f"{stems[source]}-before": before, f"{stems[source]}-after": after}
        panels += [Panel(before, source.name), Panel(whole, label, "everywhere"), Panel(after, spec, _figure(made.share))]
        click.echo(f"{source.name}: {_figure(made.share)}")
    if not shares:
        raise click.ClickException("no face could be edited")
    values = sorted(share for share in shares.values() if share is not None)
    if len(values) > 1:
        mean = sum(values) / len(values)
        click.echo(f"mean {mean:.1%}, least {values[0]:.1%} of the change inside the mask + 5 %, {len(values)} faces")
    only = codes[0] if len(codes) == 1 else None
    photos = (
        (f"{stem}-result", _into_photo(source, pictures[f"{stem}-after"], pictures[f"{stem}-before"], report["paste"]))
        for source, stem in stems.items()
        if source.name in shares
    )
    sheet = comparison(panels, columns=3)
    report |= {"inside": shares, "failed": failed}
    write_results(output, "comparison", pictures, sheet, network, only, report, photos)
    if failed:
        raise click.exceptions.Exit(1)


def _grid(
    network: Generator, groups: list[Any], specs: tuple[str, ...], settings: Settings, predictor: Path | None,
    output: Path, report: dict[str, Any],
) -> None:  # fmt: skip
    """Blend all of A with all of B under one mask."""
    from tqdm import tqdm

    from invert.blends import blend_faces
    from invert.photo import to_uint8
    from invert.sheets import grid

    if len(groups) != 2:
        raise click.UsageError("a grid has two sides: give A and B, each of which may be several faces, as in seed:1-4")
    images = [[draw(network, source.latent) for source in group] for group in groups]
    cells: list[list[Any]] = []
    with tqdm(total=len(images[0]) * len(images[1]), unit="face") as bar:
        for of_a, image_a in zip(groups[0], images[0], strict=True):
            cells.append([])
            for of_b, image_b in zip(groups[1], images[1], strict=True):
                made = blend_faces(network, [of_a.latent, of_b.latent], [image_a, image_b], specs, settings, predictor)
                cells[-1].append(to_uint8(made.image))
                bar.update()
    heads = [[to_uint8(image) for image in group] for group in images]
    sheet = grid(heads[1], heads[0], cells, titles=(f"B, where the mask ({specs[0]}) is set", "A"))
    write_results(output, "grid", {}, sheet, network, None, report)


def _into_photo(source: Source, after: np.ndarray, before: np.ndarray, paste: str) -> np.ndarray | None:
    """Put a changed face, or what changed of it, back into its photo, where it comes from one."""
    from invert.photo import to_tensor
    from invert.sources import into_photo

    return into_photo(source, to_tensor(after), to_tensor(before) if paste == "change" else None)


def _figure(share: float | None) -> str:
    return "nothing changed" if share is None else f"{share:.1%} of the change inside the mask + 5 %"
