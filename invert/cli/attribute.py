"""``stylegan-invert attribute IMAGE...``: tell whether a generator drew a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invert.cli.options import DTYPE, SEED, choose_device, device_option, generator_option, notify

if TYPE_CHECKING:
    from invert.attribution import Attributor, Calibration, Picture
    from invert.dataset import FaceFile, Reader


@click.command(name="attribute", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("images", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="[IMAGE|DIR|ZIP]...")
@generator_option
@click.option(
    "--calibrate", type=click.Path(path_type=Path, exists=True), metavar="DIR|ZIP",
    help="First measure these real photos, and as many samples: gives the ROC curve and the threshold.",
)  # fmt: skip
@click.option("--limit", default=50, show_default=True, metavar="N", type=click.IntRange(5), help="Photos of --calibrate.")
@click.option("--split", metavar="NAME", help="Of --calibrate: only the photos that attributes.csv puts into this split.")
@click.option(
    "--calibration", type=click.Path(path_type=Path, exists=True), metavar="FILE",
    help="One that --calibrate has written; by default that in the output folder, or the one that ships.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Of the projector; by default those of the calibration.")
@click.option("--seed", default=0, show_default=True, metavar="N", type=SEED, help="Of the samples.")
@click.option(
    "--dtype", type=DTYPE,
    help="That the generator computes in; by default that of the calibration, or float32 for --calibrate.",
)  # fmt: skip
@device_option
@click.option(
    "-o", "--output", default="attribution", show_default=True, type=click.Path(path_type=Path), metavar="DIR",
    help="Gets calibration.json, roc.png and verdicts.json; a calibration that was stopped goes on there.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON on standard output.")
def command(
    images: tuple[Path, ...],
    generator: str,
    calibrate: Path | None,
    limit: int,
    split: str | None,
    calibration: Path | None,
    steps: int | None,
    seed: int,
    dtype: str | None,
    device: str,
    output: Path,
    as_json: bool,
) -> None:
    """Tell whether a generator drew a picture: project it into W, and look at the distance that is left.

    "Real" means: not drawn by this generator; it may still come from another one. Edits, crops and repainting move a
    generated picture away from its generator.

    \b
    stylegan-invert attribute suspect.png
    stylegan-invert attribute --calibrate photos/ --limit 50 --generator my.pkl -o mine suspects/
    """  # noqa: D301 (click reads \b as "keep these lines")
    import torch

    from invert.attribution import DEFAULT_STEPS, Attributor, find_calibration, find_start
    from invert.dataset import find_faces
    from invert.perceptual import load_perceptual
    from invert.performance import keep_freed_memory
    from pretrained.loading import load_generator

    if not images and calibrate is None:
        raise click.UsageError("nothing to do: name pictures, or photos to --calibrate with")
    if calibrate is not None and calibration is not None:
        raise click.UsageError("--calibrate makes a calibration, --calibration names one: give one of them")
    suspects = find_faces(images) if images else []
    chosen = choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    network = load_generator(generator, chosen, notify)
    known = find_calibration(calibration, output, network.identity) if calibrate is None else None
    network = network.compute_in(getattr(torch, dtype or (known.settings.dtype if known is not None else "float32")))
    distance, start = load_perceptual(chosen, notify), find_start(network)
    if calibrate is not None:
        attributor = Attributor(network, distance, steps or DEFAULT_STEPS, *start)
        known = _calibrate(attributor, calibrate, split, limit, seed, output)
    else:
        assert known is not None
        attributor = Attributor(network, distance, steps or known.settings.steps, *start)
        attributor.check(known)
    verdicts = _judge(attributor, known, suspects, output)
    if as_json:
        click.echo(json.dumps(verdicts))
    else:
        for row in verdicts:
            click.echo(_in_words(row))
    if any("error" in row for row in verdicts):
        sys.exit(1)


def _calibrate(attributor: Attributor, source: Path, split: str | None, limit: int, seed: int, output: Path) -> Calibration:
    """Calibrate; distances are kept one by one, so that a run which was stopped goes on."""
    from tqdm import tqdm

    from invert.attribution import plot_roc, read_distances
    from invert.dataset import Reader, find_faces
    from invert.photo import whole_file

    photos = find_faces([source], split, limit)
    log = output / "distances.json"
    done = read_distances(log, attributor.settings)
    with Reader() as reader, tqdm(total=2 * len(photos), unit="picture") as bar:

        def show(name: str, content: str, distance: float) -> None:
            bar.set_description(f"{name}: {distance:.3f}", refresh=False)
            bar.update()
            if content not in done:
                done[content] = distance
                with whole_file(log) as temporary:
                    temporary.write_text(json.dumps({"settings": asdict(attributor.settings), "distances": done}))

        notes = {"photos": source.name, "split": split}
        known = attributor.calibrate(_pictures(photos, reader), len(photos), seed, notes, dict(done), show)
    known.save(output / "calibration.json")
    plot_roc(known, output / "roc.png")
    low, high = known.area_interval()
    notify(
        f"area under the ROC curve {known.roc.area:.3f} (95 %: {low:.3f} to {high:.3f}), threshold {known.threshold:.4f},"
        f" {len(known.generated)} samples and {len(known.real)} photos; wrote {output / 'calibration.json'} and roc.png"
    )
    return known


def _pictures(faces: list[FaceFile], reader: Reader) -> Iterator[Picture]:
    """Give aligned faces: whole where a picture is one already, else cut out of it."""
    from functools import partial

    from invert.attribution import Picture
    from invert.evaluation.faces import kind_of, read_face

    def read(face: FaceFile) -> Any:
        return read_face(reader, face, kind_of([face])).transpose(1, 2, 0)

    return (Picture(face.name, partial(read, face)) for face in faces)


def _judge(attributor: Attributor, known: Calibration, suspects: list[FaceFile], output: Path) -> list[dict[str, Any]]:
    from generators.errors import ToolkitError
    from invert.dataset import Reader
    from invert.photo import whole_file

    rows: list[dict[str, Any]] = []
    with Reader() as reader:
        for name, read in _pictures(suspects, reader):
            try:
                verdict = known.judge(attributor.measure_photo(read()))
            except ToolkitError as error:  # One bad file does not stop the others.
                rows.append({"image": name, "error": str(error)})
            else:
                rows.append({"image": name, "verdict": "generated" if verdict.is_generated else "real"} | asdict(verdict))
    if rows:
        with whole_file(output / "verdicts.json") as temporary:
            temporary.write_text(json.dumps({"settings": asdict(known.settings), "images": rows}, indent=1))
    return rows


def _in_words(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['image']}: not measured: {row['error']}"
    side, words = ("below", "as close") if row["is_generated"] else ("above", "as far")
    share = row["real_as_close"] if row["is_generated"] else row["generated_as_far"]
    kind = "photos come" if row["is_generated"] else "samples stay"
    return (
        f"{row['image']}: {row['verdict']} (distance {row['distance']:.4f}, {side} {row['threshold']:.4f};"
        f" {share:.0%} of the calibration's {kind} {words})"
    )
