"""Options and steps that the verbs for faces from anywhere share: ``mix``, ``interpolate`` and ``blend``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from invert.cli.options import FaceChoice, choose_device, device_option, generator_option, notify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np

    from generators.base import Generator
    from generators.latent import Latent
    from invert.sources import Source

_OPTIONS = (
    click.option("--method", default="stylemap", show_default=True, metavar="NAME", help="How photos are inverted."),
    click.option("--refine", default=0, metavar="N", type=click.IntRange(0), help="Projector steps after an encoder."),
    click.option("--face", default="largest", show_default=True, type=FaceChoice(), help="Of a photo: largest or a number."),
    click.option("--no-align", "is_aligned", is_flag=True, help="The photos are aligned faces already."),
    click.option("--predictor", type=click.Path(path_type=Path, exists=True), metavar="FILE", help="dlib's 68-point model."),
    click.option(
        "--truncation", "truncation_psi", default=0.7, show_default=True, metavar="PSI", help="Of sampled faces; 1: none."
    ),
    generator_option,
    device_option,
)


def source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how faces become codes; it takes them as ``**how`` for ``load_sources``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def load_sources(
    groups: Sequence[Sequence[str]], *, generator: str, device: str, method: str, refine: int, **how: Any
) -> tuple[Generator, list[list[Source]]]:
    """Load the generator, and resolve groups of sources."""
    import torch

    from invert.inverters import load_inverter
    from invert.performance import keep_freed_memory
    from invert.sources import read_sources, seeds_of
    from pretrained.loading import load_generator

    for text in (text for group in groups for text in group if text.startswith("seed:")):
        seeds_of(text)  # Before anything is fetched.
    chosen = choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    notify(f"loading {generator} ...")
    torch.manual_seed(0)
    network = load_generator(generator, chosen, notify)
    found = [read_sources(group, network, lambda: load_inverter(method, network, refine=refine), **how) for group in groups]
    return network, found


def draw(network: Generator, latent: Latent) -> Any:
    """Draw one code, on the CPU."""
    import torch

    with torch.no_grad():
        return network.synthesis(latent)[0].cpu()


def write_results(
    output: Path,
    name: str,
    pictures: dict[str, np.ndarray],
    sheet: np.ndarray,
    network: Generator,
    latent: Latent | None,
    report: dict[str, Any],
    photos: Iterable[tuple[str, np.ndarray | None]] = (),
) -> None:
    """Write a folder: every picture and photo, the sheet of all, the latent where there is one, and last the report.

    Photos are made one after the other while they are written; for one that is None there is no file afterwards.
    """
    from generators.latent import space_of
    from invert.latents import save_latent
    from invert.photo import whole_file, write_image
    from invert.pipeline import toolkit_version

    (output / "report.json").unlink(missing_ok=True)  # An old report must not vouch for new files.
    for stem, picture in pictures.items():
        write_image(output / f"{stem}.png", picture)
    for stem, photo in photos:
        if photo is None:
            (output / f"{stem}.jpg").unlink(missing_ok=True)
        else:
            write_image(output / f"{stem}.jpg", photo)
    write_image(output / f"{name}.png", sheet)
    if latent is None:
        (output / "latent.safetensors").unlink(missing_ok=True)
    else:
        save_latent(
            output / "latent.safetensors", latent, network.identity, toolkit_version=toolkit_version(), recipe=report
        )
    report |= {"space": None if latent is None else space_of(latent)}
    report |= {"generator": {"name": network.identity.name, "sha256": network.identity.sha256}}
    report |= {"toolkit_version": toolkit_version()}
    with whole_file(output / "report.json") as part:
        part.write_text(json.dumps(report, indent=2) + "\n")
    notify(f"wrote {output / name}.png")
