"""``stylegan-invert mix A B``: some layers of one face, the rest of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from invert.cli.options import notify
from invert.cli.sources import draw, load_sources, source_options, write_results


@click.command(name="mix", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--layers", default="coarse", show_default=True, metavar="LAYERS",
    help="That come from B: coarse (4-8 px), middle (16-32 px), fine (64 px and up), numbers, ranges; 0-3,7.",
)  # fmt: skip
@click.option("--grid", "as_grid", is_flag=True, help="Mix every face of A with every face of B, as one sheet.")
@source_options
@click.option("-o", "--output", default="stylegan-invert-out/mix", show_default=True, type=click.Path(path_type=Path),
              metavar="DIR", help="Where the results go.")  # fmt: skip
def command(a: str, b: str, layers: str, as_grid: bool, output: Path, **how: Any) -> None:
    """Give A the styles of B in some layers. Faces are photos, saved latents, or seed:42, seed:1-4.

    A saved latent is the latent.safetensors of a result, or a .pt, .npy or .npz with codes of W or W+, each a face.

    \b
    stylegan-invert mix anna.jpg ben.jpg --layers fine          # Anna in Ben's colours
    stylegan-invert mix seed:1-5 seed:11-15 --layers coarse --grid
    """  # noqa: D301 (click reads \b as "keep these lines")
    from tqdm import tqdm

    from editing.layers import parse_layers
    from editing.mixing import mix
    from invert.panels import Panel, comparison
    from invert.photo import to_uint8
    from invert.sheets import grid

    network, (of_a, of_b) = load_sources([[a], [b]], **how)
    chosen = parse_layers(layers, network.num_ws)
    report = {"command": "mix", "a": [s.name for s in of_a], "b": [s.name for s in of_b], "layers": list(chosen)}
    if as_grid:
        heads = [[to_uint8(draw(network, source.latent)) for source in group] for group in (of_a, of_b)]
        bar = tqdm(total=len(of_a) * len(of_b), unit="face")
        cells: list[list[Any]] = []
        for of_row in of_a:
            cells.append([])
            for of_column in of_b:
                cells[-1].append(to_uint8(draw(network, mix(of_row.latent, of_column.latent, chosen))))
                bar.update()
        bar.close()
        sheet = grid(heads[1], heads[0], cells, titles=(f"B: its {layers} layers", "A"))
        write_results(output, "grid", {}, sheet, network, None, report)
        return
    (first,), (second,) = (_single(group, side) for group, side in ((of_a, "A"), (of_b, "B")))
    mixed = mix(first.latent, second.latent, chosen)
    pictures = {name: to_uint8(draw(network, code)) for name, code in (("a", first.latent), ("b", second.latent))}
    pictures["mixed"] = to_uint8(draw(network, mixed))
    panels = [
        Panel(pictures["a"], first.name, "A"),
        Panel(pictures["b"], second.name, f"B: {layers} layers"),
        Panel(pictures["mixed"], "mixed", f"layers {', '.join(map(str, chosen))} of B"),
    ]
    write_results(output, "comparison", pictures, comparison(panels), network, mixed, report)
    notify("draw it again, or go on with it, by giving its latent.safetensors as a face")


def _single(group: list[Any], side: str) -> list[Any]:
    if len(group) != 1:
        raise click.UsageError(f"{side} holds {len(group)} faces: expected one; --grid mixes all with all")
    return group
