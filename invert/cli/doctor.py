"""``stylegan-invert doctor``: what a bug report should say."""

from __future__ import annotations

import click

from invert.cli.options import device_option


@click.command(name="doctor", context_settings={"help_option_names": ["-h", "--help"]})
@device_option
@click.option("--benchmark", is_flag=True, help="Measure what torch.compile costs and gains (about a minute).")
def command(device: str, benchmark: bool) -> None:
    """Say what is installed, cached and active."""
    from invert.cli.options import choose_device
    from invert.diagnosis import diagnose

    for finding in diagnose(choose_device(device), benchmark):
        click.echo(str(finding))
