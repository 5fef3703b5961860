"""``stylegan-invert literature``: published tables, with their protocols."""

from __future__ import annotations

import json

import click


@click.command(name="literature", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Print published tables (all, if none is named) as they were printed, with source and protocol.

    The name of a method, as e4e, means all tables that have figures of it.

    Compare one's own figures only with those of the same images, resolution and backbones.

    \b
    stylegan-invert literature
    stylegan-invert literature stylemap ganinverter
    """  # noqa: D301 (click reads \b as "keep these lines")
    from generators.errors import ToolkitError
    from invert.literature import PUBLISHED, published_tables

    try:
        found = [table for name in names or PUBLISHED for table in published_tables(name)]
    except ToolkitError as error:
        raise click.UsageError(str(error)) from error
    tables = {table.key: table for table in found}.values()
    if as_json:
        click.echo(json.dumps([table.as_json() for table in tables]))
    else:
        click.echo("\n\n".join(table.as_markdown() for table in tables))
