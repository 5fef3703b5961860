"""``stylegan-invert evaluate DIR``: figures over many faces, and the report that shows them."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from invert.cli.options import SEED, choose_device, device_option, dtype_option, generator_option, notify, space_option

if TYPE_CHECKING:
    from types import TracebackType

    import torch
    from tqdm import tqdm

    from invert.evaluation.runner import Plan, Progress
    from invert.evaluation.team import Team
    from invert.report import Summary

LINE_SEC = 15.0
"""Between two lines of progress where there is no terminal."""
METRICS = "mse,psnr,ssim,ms-ssim,lpips-squeeze,id-dlib"


@click.command(name="evaluate", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sources", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="DIR|ZIP|LIST|IMAGE...")
@click.option(
    "--methods",
    "--method",
    "methods",
    default="stylemap",
    show_default=True,
    metavar="A,B",
    help="Encoders by name or file (with +N: N refining steps; with +ptiM: M of tuning the generator), projector.",
)
@click.option("--metrics", default=METRICS, show_default=True, metavar="A,B", help="What to measure.")
@click.option(
    "--edit",
    "edits",
    multiple=True,
    metavar="NAME=STRENGTH",
    help="Measure this edit, too: latent editing consistency, identity kept; where it names a scored attribute, how far that"
    " moved and the leak into others. Several are measured one by one.",
)
@click.option(
    "--report",
    default="stylegan-invert-out/evaluation.html",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The page; CSV, JSON and LaTeX come beside it.",
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What remembers every result, so that a stopped run goes on.  [default: beside the report]",
)
@click.option(
    "--split", metavar="NAME", help="Only this split, as told by attributes.csv, a subfolder or CelebA-HQ's mapping."
)
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Only the first N files.")
@click.option(
    "--faces",
    "kind",
    type=click.Choice(["auto", "aligned", "photos"]),
    default="auto",
    show_default=True,
    help="aligned: FFHQ crops; photos: the largest face is cut out; auto: looks at a few.",
)
@click.option("--steps", default=100, show_default=True, metavar="N", type=click.IntRange(1), help="Steps of the projector.")
@space_option
@click.option("--seed", default=0, show_default=True, metavar="N", type=SEED, help="Of everything random.")
@click.option(
    "--workers",
    default=1,
    show_default=True,
    metavar="N",
    type=click.IntRange(1),
    help="Processes on this machine; torchrun starts them on several.",
)
@click.option(
    "--threads", default=1, show_default=True, metavar="N", type=click.IntRange(1), help="Of each worker; changes rounding."
)
@click.option(
    "--batch", default=1, show_default=True, metavar="N", type=click.IntRange(1), help="Faces at once; changes rounding."
)
@click.option(
    "--published",
    multiple=True,
    metavar="NAME",
    help="Show this table of a paper, too, marked as published; names: stylegan-invert literature.",
)
@click.option("--retry-failed", is_flag=True, help="Try again what failed before.")
@generator_option
@dtype_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print the JSON of the report instead of the table.")
def command(
    sources: tuple[Path, ...],
    methods: str,
    metrics: str,
    edits: tuple[str, ...],
    report: Path,
    manifest: Path | None,
    split: str | None,
    limit: int | None,
    kind: str,
    steps: int,
    space: str,
    seed: int,
    workers: int,
    threads: int,
    batch: int,
    published: tuple[str, ...],
    retry_failed: bool,
    generator: str,
    dtype: str,
    device: str,
    as_json: bool,
) -> None:
    """Measure how well methods reconstruct and edit faces, and write a report.

    Stop it at any moment and start it again: what is done is kept, nothing is done twice. Failures are rows with a reason.

    \b
    stylegan-invert evaluate faces/ --methods stylemap,stylemap+30,projector --report report.html
    stylegan-invert evaluate CelebAMask-HQ/ --split test --methods psp,e4e,stylemap --report report.html
    torchrun --nproc-per-node 8 -m invert.cli.main evaluate faces/ --methods stylemap --report report.html
    """  # noqa: D301 (click reads \b as "keep these lines")
    if not sources:
        raise click.UsageError("name a folder, a zip file, a list or images to measure")
    if report.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--report {report}: expected a name that ends in .html; CSV, JSON and LaTeX come beside it")
    book = manifest if manifest is not None else report.with_suffix(".sqlite")
    from editing.composition import parse_edits
    from generators.errors import ToolkitError
    from invert.cli.main import exit_code
    from invert.evaluation.runner import Plan, evaluate
    from invert.evaluation.team import STORE_PORT, Team, numbers_from_environment, start_workers
    from invert.literature import published_tables
    from invert.performance import keep_freed_memory
    from invert.report import as_json as to_json
    from invert.report import as_markdown, files_of, write_report
    from invert.report.summary import shown

    if book.resolve() in [file.resolve() for file in files_of(report)]:
        raise click.UsageError(f"--manifest {book}: the report would overwrite it; choose a name in .sqlite")

    rank, size, _ = numbers_from_environment()
    if STORE_PORT in os.environ or rank:
        # What is left out of a folder was told by the process that started this one, or is by the first.
        logging.getLogger("invert.dataset").setLevel(logging.ERROR)
    tables = [table for name in published for table in published_tables(name)]
    specs = parse_edits(edits)
    for spec in specs:
        if spec.mask is not None:
            raise click.UsageError(f"--edit {spec}: evaluate takes no masks; leave @{spec.mask} out")
    plan = Plan(
        sources,
        _split(methods),
        _split(metrics),
        generator,
        edits=tuple(specs),
        split=split,
        limit=limit,
        kind=cast("Literal['auto', 'aligned', 'photos']", kind),
        steps=steps,
        space=space,
        seed=seed,
        threads=threads,
        batch=batch,
        dtype=dtype,
        retry_failed=retry_failed,
    )
    if workers > 1 and size > 1 and STORE_PORT not in os.environ and rank == 0:
        notify(f"--workers {workers} is left out: torchrun started {size} workers already")
    if workers > 1 and size == 1:
        _check(plan)
        choose_device(device)
        sys.exit(start_workers([sys.executable, "-m", "invert.cli.main", *sys.argv[1:]], workers, notify))
    keep_freed_memory()
    team = Team.from_environment()
    try:
        with _Bars(team) as bars:
            run = evaluate(plan, book, _device(device, team), team, notify if team.leads else lambda message: None, bars)
    except ToolkitError as error:
        if team.is_first_to_say(str(error)):
            raise
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        if team.is_first_to_say("stopped"):
            raise
        sys.exit(130)
    if not team.leads:
        return
    summary = write_report(run, book, report, shlex.join(["stylegan-invert", *sys.argv[1:]]), tables)
    click.echo(to_json(summary) if as_json else as_markdown(summary))
    for line in remarks(summary):
        if team.is_first_to_say(line):
            notify(line)
    notify(f"wrote {shown(str(report))} and, beside it, CSV, JSON and LaTeX")
    if not summary.is_complete:
        sys.exit(1)


def remarks(summary: Summary) -> list[str]:
    """Say in a few lines what the table is silent about."""
    from invert.report.summary import shown

    faces = summary.run.faces
    lines = [f"{key}: not measured: {reason}" for key, reason in summary.run.measures.unavailable.items()]
    if faces.duplicates:
        lines.append(f"{len(faces.duplicates)} of {faces.count} files repeat another's content and count once")
    if faces.unreadable:
        first, reason = faces.unreadable[0]
        lines.append(
            f"{len(faces.unreadable)} of {faces.count} files cannot be read, the first: {shown(first.name)}: {reason}"
        )
    for method in summary.methods:
        if method.unavailable:
            lines.append(f"{method.label}: not measured: {method.unavailable}")
        elif method.failures:
            place, reason = next(iter(method.failures.items()))
            lines.append(
                f"{method.label}: {len(method.failures)} of {len(summary.names)} faces failed, the first:"
                f" {summary.names[place]}: {reason} (--retry-failed tries them again)"
            )
        if method.notes:
            place, note = next(iter(method.notes.items()))
            lines.append(
                f"{method.label}: {len(method.notes)} of {len(summary.names)} faces lack a figure, the first:"
                f" {summary.names[place]}: {note} (--retry-failed tries them again)"
            )
    lines += [f"{name}: no method is marked as the best: {why}" for name, why in summary.unmarked.items()]
    lines += [f"{label}: {count} faces are left; the same command goes on" for label, count in summary.missing.items()]
    return [*lines, *([summary.run.lost] if summary.run.lost else [])]


class _Bars:
    """Shows how far this worker is, with the time left: a bar in a terminal, now and then a line elsewhere."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._bar: tqdm | None = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: Progress) -> None:
        """Show it; 0 done begins a method."""
        from tqdm import tqdm

        from invert.report.summary import shown

        if progress.done == 0:
            self.__exit__(None, None, None)
            worker = f"{self._team.name}, " if self._team.size > 1 else ""
            is_terminal = sys.stderr.isatty()
            self._bar = tqdm(
                total=progress.total,
                desc=f"{worker}{shown(progress.method)}",
                unit="face",
                position=self._team.local_rank if is_terminal else 0,
                mininterval=0.1 if is_terminal else LINE_SEC,
                dynamic_ncols=is_terminal,
            )
        assert self._bar is not None
        self._bar.total = progress.total  # Who is faster than the others is dealt more.
        if progress.failed:
            self._bar.set_postfix_str(f"{progress.failed} failed", refresh=False)
        self._bar.update(progress.done - self._bar.n)


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())


def _device(name: str, team: Team) -> torch.device:
    """Give every worker of a machine a GPU of its own, where there are several."""
    import torch

    device = choose_device(name)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", team.local_rank % torch.cuda.device_count())
    return device


def _check(plan: Plan) -> None:
    """Refuse what every worker would refuse, before any is started."""
    from invert.dataset import find_faces
    from invert.evaluation.measures import check_metrics
    from invert.evaluation.methods import parse_methods

    parse_methods(plan.methods, plan.steps, plan.space)
    check_metrics(plan.metrics)
    find_faces(plan.sources, plan.split, plan.limit)
