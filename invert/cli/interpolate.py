"""``stylegan-invert interpolate A B``: a film from face to face."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from invert.cli.options import notify
from invert.cli.sources import draw, load_sources, source_options

EASES = ("linear", "smooth", "in", "out")
"""Of ``editing.interpolation``, which help does not wait for."""
EASE_HELP = "Speed from one face to the next: linear, smooth (slow at both), in (slow at first), out."


@click.command(name="interpolate", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("faces", nargs=-1, required=True, metavar="FACE...")
@click.option("--frames", default=60, show_default=True, metavar="N", type=click.IntRange(1), help="Of the whole film.")
@click.option("--fps", default=25.0, show_default=True, metavar="RATE", help="Frames a second; of a GIF at most 50.")
@click.option("--ease", default="smooth", show_default=True, type=click.Choice(EASES), help=EASE_HELP)
@click.option("--loop", is_flag=True, help="Go back to the first face, so that the film can start anew without a jump.")
@click.option(
    "--in", "space", type=click.Choice(["w", "z"]), default="w", show_default=True,
    help="w: straight lines between codes; z: great circles between seeds.",
)  # fmt: skip
@click.option("--size", metavar="PX", type=click.IntRange(16), help="Side of the frames; the generator's own by default.")
@source_options
@click.option("-o", "--output", default="stylegan-invert-out/morph.mp4", show_default=True, metavar="FILE",
              type=click.Path(path_type=Path), help="A .mp4, a .gif, or a new folder for PNGs.")  # fmt: skip
def command(
    faces: tuple[str, ...],
    frames: int,
    fps: float,
    ease: str,
    loop: bool,
    space: str,
    size: int | None,
    output: Path,
    **how: Any,
) -> None:
    """Make a film from face to face, through two or more. Each is a photo, a saved latent (see mix), or seed:42, seed:1-4.

    \b
    stylegan-invert interpolate anna.jpg ben.jpg --frames 60 -o morph.mp4
    stylegan-invert interpolate seed:1-6 --in z --frames 240 --loop --size 512 -o faces.gif
    """  # noqa: D301 (click reads \b as "keep these lines")
    from tqdm import tqdm

    from editing.interpolation import interpolate, interpolate_z, path
    from invert.animation import check_video, write_video
    from invert.inversion import resize
    from invert.photo import to_uint8

    _check(lambda: check_video(output, fps))  # Before the work, not after it.
    network, (sources,) = load_sources([faces], **how)
    path(len(sources), frames, ease, loop)
    latents: Iterator[Any]
    if space == "z":
        latents = (
            network.mapping(z, how["truncation_psi"])
            for z in interpolate_z([_sampled(source) for source in sources], frames, ease, loop)
        )
    else:
        latents = interpolate([source.latent for source in sources], frames, ease, loop)
    if len({source.name for source in sources}) == 1:
        notify("all faces are the same: so will be all frames")

    def pictures() -> Iterator[Any]:
        for latent in tqdm(latents, total=frames, unit="frame"):
            image = draw(network, latent)
            yield to_uint8(image if size is None else resize(image[None], size)[0])

    write_video(output, pictures(), fps)
    notify(f"wrote {output}")


def _check(call: Any) -> None:
    try:
        call()
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _sampled(source: Any) -> Any:
    if source.z is None:
        raise click.UsageError(f"--in z: {source.name} is no seed; only sampled faces have a code in Z, leave it out")
    return source.z
