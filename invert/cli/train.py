"""``stylegan-invert train METHOD``: teach an encoder a generator."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from invert.cli.options import generator_option, notify


@click.command(name="train", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("method", type=click.Choice(["stylemap"]))
@generator_option
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="DIR|ZIP",
    help="Aligned real faces to learn from.",
)
@click.option("--split", metavar="NAME", help="Only the faces that attributes.csv beside them puts into this split.")
@click.option("--val", "validation", type=click.Path(path_type=Path, exists=True), metavar="DIR|ZIP", help="Faces to watch.")
@click.option("--val-split", metavar="NAME", help="As --split, for --val.")
@click.option("--val-count", default=24, show_default=True, metavar="N", help="How many of them.")
@click.option("-o", "--output", default="runs/stylemap", show_default=True, type=click.Path(path_type=Path), metavar="DIR",
              help="The run; the same command goes on with a run that was stopped.")  # fmt: skip
@click.option("--steps", default=1600, show_default=True, metavar="N", type=click.IntRange(1))
@click.option("--samples", default=3000, show_default=True, metavar="N", help="Faces that the generator draws first.")
@click.option("--batch-real", default=8, show_default=True, metavar="N", help="Real faces a step.")
@click.option("--batch-sampled", default=8, show_default=True, metavar="N", help="Sampled faces a step.")
@click.option("--batch-drawn", default=4, show_default=True, metavar="N", help="Sampled faces a step with image losses.")
@click.option(
    "--preview-resolution",
    default=64,
    show_default=True,
    metavar="PX",
    help="Features the preview reads; 0: draw whole images.",
)
@click.option("--preview-steps", default=200, show_default=True, metavar="N", help="Steps the preview learns alone.")
@click.option("--lr", "learning_rate", default=3e-4, show_default=True, metavar="RATE")
@click.option("--every", default=100, show_default=True, metavar="N", help="Steps between checkpoints.")
@click.option("--seed", default=0, show_default=True, metavar="N")
def command(
    method: str,
    generator: str,
    data: Path,
    split: str | None,
    validation: Path | None,
    val_split: str | None,
    val_count: int,
    output: Path,
    **plan_options: int | float,
) -> None:
    """Train an encoder on faces that the generator draws, whose codes are known, together with real aligned faces.

    The run's folder gets encoder.safetensors (use it with --method FILE), log.csv, samples.png and a checkpoint.
    """
    import torch
    from tqdm import tqdm

    from encoders.stylemap import StyleMapEncoder
    from invert.dataset import read_faces
    from invert.perceptual import load_training_perceptual
    from invert.performance import keep_freed_memory
    from invert.training import Plan, train_encoder
    from pretrained.errors import DownloadFailed
    from pretrained.loading import load_generator, save_encoder
    from pretrained.lpips import squeezenet_imagenet

    keep_freed_memory()
    plan = Plan(**plan_options)  # type: ignore[arg-type]
    network = load_generator(generator, notify=notify)
    real, _ = read_faces(data, split)
    watched = None if validation is None else read_faces(validation, val_split, limit=val_count)[0]
    torch.manual_seed(plan.seed)
    encoder = StyleMapEncoder(num_ws=network.num_ws, w_dim=network.w_dim)
    try:
        encoder.backbone.load_state_dict(squeezenet_imagenet())
    except DownloadFailed as error:
        notify(f"{error}. The backbone starts from random weights")
    perceptual = load_training_perceptual(notify)
    with tqdm(total=plan.steps, unit="step") as bar:

        def report(step: int, terms: dict[str, float]) -> None:
            bar.set_postfix({name: f"{terms[name]:.3f}" for name in ("l2", "lpips", "code", "preview") if name in terms})
            bar.update(max(0, step) - bar.n)
            if "val_lpips" in terms:
                bar.write(f"step {step}: validation {perceptual.name} {terms['val_lpips']:.4f}, MSE {terms['val_mse']:.4f}")

        average = train_encoder(encoder, network, perceptual, real, watched, output, plan, report=report)
    assert isinstance(average, StyleMapEncoder)
    target = output / "encoder.safetensors"
    save_encoder(
        target, average, network.identity, method=method, plan=asdict(plan), perceptual=perceptual.name, faces=len(real)
    )
    notify(f"wrote {target}: use it with --method {target}")
