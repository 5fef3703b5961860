"""``stylegan-invert evaluate DATA``: figures over many aligned faces."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from invert.cli.options import choose_device, device_option, generator_option, notify


@click.command(name="evaluate", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", type=click.Path(path_type=Path, exists=True), metavar="DIR|ZIP")
@click.option(
    "--methods",
    default="stylemap",
    show_default=True,
    metavar="A,B",
    help="Encoders (with +N: N refining steps), projector.",
)
@click.option("--split", metavar="NAME", help="Only the faces that attributes.csv beside them puts into this split.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Only the first N faces.")
@click.option("--steps", default=100, show_default=True, metavar="N", help="Steps of the projector.")
@generator_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print every face's figures as JSON instead of the table.")
def command(
    data: Path, methods: str, split: str | None, limit: int | None, steps: int, generator: str, device: str, as_json: bool
) -> None:
    """Measure how well methods reconstruct aligned faces (256 px, [-1, 1]).

    \b
    stylegan-invert evaluate faces/ --methods stylemap,stylemap+30,projector
    """  # noqa: D301 (click reads \b as "keep these lines")
    from tqdm import tqdm

    from generators.errors import ToolkitError
    from invert.dataset import read_faces
    from invert.evaluation import evaluate, table
    from invert.inverters import load_inverter
    from invert.perceptual import load_perceptual
    from invert.performance import keep_freed_memory
    from pretrained.loading import load_generator

    keep_freed_memory()
    chosen = choose_device(device)
    faces, names = read_faces(data, split, limit=limit)
    network, perceptual = load_generator(generator, chosen, notify), load_perceptual(chosen, notify)
    inverters = {}
    for spec in methods.split(","):
        method, _, refine = spec.partition("+")
        if refine and not refine.isdigit():
            raise ToolkitError(f"method {spec!r}: expected a number of refining steps behind '+', as in stylemap+30")
        inverters[spec] = load_inverter(method, network, steps=steps, refine=int(refine or 0), perceptual=perceptual)
    with tqdm(total=len(inverters) * len(faces), unit="face") as bar:
        rows = evaluate(inverters, faces, names, perceptual, str(chosen), lambda row: bar.update())
    click.echo(json.dumps([asdict(row) for row in rows]) if as_json else table(rows, perceptual.name))
