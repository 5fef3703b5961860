"""``stylegan-invert train METHOD``: teach an encoder a generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from invert.cli.options import DTYPE, choose_device, device_option, generator_option, notify

if TYPE_CHECKING:
    import torch

    from encoders.training.losses import Losses
    from invert.perceptual import Perceptual

SAMPLED = "sampled"
"""In the place of a folder of real faces: there are none."""
METHODS = ("psp", "e4e", "restyle", "stylemap", "stylemap-e")
BACKBONES = ("compact", "ir-se50")


@click.command(name="train", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("method", type=click.Choice(METHODS))
@generator_option
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR|ZIP|sampled",
    help="Aligned real faces to learn from; 'sampled': only faces that the generator draws.",
)
@click.option("--split", metavar="NAME", help="Only the faces that attributes.csv beside them puts into this split.")
@click.option("--val", "validation", type=click.Path(path_type=Path, exists=True), metavar="DIR|ZIP", help="Faces to watch.")
@click.option("--val-split", metavar="NAME", help="As --split, for --val.")
@click.option("--val-count", default=24, show_default=True, metavar="N", type=click.IntRange(1), help="How many of them.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", show_default="runs/METHOD",
              help="The run; the same command goes on with a run that was stopped.")  # fmt: skip
@click.option("--backbone", default=BACKBONES[0], show_default=True, type=click.Choice(BACKBONES),
              help="What the encoder sees with. ir-se50: the papers' own networks, for GPUs; psp, e4e and restyle are "
                   "the published ones.")  # fmt: skip
@click.option("--start", metavar="DIR|FILE|NAME",
              help="Begin with another run (its encoder, preview and sampled faces), or with an encoder on the same "
                   "backbone: for ir-se50 also a published .pt, or ArcFace's model_ir_se50.pth.")  # fmt: skip
@click.option("--faces", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
              help="Take the sampled faces and the preview of another run.")  # fmt: skip
@click.option("--sizes", metavar="C,M,F", help="Sides of the coarse, middle and fine style maps.")
@click.option("--loss", "weights", multiple=True, metavar="NAME=WEIGHT", help="Weight of a term, such as consistency=0.5.")
@click.option("--edit", "edits", multiple=True, metavar="NAME=STRENGTH",
              help="An edit that consistency teaches beside random moves, up to this strength either way; 'none' for random "
                   "ones alone. By default stylemap-e is taught all that ship.")  # fmt: skip
@click.option("--identity", type=click.Path(path_type=Path, exists=True), metavar="FILE",
              help="ArcFace's model_ir_se50.pth, for the identity term; without it that term is off.")  # fmt: skip
@click.option("--steps", default=1600, show_default=True, metavar="N", type=click.IntRange(1),
              help="Of the optimiser, in all; the same command with more goes on with a run that has ended.")  # fmt: skip
@click.option("--samples", default=3000, show_default=True, metavar="N", type=click.IntRange(0),
              help="Faces that the generator draws first; 0: fresh ones at every step.")  # fmt: skip
@click.option("--edited", metavar="N", type=click.IntRange(0), show_default="a third of --samples where edits are taught",
              help="Faces more that it draws first, moved by the edits that are taught.")  # fmt: skip
@click.option("--batch-real", default=8, show_default=True, metavar="N", type=click.IntRange(0), help="Real faces a step.")
@click.option("--batch-sampled", default=8, show_default=True, metavar="N", type=click.IntRange(0),
              help="Sampled faces a step.")  # fmt: skip
@click.option("--batch-drawn", show_default="4, or all of fewer", metavar="N", type=click.IntRange(0),
              help="Sampled faces a step with image losses.")  # fmt: skip
@click.option("--own", default=4, show_default=True, metavar="N", type=click.IntRange(0),
              help="Faces drawn from the encoder's own, edited codes.")  # fmt: skip
@click.option("--own-every", default=10, show_default=True, metavar="N", type=click.IntRange(1), help="Steps between them.")
@click.option("--parts", default=1, show_default=True, metavar="N", type=click.IntRange(1),
              help="Pieces that a step is worked on in, to save memory.")  # fmt: skip
@click.option("--dtype", "--precision", "precision", default="float32", show_default=True, type=DTYPE,
              help="Of the networks' products; weights stay float32. float16 is for GPUs.")  # fmt: skip
@device_option
@click.option(
    "--preview-resolution",
    show_default="64, or 0 where the generator has no preview",
    metavar="PX",
    type=click.IntRange(0),
    help="Features the preview reads; 0: draw whole images.",
)
@click.option("--preview-steps", default=400, show_default=True, metavar="N", type=click.IntRange(0),
              help="Steps the preview learns alone.")  # fmt: skip
@click.option("--lr", "learning_rate", default=3e-4, show_default=True, metavar="RATE",
              help="Of Adam at its highest: it warms up over 50 steps, and falls to a twentieth.")  # fmt: skip
@click.option(
    "--every", default=100, show_default=True, metavar="N", type=click.IntRange(1), help="Steps between checkpoints."
)
# Smaller than elsewhere: each step's seed is a multiple of it.
@click.option("--seed", default=0, show_default=True, metavar="N", type=click.IntRange(0, 2**32 - 1),
              help="Of everything random.")  # fmt: skip
def command(
    method: str,
    generator: str,
    data: Path,
    split: str | None,
    validation: Path | None,
    val_split: str | None,
    val_count: int,
    output: Path | None,
    backbone: str,
    start: str | None,
    faces: Path | None,
    sizes: str | None,
    weights: Sequence[str],
    identity: Path | None,
    device: str,
    edits: Sequence[str],
    edited: int | None,
    batch_sampled: int,
    batch_drawn: int | None,
    preview_resolution: int | None,
    **plan_options: int | float | str,
) -> None:
    """Train an encoder on faces that the generator draws, whose codes are known, together with real aligned faces.

    The run's folder gets encoder.safetensors (use it with --method FILE), log.csv, samples.png and a checkpoint. Started by
    torchrun, its processes share every step.
    """
    import torch
    from tqdm import tqdm

    from encoders.backbone import SqueezeBackbone
    from encoders.base import Encoder
    from encoders.kinds import build_encoder
    from encoders.stylemap import StyleMapEncoder
    from encoders.training.distributed import rank
    from invert.dataset import read_faces
    from invert.perceptual import load_training_perceptual
    from invert.performance import keep_freed_memory
    from invert.training import RECIPES, Plan, default_preview, taught_edits, train_encoder
    from pretrained.errors import DownloadFailed
    from pretrained.loading import load_generator, save_encoder
    from pretrained.lpips import squeezenet_imagenet

    if batch_drawn is not None and batch_drawn > batch_sampled:
        raise click.UsageError(f"--batch-drawn {batch_drawn}: expected at most --batch-sampled, {batch_sampled}")
    is_sampled = str(data) == SAMPLED and not data.exists()
    if is_sampled and split is not None:
        raise click.UsageError(f"--data {SAMPLED}: drawn faces have no --split")
    if not is_sampled and not data.exists():
        raise click.UsageError(f"--data {data}: no such folder or zip file; expected aligned faces, or the word {SAMPLED}")
    keep_freed_memory()
    place = _join_processes(device)
    output = output or Path("runs") / method
    network = load_generator(generator, place, notify=notify)
    taught = tuple(edit for edit in edits if edit != "none") if edits else taught_edits(method, network.identity)
    plan_options |= {
        "batch_sampled": batch_sampled,
        "batch_drawn": min(Plan.batch_drawn, batch_sampled) if batch_drawn is None else batch_drawn,
        "preview_resolution": default_preview(network) if preview_resolution is None else preview_resolution,
    }
    if is_sampled:
        plan_options["batch_real"] = 0
    plan = Plan(**plan_options, losses=_weighted(RECIPES[method], weights), edits=taught)  # type: ignore[arg-type]
    plan = replace(plan, edited=(plan.samples // 3 if taught else 0) if edited is None else edited)
    real = torch.zeros(0, 3, 256, 256, dtype=torch.uint8) if is_sampled else read_faces(data, split)[0]
    watched = None if validation is None else read_faces(validation, val_split, limit=val_count)[0]
    torch.manual_seed(plan.seed)
    encoder = build_encoder(method, backbone, network.num_ws, network.w_dim, _triple(sizes) if sizes else None)
    if start is None and backbone == "ir-se50" and not (output / "checkpoint.pt").is_file():
        notify("the backbone starts from random weights: --start model_ir_se50.pth begins with ArcFace's")
    if start is None and backbone == "compact":
        assert isinstance(encoder, StyleMapEncoder)
        try:
            seen = squeezenet_imagenet()
            seen[SqueezeBackbone.FIRST] = SqueezeBackbone.widen(seen[SqueezeBackbone.FIRST], encoder.in_channels)
            encoder.backbone.load_state_dict(seen)
        except DownloadFailed as error:
            notify(f"{error}. The backbone starts from random weights")
    perceptual = load_training_perceptual(place, notify)
    likeness = None if identity is None else _identity_loss(identity, place)
    with tqdm(total=plan.steps, unit="step", disable=rank() > 0) as bar:

        def report(step: int, terms: dict[str, float]) -> None:
            bar.set_postfix({name: f"{terms[name]:.3f}" for name in ("l2", "lpips", "code", "preview") if name in terms})
            bar.update(max(0, step) - bar.n)
            if "val_lpips" in terms:
                distance = "" if perceptual.name == "off" else f"{perceptual.name} {terms['val_lpips']:.4f}, "
                bar.write(f"step {step}: validation {distance}MSE {terms['val_mse']:.4f}")

        # A weight that somebody typed is not left out with a word alone.
        wanted = [entry.partition("=")[0] for entry in weights]
        average = train_encoder(
            encoder, network, perceptual, real, watched, output, plan, report, likeness, start, faces, notify, wanted
        )
    if rank() == 0:
        assert isinstance(average, Encoder)
        target = output / "encoder.safetensors"
        card = {"method": method, "plan": asdict(plan), "perceptual": perceptual.name, "faces": len(real)}
        save_encoder(target, average, network.identity, **card)
        notify(f"wrote {target}: use it with --method {target}")


def _join_processes(device: str) -> torch.device:
    """Join the other processes that torchrun started, if it did; each takes a GPU of its own, or the CPU.

    Raises:
        ToolkitError: the environment names processes that make no sense, or that cannot be met.
    """
    import torch
    import torch.distributed as dist

    from invert.evaluation.team import PATIENCE, meeting_in_words, numbers_from_environment

    _, size, local_rank = numbers_from_environment()
    if size == 1:
        return choose_device(device)
    if device not in ("auto", "cuda", "cpu"):
        raise click.UsageError(f"--device {device}: several processes take a GPU each by 'cuda', or share the CPU by 'cpu'")
    has_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = choose_device(f"cuda:{local_rank}" if has_gpu else "cpu")
    if place.type == "cuda":
        torch.cuda.set_device(place)
    with meeting_in_words():
        # The others wait while the first one draws thousands of faces.
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
    return place


def _weighted(losses: Losses, entries: Sequence[str]) -> Losses:
    """Put the user's NAME=WEIGHT entries over a recipe's weights."""
    from generators.errors import UnknownName

    known = [field.name for field in fields(losses)]
    for entry in entries:
        name, _, value = entry.partition("=")
        if name not in known:
            raise UnknownName("term", name, known)
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
            raise click.UsageError(f"--loss {entry}: expected NAME=WEIGHT with a weight of at least 0")
        losses = replace(losses, **{name: weight})
    return losses


def _triple(text: str) -> tuple[int, int, int]:
    """Read three sides of style maps."""
    sides = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if len(sides) != 3 or not all(1 <= side <= 64 for side in sides):
        raise click.UsageError(f"--sizes {text}: expected three sides from 1 to 64, such as 2,4,1")
    return sides[0], sides[1], sides[2]


def _identity_loss(file: Path, device: torch.device) -> Perceptual:
    """Make 1 - cosine of a face network's embeddings; its weights are in the name, so that a run goes on with the same."""
    from invert.perceptual import Perceptual
    from pretrained.cache import fingerprint
    from pretrained.encoders import load_arcface

    network = load_arcface(file, device)
    return Perceptual(f"ArcFace {fingerprint(network)[:12]}", lambda a, b: 1 - (network(a) * network(b)).sum(1))
