"""``stylegan-invert directions``: the edits that there are, learning more of them, and measuring what they do."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invert.cli.options import SEED, choose_device, device_option, generator_option, notify
from pretrained.catalog import DEFAULT_GENERATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from editing.directions import Direction
    from editing.unsupervised import Components
    from generators.base import Generator
    from invert.attributes import Scorer
    from invert.directions import Learnt, Recipe

samples_option = click.option(
    "--samples", default=1500, show_default=True, metavar="N", type=click.IntRange(50), help="Faces to draw and score."
)
seed_option = click.option("--seed", default=0, show_default=True, metavar="N", type=SEED, help="Of everything random.")
folder_option = click.option(
    "--samples-dir", type=click.Path(path_type=Path), metavar="DIR",
    help="Keeps drawn faces and their scores, for the next call.  [default: OUTPUT/samples]",
)  # fmt: skip
output_option = click.option(
    "-o", "--output", default="directions", show_default=True, type=click.Path(path_type=Path), metavar="DIR",
    help="Gets NAME.safetensors, for --edit.",
)  # fmt: skip


@click.group(name="directions", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List edit directions, learn new ones, and measure what they do."""


@command.command(name="list")
@click.option("--generator", default=DEFAULT_GENERATOR, show_default=True, metavar="NAME", help="Whose directions.")
def list_directions(generator: str) -> None:
    """List the directions that ship, and what each does."""
    from generators.errors import UnknownName
    from pretrained.catalog import CATALOG
    from pretrained.directions import ALIASES, direction_names, load_direction

    names = direction_names(generator)
    if not names:
        if generator not in CATALOG and not Path(generator).is_file():
            raise UnknownName("generator (nor is there such a file)", generator, CATALOG)
        notify(
            f"no directions ship for {generator}: learn some with"
            f" 'stylegan-invert directions train --generator {generator}', or by ganspace or sefa, which need no scorers"
        )
    for name in names:
        direction = load_direction(name, generator)
        aliases = ", ".join(alias for alias, target in ALIASES.items() if target == name)
        click.echo(f"{name}{f' ({aliases})' if aliases else ''}  +: {direction.sign}\n    {_evidence(direction)}")


def _evidence(direction: Direction) -> str:
    quality = direction.quality
    step = quality.get("entanglement", {}).get(quality.get("attribute"))
    unit = "" if step is None else f", {step:.2f} SD"
    if "score_slope" in quality:
        unit += f" = {quality['score_slope'] * direction.unit:.3g} {quality['score_unit']}"
    parts = [f"strength 1 = {direction.unit:.2f} latent units{unit}; useful from -3 to 3"]
    if "held_out_accuracy" in quality:
        parts.append(f"held-out accuracy {quality['held_out_accuracy']:.2f}")
    if "rising" in quality:
        parts.append(f"rises in {quality['rising']:.0%} of {quality['rising_faces']} faces")
    return "; ".join(parts)


@command.command(name="train")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@generator_option
@samples_option
@click.option(
    "--scorer", metavar="MODULE:FUNCTION", help="Your own scorer, a function of a reading of the face, for one NAME."
)
@click.option("--labels", type=click.Path(path_type=Path), metavar="CSV", help="Your own labels of samples, for one NAME.")
@click.option(
    "--latents", type=click.Path(path_type=Path), metavar="FILE",
    help="What the labels are of: (n, w_dim) or (n, num_ws, w_dim) as .npy, .pt or .safetensors; by default the samples.",
)  # fmt: skip
@click.option(
    "--condition", metavar="NAME,...", help="Leave these alone: attributes, directions or files; age:0.5 for half."
)
@click.option("--layers", metavar="LAYERS", help="That it moves: 0-7, or coarse, middle, fine.")
@click.option("--per-layer", is_flag=True, help="Learn a vector for each layer (W+), not one for all (W).")
@seed_option
@folder_option
@device_option
@output_option
def train(
    names: tuple[str, ...],
    generator: str,
    samples: int,
    scorer: str | None,
    labels: Path | None,
    latents: Path | None,
    condition: str | None,
    layers: str | None,
    per_layer: bool,
    seed: int,
    samples_dir: Path | None,
    device: str,
    output: Path,
) -> None:
    """Learn directions: draw faces, score them, fit a linear SVM to both tails, measure the step.

    NAME is a direction that ships, an attribute that has a scorer, or, with --scorer or --labels, a name of yours; all that
    have a recipe are learnt if none is named. A table of labels has a head, a column 'index' with the number of a sample
    (the pictures lie in SAMPLES_DIR/faces) and a column of numbers; 1 and 0 will do.

    Needs the scorers: pip install '.[directions]' in the folder that the toolkit was installed from.
    """
    own = [option for option, value in (("--scorer", scorer), ("--labels", labels)) if value]
    if len(own) > 1 or (own and len(names) != 1):
        raise click.UsageError(f"{' and '.join(own)}: give one of them, with one NAME" if own else "")
    if latents and not labels:
        raise click.UsageError("--latents go with --labels, which say what is in them")
    from invert.directions import RECIPES, train_directions

    network = _load(generator, device)
    chosen = {name: _recipe(name, network, bool(own), condition, layers, per_layer) for name in names or tuple(RECIPES)}
    folder = samples_dir or output / "samples"
    with _progress() as progress:
        if labels is not None:
            learnt = _from_labels(names[0], chosen[names[0]], network, labels, latents, folder, samples, seed, progress)
        else:
            learnt = train_directions(
                network, tuple(chosen), samples, recipes=chosen, scorers=_scorers(names, scorer), folder=folder, seed=seed,
                progress=progress,
            )  # fmt: skip
    _save(learnt.directions, output)
    click.echo(learnt.table())


def _recipe(
    name: str, network: Generator, is_own: bool, condition: str | None, layers: str | None, per_layer: bool
) -> Recipe:
    """Return what is to be learnt, as a recipe or as the user says."""
    from dataclasses import replace

    from editing.layers import parse_layers
    from invert.directions import Recipe, find_recipe

    recipe = Recipe(name) if is_own else find_recipe(name, network.num_ws)
    if condition is not None:
        recipe = replace(recipe, without=_conditions(condition))
    if layers is not None:
        recipe = replace(recipe, layers=parse_layers(layers, network.num_ws))
    return replace(recipe, per_layer=per_layer)


def _conditions(text: str) -> dict[str, float]:
    """Read ``gender,age:0.5``; an empty text leaves nothing alone."""
    conditions = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, amount = part.rpartition(":")
        try:
            conditions[name if sign else part] = float(amount) if sign else 1.0
        except ValueError:
            raise click.UsageError(f"--condition {part!r}: expected NAME or NAME:PART, such as gender or age:0.5") from None
    return conditions


def _scorers(names: tuple[str, ...], scorer: str | None) -> dict[str, Scorer]:
    from invert.attributes import SCORERS
    from invert.labels import import_scorer

    return {**SCORERS, names[0]: import_scorer(scorer)} if scorer else dict(SCORERS)


def _from_labels(
    name: str,
    recipe: Recipe,
    network: Generator,
    labels: Path,
    latents: Path | None,
    folder: Path,
    count: int,
    seed: int,
    progress: Callable[[str, int, int], None],
) -> Learnt:
    from dataclasses import replace

    from invert.attributes import SCORERS
    from invert.directions import Learnt, fit_labels
    from invert.labels import read_labels
    from invert.latents import read_latents
    from invert.samples import Samples, sample_folder

    if latents is not None:
        samples = Samples(read_latents(latents, network))
    else:
        wanted = {other: SCORERS[other] for other in recipe.without if other in SCORERS}
        samples = sample_folder(folder, network, count, seed, scorers=SCORERS if wanted else None, progress=progress)
    samples = replace(samples, scores={**samples.scores, name: read_labels(labels, name, len(samples.codes))})
    return Learnt({name: fit_labels(name, samples, network, recipe, seed)}, {})


@command.command(name="sample")
@generator_option
@samples_option
@seed_option
@device_option
@click.option("-o", "--output", default="directions/samples", show_default=True, type=click.Path(path_type=Path),
              metavar="DIR", help="Gets faces/000000.png and so on, and their codes.")  # fmt: skip
def sample(generator: str, samples: int, seed: int, device: str, output: Path) -> None:
    """Draw faces to label by hand; 'train NAME --labels CSV --samples-dir DIR' learns from the labels."""
    from invert.samples import sample_folder

    with _progress() as progress:
        sample_folder(output, _load(generator, device), samples, seed, scorers=None, progress=progress)
    notify(f"drew {samples} faces: {output / 'faces'}")


@command.command(name="measure")
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
@generator_option
@click.option(
    "--faces", default=100, show_default=True, metavar="N", type=click.IntRange(1, 1000), help="Fresh faces to move."
)
@click.option("--attribute", metavar="NAME", help="That it is meant to raise, where the file does not say so.")
@click.option("--published", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
              help="Directions of others, NAME.pt or NAME.npy, to tell cosines with.")  # fmt: skip
@click.option("--save", is_flag=True, help="Write the figures into the cards of the files that are named.")
@click.option("-o", "--output", default="directions/measured", show_default=True, type=click.Path(path_type=Path),
              metavar="DIR", help="Keeps scores, so that a stopped call goes on.")  # fmt: skip
@device_option
def measure(
    names: tuple[str, ...],
    generator: str,
    faces: int,
    attribute: str | None,
    published: Path | None,
    save: bool,
    output: Path,
    device: str,
) -> None:
    """Measure what directions do (all that ship, if none is named), and say which of the promised figures they miss.

    Fresh faces are moved to -3, -2, ... 3. Printed: held-out accuracy; the share of faces whose attribute rises at every
    step; what strength 1 adds to it and to other attributes, in standard deviations over these faces; similarity of dlib's
    face descriptors with the unedited face at -2 and 2; cosines with published directions.
    """
    from invert.direction_report import missed, report, with_figures
    from invert.measure import measure_direction
    from pretrained.directions import direction_names, load_direction, save_direction

    network = _load(generator, device)
    chosen = names or tuple(direction_names(network.identity))
    directions = {name: load_direction(name, network.identity) for name in chosen}
    results = {}
    for name, direction in directions.items():
        with _progress() as progress:
            results[name] = measure_direction(
                direction, network, faces, attribute=attribute, folder=output, progress=progress
            )
        if save and Path(name).suffix == ".safetensors":
            save_direction(name, with_figures(direction, results[name]))
    click.echo(report(directions, results, network.identity, published))
    lines = missed(directions, results)
    click.echo("\n".join(["", "missed:", *lines] if lines else ["", "missed: nothing"]))


@command.command(name="ganspace")
@generator_option
@click.option("-k", "--components", default=10, show_default=True, metavar="K", type=click.IntRange(1), help="How many.")
@click.option(
    "--samples", default=20_000, show_default=True, metavar="N", type=click.IntRange(10), help="Codes of W to take."
)
@click.option("--layers", metavar="LAYERS", help="That they move: 0-7, or coarse, middle, fine.  [default: all]")
@click.option("--faces", default=2, show_default=True, metavar="N", type=click.IntRange(1, 16), help="Rows of the preview.")
@seed_option
@device_option
@output_option
def ganspace(
    generator: str, components: int, samples: int, layers: str | None, faces: int, seed: int, device: str, output: Path
) -> None:
    """Find the directions that codes of W vary in most: principal components. A preview shows what each does.

    Writes ganspace-LAYERS-0.safetensors and so on; strength 1 is one standard deviation of the codes.
    """
    from editing.unsupervised import ganspace as find
    from invert.samples import sample_codes

    network = _load(generator, device)
    chosen = _parse_layers(layers, network)
    found = find(sample_codes(network, samples, seed, (1.0, 1.0)), network.identity, components, chosen)
    _save_components("ganspace", found, network, layers, faces, seed, output)


@command.command(name="sefa")
@generator_option
@click.option("-k", "--components", default=10, show_default=True, metavar="K", type=click.IntRange(1), help="How many.")
@click.option("--layers", metavar="LAYERS", help="Whose weights are asked: 0-7, or coarse, middle, fine.  [default: all]")
@click.option("--faces", default=2, show_default=True, metavar="N", type=click.IntRange(1, 16), help="Rows of the preview.")
@seed_option
@device_option
@output_option
def sefa(generator: str, components: int, layers: str | None, faces: int, seed: int, device: str, output: Path) -> None:
    """Find the directions that a generator's style weights amplify most: closed form. A preview shows what each does.

    Writes sefa-LAYERS-0.safetensors and so on; strength 1 is one standard deviation of the codes.
    """
    from editing.unsupervised import sefa as find
    from editing.unsupervised import style_weights
    from invert.samples import sample_codes

    network = _load(generator, device)
    chosen = _parse_layers(layers, network)
    weights = style_weights(network)
    asked = [weight for layer in chosen or range(network.num_ws) for weight in weights[layer]]
    codes = sample_codes(network, 2000, seed, (1.0, 1.0))
    _save_components("sefa", find(asked, codes, network.identity, components, chosen), network, layers, faces, seed, output)


def _parse_layers(text: str | None, network: Generator) -> tuple[int, ...] | None:
    from editing.layers import parse_layers

    return None if text is None else parse_layers(text, network.num_ws)


def _save_components(
    kind: str, components: Components, network: Generator, layers: str | None, faces: int, seed: int, output: Path
) -> None:
    from invert.photo import write_image
    from invert.strips import strips

    stem = f"{kind}-{layers or 'all'}".replace(",", "+").replace(" ", "")
    directions = {f"{stem}-{index}": components.direction(index, f"{stem}-{index}") for index in range(len(components))}
    _save(directions, output)
    with _progress() as progress:
        sheet = strips(list(directions.values()), network, faces, seed=seed, progress=progress)
    write_image(output / f"{stem}.png", sheet)
    click.echo(f"wrote {output / stem}.png: what each does, from -3 to 3")


def _save(directions: dict[str, Direction] | Any, output: Path) -> None:
    from pretrained.directions import save_direction

    for name, direction in directions.items():
        save_direction(output / f"{name}.safetensors", direction)
        notify(f"wrote {output / name}.safetensors: use it with --edit {output / name}.safetensors=+1")


def _load(generator: str, device: str) -> Generator:
    from invert.performance import keep_freed_memory
    from pretrained.loading import load_generator

    chosen = choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    return load_generator(generator, chosen, notify)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar that says what is being done."""
    from tqdm import tqdm

    with tqdm(leave=False) as bar:

        def progress(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        yield progress
