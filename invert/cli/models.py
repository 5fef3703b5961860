"""``stylegan-invert models``: which weights there are, fetching them ahead of time, and files from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from invert.cli.options import notify
from pretrained.catalog import DEFAULT_GENERATOR

if TYPE_CHECKING:
    from pretrained.conversion import Network

MAX_SHOWN = 20
"""Entries of a file that ``models show`` lists."""


@click.group(name="models", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List, fetch, show or convert generators."""


@command.command(name="list")
def list_models() -> None:
    """List the generators that can be fetched and the encoders that ship."""
    from pretrained.catalog import CATALOG
    from pretrained.shipped import encoder_names

    for entry in CATALOG.values():
        if entry.is_cached():
            state = f"cached, {entry.file.stat().st_size / 1e6:.0f} MB"
        else:
            state = "fetched on first use" + (f", {entry.megabytes} MB" if entry.megabytes else "")
        click.echo(f"{entry.name}  generator, {entry.resolution} px, {state}\n    {entry.summary}\n    {entry.licence}")
    for name, path in encoder_names().items():
        click.echo(f"{name}  encoder, ships with the toolkit, {path.stat().st_size / 1e6:.0f} MB")


@command.command(name="fetch")
@click.argument("name", default=DEFAULT_GENERATOR)
def fetch_model(name: str) -> None:
    """Fetch a generator into the cache, so that later runs need no network.

    What an interrupted download left is used. STYLEGAN_INVERT_MIRROR names the address of a folder with the same files.
    """
    from pretrained.catalog import fetch

    click.echo(fetch(name, notify))


@command.command(name="show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def show_model(file: Path, as_json: bool) -> None:
    """Say what a file of weights is, without running anything of it."""
    from pretrained.conversion import describe

    description = describe(file)
    if as_json:
        click.echo(json.dumps(description.json(), indent=2))
        return
    click.echo(f"{description.path}\n    {description.kind}\n    SHA-256 {description.sha256}")
    click.echo(f"    licence {description.licence}")
    for name, what in list(description.contents.items())[:MAX_SHOWN]:
        click.echo(f"    holds {name}: {what}")
    if len(description.contents) > MAX_SHOWN:
        click.echo(f"    and {len(description.contents) - MAX_SHOWN} more entries")
    for network in description.networks:
        _show_network(network)


def _show_network(network: Network) -> None:
    if network.problem:
        click.echo(f"{network.role}  {network.architecture}, cannot be used: {network.problem}")
        return
    numbers = [f"{network.resolution} px" if network.resolution else ""]
    numbers += [f"{network.num_ws} styles of {network.w_dim}" if network.num_ws else ""]
    numbers += [f"labels of {network.c_dim}" if network.c_dim else "", f"{network.parameters:,} parameters"]
    click.echo(f"{network.role}  {network.architecture}, {', '.join(filter(None, numbers))}")
    told = [f"{name.replace('_', ' ')} {value}" for name, value in network.arguments.items()]
    click.echo(f"    {', '.join(told)}")
    for note in network.notes:
        click.echo(f"    {note}")


@command.command(name="convert")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def convert_model(file: Path, out: Path) -> None:
    """Write FILE's network to OUT: .safetensors, or .pt for rosinality's code. Both then draw one face, to compare."""
    from pretrained.conversion import convert

    result = convert(file, out)
    for note in result.notes:
        notify(note)
    click.echo(f"{result.out}  draws the same: largest difference {result.difference:.1e} of the largest value")
