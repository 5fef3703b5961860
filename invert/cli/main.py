"""The command ``stylegan-invert``. Verbs are imported when they are called, so that ``--help`` never waits for torch."""

from __future__ import annotations

import importlib
import sys

import click
from click_default_group import DefaultGroup

VERBS = {
    "run": ("invert.cli.run", "Invert and edit photos (the verb that needs no name)."),
    "mix": ("invert.cli.mix", "Give a face the coarse, middle or fine styles of another."),
    "interpolate": ("invert.cli.interpolate", "Make a film from face to face."),
    "blend": ("invert.cli.blend", "Change a part of a face: by another face, or by an edit."),
    "video": ("invert.cli.video", "Edit the face of a video."),
    "directions": ("invert.cli.directions", "List edit directions, or learn new ones."),
    "models": ("invert.cli.models", "List, fetch, show or convert generators."),
    "evaluate": ("invert.cli.evaluate", "Measure methods over many aligned faces."),
    "quality": ("invert.cli.quality", "Measure a generator: FID, KID, path lengths, ..."),
    "lec": ("invert.cli.lec", "Measure how consistent edits are (LEC)."),
    "attribute": ("invert.cli.attribute", "Tell whether a generator drew a picture."),
    "literature": ("invert.cli.literature", "Print published tables, to compare with."),
    "train": ("invert.cli.train", "Train an encoder for a generator."),
    "doctor": ("invert.cli.doctor", "Say what is installed, cached and active."),
}


class LazyGroup(DefaultGroup):  # type: ignore[misc]
    """A group whose commands are modules that are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the verbs in the order of use."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb; what is no verb is an input of the default verb."""
        if cmd_name not in VERBS:
            ctx.arg0 = cmd_name  # type: ignore[attr-defined]  # DefaultGroup hands it on to the default verb.
            cmd_name = self.default_cmd_name
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(
    cls=LazyGroup, default="run", default_if_no_args=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="stylegan-invert")
def cli() -> None:
    """Find a face photo's latent code in a StyleGAN2-family generator, edit it and put the result back.

    \b
    stylegan-invert photo.jpg --method stylemap
    stylegan-invert photo.jpg --refine 30 --edit age=+2 --edit smile=-1
    stylegan-invert --demo
    stylegan-invert run --help        all options of the above
    """  # noqa: D301 (click reads \b as "keep these lines")


def exit_code(error: Exception) -> int:
    """Return what the command ends with: 2 for a mistake in it, 1 for one in what it works on."""
    from editing.errors import EditError
    from generators.errors import UnknownName
    from invert.errors import MethodError, RecipeError, SourceError

    return 2 if isinstance(error, (UnknownName, EditError, RecipeError, SourceError, MethodError)) else 1


def main() -> None:
    """Run the command line; mistakes of the user's become one line, not a traceback."""
    from generators.errors import ToolkitError

    try:
        cli(standalone_mode=False)
    except ToolkitError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(exit_code(error))
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
