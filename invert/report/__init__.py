"""What came out, for people to read? One page, and beside it CSV, JSON and LaTeX, of a finished evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from invert.dataset import Reader
from invert.evaluation.manifest import Manifest
from invert.evaluation.runner import Run
from invert.literature import PublishedTable
from invert.photo import whole_file
from invert.report.export import as_csv, as_json, as_latex, as_markdown
from invert.report.page import as_html
from invert.report.summary import Summary, summarise

__all__ = ["Summary", "as_csv", "as_html", "as_json", "as_latex", "as_markdown", "files_of", "summarise", "write_report"]


_BESIDE = {".csv": as_csv, ".json": as_json, ".tex": as_latex}


def files_of(page: Path) -> list[Path]:
    """Return what ``write_report`` writes."""
    return [page, *(page.with_suffix(suffix) for suffix in _BESIDE)]


def write_report(run: Run, manifest: Path, page: Path, command: str, published: Sequence[PublishedTable] = ()) -> Summary:
    """Write the page and, under its stem, the CSV of every face, the JSON of everything and a LaTeX table.

    Args:
        run: what ``evaluate`` returned.
        manifest: its manifest.
        page: the HTML file to write; the others take its stem.
        command: what the user typed, to be shown.
        published: tables of papers to show, too, marked as such.

    Raises:
        OutputError: a file cannot be written; those before it are whole.
    """
    with Manifest(manifest) as book, Reader() as reader:
        summary = summarise(run, book, command, published)
        html = as_html(summary, book, reader)
    texts = {suffix: write(summary) for suffix, write in _BESIDE.items()} | {page.suffix: html}
    for suffix, text in texts.items():
        with whole_file(page.with_suffix(suffix)) as part:
            # Names that are no Unicode were turned into escapes by ``shown``; newlines stay as they are on every system.
            part.write_bytes(text.encode())
    return summary
