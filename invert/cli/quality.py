"""``stylegan-invert quality``: figures of a generator."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click

from invert.cli.options import SEED, choose_device, device_option, generator_option, notify

if TYPE_CHECKING:
    import torch

    from invert.dataset import FaceFile
    from invert.quality import Figure


PhotoKind: TypeAlias = Literal["auto", "aligned", "photos", "none"]


@click.command(name="quality", context_settings={"help_option_names": ["-h", "--help"]})
@generator_option
@click.option(
    "--metrics", default="fid,kid,pr,ppl-w-end", show_default=True, metavar="A,B",
    help="fid, kid, pr, ppl-{z,w}-{full,end}[-crop], separability-{z,w}, eq-t, eq-t-frac, eq-r.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), metavar="DIR|ZIP", help="Real photos; fid, kid and pr need them."
)
@click.option(
    "--faces",
    "kind",
    type=click.Choice(["auto", "aligned", "photos", "none"]),
    default="auto",
    show_default=True,
    help="Of the photos. aligned: FFHQ crops; photos: the largest face is cut out; none: pictures of anything, of which the"
    " middle square counts, as for generators of cars; auto: looks at a few.",
)
@click.option("--split", metavar="NAME", help="Of the photos: only those that attributes.csv puts into this split.")
@click.option(
    "--samples", default=1000, show_default=True, metavar="N", type=click.IntRange(1),
    help="Pictures or paths to draw; papers take 50,000 and more.",
)  # fmt: skip
@click.option(
    "--features", default="inception", show_default=True, metavar="NAME", help="Of fid, kid and pr: inception, squeezenet."
)
@click.option("--lpips", default="vgg", show_default=True, metavar="NAME", help="Of ppl: vgg, alex, squeeze.")
@click.option("--truncation", default=1.0, show_default=True, metavar="PSI", type=click.FloatRange(0, 1))
@click.option("--batch", default=4, show_default=True, metavar="N", type=click.IntRange(1), help="Pictures drawn at once.")
@click.option("--seed", default=0, show_default=True, metavar="N", type=SEED)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON instead of the table.")
def command(
    generator: str,
    metrics: str,
    data: Path | None,
    kind: PhotoKind,
    split: str | None,
    samples: int,
    features: str,
    lpips: str,
    truncation: float,
    batch: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure a generator: FID, KID, precision and recall, path lengths, separability, equivariance.

    Each figure names its backbone; one that cannot be measured here says why, and the rest goes on. fid, kid and pr compare
    photos and samples at 256 px, papers in full size: compare such figures with each other only.

    \b
    stylegan-invert quality --data photos/ --samples 5000
    stylegan-invert quality --metrics ppl-w-end,ppl-z-full --lpips squeeze --samples 500
    stylegan-invert quality --generator stylegan3-t.pkl --metrics eq-t,eq-r
    """  # noqa: D301 (click reads \b as "keep these lines")
    from tqdm import tqdm

    from generators.errors import ToolkitError
    from invert.dataset import find_faces
    from invert.performance import keep_freed_memory
    from invert.quality import Settings, check_metrics, check_networks, measure_generator, table
    from pretrained.loading import load_generator

    wanted = [key.strip() for key in metrics.split(",") if key.strip()]
    if not wanted:
        raise click.UsageError("--metrics names nothing to measure; expected names, as in fid,kid")
    if split is not None and data is None:
        raise click.UsageError(f"--split {split} is of photos, and there are none: name them with --data")
    settings = Settings(samples, features, lpips, truncation, seed, batch)
    try:
        check_metrics(wanted)
        check_networks(settings)
    except ToolkitError as error:
        raise click.UsageError(str(error)) from error
    chosen = choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    photos = None if data is None else _photos(find_faces([data], split), batch, chosen, kind)
    with tqdm(unit=" pictures") as bar:

        def show(what: str, done: int) -> None:
            bar.set_description_str(what, refresh=False)  # Without a total, the bar adds a colon itself.
            bar.update(done - bar.n)

        figures = list(measure_generator(load_generator(generator, chosen, notify), wanted, settings, photos, show))
    click.echo(json.dumps([_as_json(figure) for figure in figures]) if as_json else table(figures))
    if all(figure.value is None for figure in figures):
        sys.exit(1)


def _photos(faces: list[FaceFile], batch: int, device: torch.device, kind: PhotoKind = "auto") -> Iterator[torch.Tensor]:
    """Give batches of pictures in [-1, 1], as large as they are; what cannot be read is told and left out."""
    import torch

    from generators.errors import ToolkitError
    from invert.dataset import Reader
    from invert.evaluation.faces import kind_of, read_face, read_square
    from invert.training import from_uint8

    kind = kind_of(faces) if kind == "auto" else kind
    advice = "" if kind == "none" else "; if these are no pictures of faces, take --faces none"
    waiting: list[torch.Tensor] = []
    with Reader() as reader:
        for face in faces:
            try:
                pixels = read_square(reader, face) if kind == "none" else read_face(reader, face, kind, resolution=None)
                image = from_uint8(pixels[None])
            except ToolkitError as error:
                notify(f"left out: {error}{advice}")
                advice = ""
                continue
            if waiting and (len(waiting) == batch or waiting[0].shape != image.shape):
                yield torch.cat(waiting).to(device)
                waiting = []
            waiting.append(image)
    if waiting:
        yield torch.cat(waiting).to(device)


def _as_json(figure: Figure) -> dict[str, Any]:
    """Give JSON values, whose note says where the figure is infinite: as those of perfect generators are."""
    from invert.json_values import plain

    infinite = figure.value is not None and math.isinf(figure.value)
    note = f"infinite: nothing differs; {figure.note}" if infinite else figure.note
    entries: dict[str, Any] = plain(asdict(figure.description) | {"value": figure.value, "note": note})
    return entries
