"""Options that several verbs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pretrained.catalog import DEFAULT_GENERATOR

if TYPE_CHECKING:
    import torch

generator_option = click.option(
    "--generator",
    default=DEFAULT_GENERATOR,
    show_default=True,
    metavar="NAME|FILE",
    help="A name of 'models list', or a file.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps."
)


def notify(message: str) -> None:
    """Tell the user something, beside the results."""
    click.echo(message, err=True)


def choose_device(name: str) -> torch.device:
    """Turn a name into a device; ``auto`` takes a GPU where there is one."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise click.UsageError(f"--device {name}: {reason}; expected auto, cpu, or a GPU that this machine has") from error
    return device
