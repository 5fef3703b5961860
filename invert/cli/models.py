"""``stylegan-invert models``: which weights there are, and fetching them ahead of time."""

from __future__ import annotations

import click

from invert.cli.options import DEFAULT_GENERATOR, notify


@click.group(name="models", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List or fetch generators."""


@command.command(name="list")
def list_models() -> None:
    """List the generators that can be fetched and the encoders that ship."""
    from pretrained.catalog import CATALOG
    from pretrained.shipped import encoder_names

    for entry in CATALOG.values():
        state = "cached" if entry.is_cached() else f"fetched on first use, {entry.megabytes} MB"
        click.echo(f"{entry.name}  generator, {entry.resolution} px, {state}\n    {entry.summary}\n    {entry.licence}")
    for name, path in encoder_names().items():
        click.echo(f"{name}  encoder, ships with the toolkit, {path.stat().st_size / 1e6:.0f} MB")


@command.command(name="fetch")
@click.argument("name", default=DEFAULT_GENERATOR)
def fetch_model(name: str) -> None:
    """Fetch a generator into the cache, so that later runs need no network."""
    from pretrained.catalog import fetch

    click.echo(fetch(name, notify))
