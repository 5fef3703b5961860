"""What does a person read? One page that holds everything: table, charts, faces, edits, remarks, and how to do it again."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from importlib import resources
from itertools import groupby
from string import Template

import numpy as np
from jaxtyping import Float64
from PIL import Image

from invert.dataset import Reader
from invert.errors import NoFaceFound, PhotoError
from invert.evaluation.faces import read_face
from invert.evaluation.manifest import Manifest
from invert.evaluation.runner import DRAWN
from invert.report.chart import Spread, distribution
from invert.report.export import memory, number, row_digits
from invert.report.summary import MethodSummary, Summary, shown

EACH = 3
"""Best, median and worst faces that are shown of a method."""
MOST_REMARKS = 50
_MARKS = {"best": " class=best", "tied": " class=tied", "": ""}


def as_html(summary: Summary, book: Manifest, reader: Reader) -> str:
    """Write the page.

    Args:
        summary: the figures.
        book: holds the pictures of the inversions.
        reader: reads the originals of the faces that are shown.
    """
    pictures = _Pictures(summary, book, reader)
    sections = [
        ("results", "Results", _results(summary)),
        ("distributions", "Distributions", _distributions(summary)),
        ("faces", "Best, median and worst faces", _faces(summary, pictures)),
        ("edits", "Edits", _edits(summary, pictures)),
        ("remarks", "Remarks", _remarks(summary)),
        *([("published", "Published figures", _published(summary))] if summary.published else []),
        ("metrics", "What is measured", _metrics(summary)),
        ("again", "How to do it again", _again(summary)),
    ]
    contents = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title, _ in sections)
    body = "".join(f'<section id="{anchor}"><h2>{title}</h2>{text}</section>' for anchor, title, text in sections)
    return Template(_asset("page.html")).substitute(
        title=_text(_title(summary)), lead=_lead(summary), contents=contents, body=body, style=_asset("style.css")
    )


def _asset(name: str) -> str:
    return resources.files("invert.report").joinpath(name).read_text(encoding="utf-8")


def _text(text: str) -> str:
    """Make any text safe inside the page, attributes included."""
    return html.escape(shown(text))


def _title(summary: Summary) -> str:
    labels = [method.label for method in summary.methods]
    return f"Inversion by {', '.join(labels[:-1])} and {labels[-1]}" if len(labels) > 1 else f"Inversion by {labels[0]}"


def _lead(summary: Summary) -> str:
    faces, run = summary.run.faces, summary.run
    split = f" of the split <q>{_text(run.plan.split)}</q>" if run.plan.split else ""
    parts = [
        f"{len(faces.files):,} faces{split}, generator {_text(run.generator.identity.name)}, measured at 256 px in [−1, 1]."
    ]
    if faces.duplicates:
        parts.append(f"{len(faces.duplicates):,} of {faces.count:,} files repeat another's content and count once.")
    if faces.unreadable:
        parts.append(f"{len(faces.unreadable):,} files cannot be read.")
    if not summary.is_complete:
        parts.append('<strong>Not every face has its figures: see <a href="#remarks">the remarks</a>.</strong>')
    return " ".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, kind: str = "figures") -> str:
    """Lay out a table whose cells are finished; it scrolls by itself where it is too wide, by keyboard, too.

    Equal neighbours in the head become one cell.
    """
    spans = [(cell, len(list(equal))) for cell, equal in groupby(head)]
    top = "".join(f'<th scope="col"{f" colspan={count}" if count > 1 else ""}>{cell}</th>' for cell, count in spans)
    body = "".join(f'<tr><th scope="row">{row[0]}</th>{"".join(row[1:])}</tr>' for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_plain(caption)}">'
        f'<table class="{kind}"><caption>{caption}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _plain(caption: str) -> str:
    """Return a caption's first sentence without markup, which is escaped already."""
    return re.sub(r"<[^>]*>", "", caption).split(".")[0].replace('"', "&quot;")


def _results(summary: Summary) -> str:
    head = ["", *(_text(method.label) for method in summary.methods)]
    rows = [["faces", *(f"<td>{method.measured:,}</td>" for method in summary.methods)]]
    for row, metric in enumerate(summary.metrics):
        digits = row_digits(summary, row)
        name = f"{_text(metric.name)} <span class=arrow title='{_better(metric.higher_is_better)}'>{metric.arrow}</span>"
        rows.append([name, *(_cell(method, row, digits) for method in summary.methods)])
    for key, reason in summary.run.measures.unavailable.items():
        rows.append([_text(key), f'<td class="why" colspan="{len(summary.methods)}">not measured: {_text(reason)}</td>'])
    caption = (
        "Means over the faces that were measured, with 95 % bootstrap intervals. ↑ higher is better, ↓ lower is better."
        " <b>Bold</b>: best; †: cannot be told from the best (the paired interval of the difference holds 0)."
        " Two methods are compared on the faces that both have."
    )
    cost = [["seconds an image", *(f"<td>{number(_mean(method), 3)}</td>" for method in summary.methods)]]
    cost.append(["peak memory, GiB", *(f"<td>{memory(method)}</td>" for method in summary.methods)])
    hardware = _text(", ".join(summary.provenance["Hardware"].values()))
    workers = "1 worker" if summary.run.team.size == 1 else f"{summary.run.team.size} workers"
    threads = "1 thread" if summary.run.plan.threads == 1 else f"{summary.run.plan.threads} threads"
    note = f"Cost of the inversion alone. {hardware}; {workers}, {threads} each; memory of a whole worker."
    return _table(head, rows, caption) + _table(head, cost, note)


def _better(higher: bool) -> str:
    return "higher is better" if higher else "lower is better"


def _mean(method: MethodSummary) -> float:
    return float(method.seconds.mean()) if method.measured else math.nan


def _cell(method: MethodSummary, row: int, digits: int) -> str:
    if method.unavailable:
        return '<td class="why">–</td>'
    estimate, mark = method.estimates[row], method.marks[row]
    if math.isnan(estimate.mean):
        return "<td>n/a</td>"
    between = f"{number(estimate.low, digits)}–{number(estimate.high, digits)}" if not math.isnan(estimate.low) else ""
    fewer = f" <small>({estimate.count:,} faces)</small>" if estimate.count != method.measured else ""
    return (
        f"<td><span{_MARKS[mark]}>{number(estimate.mean, digits)}</span>{fewer} <span class=interval>{between}</span></td>"
    )


def _distributions(summary: Summary) -> str:
    charts = []
    for row, metric in enumerate(summary.metrics):
        spreads = [
            Spread(method.label, method.values[row][np.isfinite(method.values[row])], method.estimates[row])
            for method in summary.methods
            if not method.unavailable
        ]
        name = f"{metric.name} {metric.arrow}"
        if any(len(spread.values) for spread in spreads):
            chart = distribution(f"Distribution of {metric.name}", name, spreads, row_digits(summary, row))
            charts.append(f"<figure><figcaption>{_text(name)}</figcaption>{chart}</figure>")
    if not charts:
        return "<p>Nothing was measured.</p>"
    legend = "Density over the faces, on its base the quartiles and the median; the dot is the mean, its bar the interval."
    return f'<p>{legend}</p><div class="charts">{"".join(charts)}</div>'


class _Pictures:
    """Turns faces into pictures of the page."""

    def __init__(self, summary: Summary, book: Manifest, reader: Reader) -> None:
        self._summary, self._book, self._reader = summary, book, reader
        self._originals: dict[int, str] = {}

    def original(self, place: int) -> str:
        """Show a face as it was measured."""
        if place not in self._originals:
            self._originals[place] = self._read(place)
        return self._originals[place]

    def drawn(self, place: int, method: MethodSummary, label: str = DRAWN, note: str = "") -> str:
        """Show what a method drew of a face."""
        if method.unavailable or place in method.failures:
            return f'<p class="none">{_text(method.failures.get(place, "not measured"))}</p>'
        data = self._book.picture(self._summary.contents[place], method.method.key, label)
        what = method.label if label == DRAWN else f"{method.label}, {label}"
        return _picture(data, f"{self._summary.names[place]} by {what}", note)

    def _read(self, place: int) -> str:
        name = self._summary.names[place]
        content = self._summary.contents[place]
        try:
            pixels = read_face(self._reader, self._summary.run.faces.files[content], self._summary.run.kind, content)
        except (PhotoError, NoFaceFound):
            return _picture(None, name, _stem(name))
        file = io.BytesIO()
        Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "JPEG", quality=90, subsampling=0)
        return _picture(file.getvalue(), f"{name}, original", _stem(name))


def _stem(name: str) -> str:
    stem = name.rpartition("/")[2].rpartition(".")[0] or name
    return stem if len(stem) <= 16 else f"{stem[:15]}…"


def _picture(jpeg: bytes | None, alt: str, note: str) -> str:
    if jpeg is None:
        return '<p class="none">no picture kept</p>'
    data = base64.b64encode(jpeg).decode()
    image = f'<img src="data:image/jpeg;base64,{data}" alt="{_text(alt)}" width="256" height="256">'
    return f"<figure>{image}<figcaption>{_text(note)}</figcaption></figure>" if note else image


def _faces(summary: Summary, pictures: _Pictures) -> str:
    """Show, for every method, the faces that it did best, middling and worst, as all methods drew them."""
    rows = [row for row, metric in enumerate(summary.metrics) if metric.key.startswith("lpips")]
    row = rows[0] if rows else 0
    if not summary.metrics:
        return "<p>Without a metric there is no order.</p>"
    metric, digits = summary.metrics[row], row_digits(summary, row)
    grids = []
    for method in summary.methods:
        order = _in_order(method.values[row], metric.higher_is_better)
        if not order:
            continue
        chosen = _chosen(order)
        cells = [["original", *(f"<td>{pictures.original(place)}</td>" for _, place in chosen)]]
        for other in summary.methods:
            drawn = (pictures.drawn(p, other, note=number(float(other.values[row, p]), digits)) for _, p in chosen)
            name = _text(other.label)
            cells.append([f"<b>{name}</b>" if other is method else name, *(f"<td>{picture}</td>" for picture in drawn)])
        caption = f"By {_text(metric.name)} of {_text(method.label)}; below each picture its own value"
        grids.append(_table(["", *(group for group, _ in chosen)], cells, caption, "pictures"))
    return "".join(grids) or "<p>Nothing was measured.</p>"


def _in_order(values: Float64[np.ndarray, " faces"], higher_is_better: bool) -> list[int]:
    """Return the faces that have a value, which may be infinite (PSNR of equal images), the best first."""
    order = np.argsort(-values if higher_is_better else values, kind="stable")  # NaN comes last.
    return [int(place) for place in order[: np.count_nonzero(~np.isnan(values))]]


def _chosen(order: list[int]) -> list[tuple[str, int]]:
    """Pick from faces in order, each once."""
    middle = max(0, len(order) // 2 - EACH // 2)
    groups = {"best": order[:EACH], "median": order[middle : middle + EACH], "worst": order[-EACH:]}
    chosen: dict[int, str] = {}
    for group, places in groups.items():
        for place in places:
            chosen.setdefault(place, group)
    return [(group, place) for place, group in chosen.items()]


def _edits(summary: Summary, pictures: _Pictures) -> str:
    measures = summary.run.measures
    if not measures.strip:
        return f"<p>None drawn: {_text(measures.strip_reason)}.</p>"
    places = [summary.contents.index(content) for content in summary.run.strip_faces]
    places = [place for place in places if any(place not in m.failures and not m.unavailable for m in summary.methods)]
    strips = []
    labels = (DRAWN, *(edit.label for edit in measures.strip))
    for place in places:
        cells: list[list[str]] = []
        original = f'<td rowspan="{len(summary.methods)}">{pictures.original(place)}</td>'
        for method in summary.methods:
            drawn = [f"<td>{pictures.drawn(place, method, label)}</td>" for label in labels]
            cells.append([_text(method.label), *([] if cells else [original]), *drawn])
        head = ["", "original", "inverted", *(_text(str(edit.spec)) for edit in measures.strip)]
        strips.append(_table(head, cells, f"Edits of {_text(summary.names[place])}", "pictures large"))
    return "".join(strips)


def _remarks(summary: Summary) -> str:
    """Say everything that is not there, and why."""
    faces = summary.run.faces
    lists = [
        ("Files that cannot be read", [(shown(face.name), reason) for face, reason in faces.unreadable]),
        ("Files with the content of another", [(shown(face.name), shown(first.name)) for face, first in faces.duplicates]),
        ("Metrics that cannot be had here", list(summary.run.measures.unavailable.items())),
        ("Methods that cannot be had here", [(m.label, m.unavailable) for m in summary.methods if m.unavailable]),
        ("Metrics by which no method is marked as the best", list(summary.unmarked.items())),
        ("Not measured yet, for a worker is gone", [(label, f"{n:,} faces") for label, n in summary.missing.items()]),
        ("What workers left undone", [("this run", summary.run.lost)] if summary.run.lost else []),
    ]
    for method in summary.methods:
        named = [[(summary.names[p], text) for p, text in texts.items()] for texts in (method.failures, method.notes)]
        lists += [(f"Failed by {method.label}", named[0]), (f"Without some figure by {method.label}", named[1])]
    parts = []
    for title, entries in lists:
        if entries:
            items = "".join(f"<li><b>{_text(name)}</b>: {_text(reason)}</li>" for name, reason in entries[:MOST_REMARKS])
            rest = len(entries) - MOST_REMARKS
            more = f"<li>and {rest:,} more: the CSV beside this page has them all</li>" if rest > 0 else ""
            parts.append(f"<h3>{_text(title)} ({len(entries):,})</h3><ul>{items}{more}</ul>")
    return "".join(parts) or "<p>Every file was read, and every face has its figures by every method.</p>"


def _published(summary: Summary) -> str:
    tables = []
    for table in summary.published:
        rows = [[_text(method), *(f"<td>{cell}</td>" for cell in cells)] for method, cells in table.rows.items()]
        caption = (
            f"<b>Published</b>: {_text(table.title)}. Source: {_text(table.source)}. Protocol: {_text(table.protocol)}."
            f" Read from: {_text(table.read_from)}. Figures of another protocol do not compare."
        )
        tables.append(_table(["method", *map(_text, table.columns)], rows, caption))
    return "".join(tables)


def _metrics(summary: Summary) -> str:
    rows = []
    for metric in summary.metrics:
        high = "∞" if math.isinf(metric.high) else f"{metric.high:g}"
        cells = (f"{metric.low:g} to {high}", _better(metric.higher_is_better), _text(metric.backbone), _text(metric.key))
        rows.append([_text(metric.name), *(f"<td>{cell}</td>" for cell in cells)])
    caption = "Both images are brought to 256 px in [−1, 1] first. The key is the column of the CSV."
    return _table(["", "range", "direction", "backbone", "key"], rows, caption, "words")


def _again(summary: Summary) -> str:
    blocks = [f"<pre tabindex='0'><code>{_text(summary.command)}</code></pre>"] if summary.command else []
    for title, entries in summary.provenance.items():
        items = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in entries.items())
        blocks.append(f"<h3>{_text(title)}</h3><dl>{items}</dl>")
    return "".join(blocks)
