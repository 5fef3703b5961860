"""``stylegan-invert lec DIR``: latent editing consistency over a folder."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from invert.cli.options import choose_device, device_option, generator_option, notify


@click.command(name="lec", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sources", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="DIR|ZIP|LIST|IMAGE...")
@click.option("--method", default="stylemap", show_default=True, metavar="A,B", help="Encoders by name or file.")
@click.option(
    "--edit", "edits", multiple=True, required=True, metavar="NAME=STRENGTH",
    help="Such as age=+3 or smile@coarse=-3; several are measured one by one.",
)  # fmt: skip
@click.option("--split", metavar="NAME", help="Only this split; see evaluate.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Only the first N files.")
@click.option(
    "--batch", default=8, show_default=True, metavar="N", type=click.IntRange(1), help="Faces at once; changes rounding."
)
@click.option("--retry-failed", is_flag=True, help="Try again what failed before.")
@generator_option
@device_option
@click.option(
    "-o", "--output", default="stylegan-invert-out/lec", show_default=True, type=click.Path(path_type=Path), metavar="DIR",
    help="Gets lec.csv, lec.json, and lec.sqlite, which remembers what is done.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the means as JSON instead of the table.")
def command(
    sources: tuple[Path, ...],
    method: str,
    edits: tuple[str, ...],
    split: str | None,
    limit: int | None,
    batch: int,
    retry_failed: bool,
    generator: str,
    device: str,
    output: Path,
    as_json: bool,
) -> None:
    """Measure how well edits survive being drawn and encoded again: in latent units, lower is better.

    Forms of a stylemap are taken over its pixels (Honda et al.); of vectors (pSp, e4e) all three are e4e's LEC. Stop it at
    any moment and start it again: what is done is kept. evaluate measures the same beside other figures. It is the encoder
    alone that is measured: one look at each face, unless NAME@K asks for K.

    \b
    stylegan-invert lec faces/ --method stylemap --edit age=3 --edit smile=-3
    """  # noqa: D301 (click reads \b as "keep these lines")
    if not sources:
        raise click.UsageError("name a folder, a zip file, a list or images to measure")
    import torch
    from tqdm import tqdm

    from editing.composition import parse_edits
    from generators.errors import ToolkitError
    from invert.consistency import as_markdown, means, read_rows, write_rows
    from invert.edits import check_name
    from invert.evaluation.methods import parse_methods
    from invert.evaluation.runner import Plan, Progress, evaluate
    from invert.json_values import plain
    from invert.performance import keep_freed_memory
    from pretrained.catalog import CATALOG

    keep_freed_memory()
    bars: list[Any] = []

    def show(progress: Progress) -> None:
        if progress.done == 0:
            bars.append(tqdm(total=progress.total, desc=progress.method, unit="face"))
        bars[-1].update(progress.done - bars[-1].n)

    try:
        specs = parse_edits(edits)
        if generator in CATALOG:
            specs = [check_name(spec, generator) for spec in specs]
        methods = parse_methods(method.split(","))
    except ToolkitError as error:
        raise click.UsageError(str(error)) from error
    for given in methods:
        if given.is_optimised:
            raise click.UsageError(f"--method {given.spec}: LEC is of encoders alone; leave the projector, +N and +ptiM out")
    plan = Plan(
        sources,
        tuple(method.split(",")),
        (),
        generator,
        edits=tuple(specs),
        split=split,
        limit=limit,
        threads=torch.get_num_threads(),
        batch=batch,
        retry_failed=retry_failed,
    )
    manifest = output / "lec.sqlite"
    try:
        run = evaluate(plan, manifest, choose_device(device), None, notify, show)
    finally:
        for bar in bars:
            bar.close()
    rows = read_rows(run, manifest)
    found = means(rows)
    write_rows(output, rows, {column.method.spec: column.method.own_settings for column in run.columns})
    click.echo(json.dumps(plain(list(map(asdict, found))), indent=2) if as_json else as_markdown(found))
    failed = {row.file: row.reason for row in rows if row.reason and not row.reason.startswith("the same as ")}
    for name, reason in list(failed.items())[:10]:
        notify(f"failed: {name}: {reason}")
    notify(f"wrote {output / 'lec.csv'} and {output / 'lec.json'}")
    if failed:
        sys.exit(1)
