"""How do the figures leave for other programs? Markdown for the terminal, CSV, JSON, and LaTeX for a paper."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from invert.evaluation.faces import RESOLUTION
from invert.json_values import plain
from invert.report.summary import MethodSummary, Summary, cell, digits_of, shown

SCHEMA_VERSION = 2
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "∞": r"$\infty$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "\\char34{}", "±": r"$\pm$",
}  # fmt: skip


def number(value: float, digits: int) -> str:
    """Write a number, or what stands in its place."""
    if math.isnan(value):
        return "n/a"
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{digits}f}"


def row_digits(summary: Summary, row: int) -> int:
    """Return the decimals of a metric, the same for all methods."""
    return digits_of([method.estimates[row].mean for method in summary.methods if method.estimates])


def as_markdown(summary: Summary) -> str:
    """Lay out means and 95 % intervals for a terminal: metrics are rows, methods are columns."""
    labels = [method.label.replace("|", "\\|") for method in summary.methods]
    lines = [f"| | {' | '.join(labels)} |", f"| --- |{' --- |' * len(labels)}"]
    lines.append(f"| faces | {' | '.join(str(method.measured) for method in summary.methods)} |")
    for row, metric in enumerate(summary.metrics):
        digits = row_digits(summary, row)
        cells = [_markdown_cell(method, row, digits) for method in summary.methods]
        lines.append(f"| {metric.name} {metric.arrow} | {' | '.join(cells)} |")
    lines += [f"| {key} | {' | '.join('n/a' for _ in labels)} |" for key in summary.run.measures.unavailable]
    seconds = [number(_mean(method), 3) for method in summary.methods]
    lines.append(f"| seconds an image | {' | '.join(seconds)} |")
    return "\n\n".join(["\n".join(lines), *(table.as_markdown() for table in summary.published)])


def _markdown_cell(method: MethodSummary, row: int, digits: int) -> str:
    if not method.estimates:
        return "n/a"
    estimate = method.estimates[row]
    text = number(estimate.mean, digits)
    text = f"**{text}**" if method.marks[row] == "best" else text
    return text if math.isnan(estimate.low) else f"{text} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def _mean(method: MethodSummary) -> float:
    return float(method.seconds.mean()) if method.measured else math.nan


def as_csv(summary: Summary) -> str:
    """Write one row a face and method: nothing in it depends on when or how often the run was started.

    What cannot be measured here has an empty column, and its reason in each row that has figures.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    lacking = [f"{shown(key)}: {shown(why)}" for key, why in summary.run.measures.unavailable.items()]
    keys = [*(metric.key for metric in summary.metrics), *map(shown, summary.run.measures.unavailable)]
    writer.writerow(["face", "sha256", "method", "status", "reason", *keys])
    blank = [""] * len(keys)
    for method in summary.methods:
        label = cell(method.label)
        for place, (name, content) in enumerate(zip(summary.names, summary.contents, strict=True)):
            reason = method.failures.get(place, method.unavailable)
            if reason:
                writer.writerow([cell(name), content, label, "failed", cell(reason), *blank])
                continue
            values = ["" if math.isnan(value) else repr(float(value)) for value in method.values[:, place]]
            status = "measured" if place in method.places else "missing"
            notes = [method.notes[place]] if place in method.notes else []
            row = [cell(name), content, label, status, cell("; ".join(notes + lacking)), *values]
            writer.writerow(row + [""] * len(lacking))
    for face, first in summary.run.faces.duplicates:
        writer.writerow([cell(shown(face.name)), "", "", "duplicate", f"same content as {shown(first.name)}", *blank])
    for face, reason in summary.run.faces.unreadable:
        writer.writerow([cell(shown(face.name)), "", "", "unreadable", cell(shown(reason)), *blank])
    return file.getvalue()


def as_json(summary: Summary) -> str:
    """Write all but the single faces' figures; what changes from run to run stands under ``cost`` and ``run``.

    Null is infinity in a range, and in a mean (or its interval) of some faces, as PSNR of equal images is; else no value.
    """
    faces = summary.run.faces
    content: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "protocol": {key: value for key, value in summary.provenance.items() if key in ("Data", "Networks")},
        "metrics": [
            {
                "key": m.key,
                "name": m.name,
                "higher_is_better": m.higher_is_better,
                "range": [m.low, m.high],
                "backbone": m.backbone,
            }
            for m in summary.metrics
        ],
        "unavailable": {shown(key): shown(reason) for key, reason in summary.run.measures.unavailable.items()},
        "unmarked": summary.unmarked,
        "methods": [_method(method, summary) for method in summary.methods],
        "faces": {
            "files": faces.count,
            "different": len(faces.files),
            "duplicates": [[shown(face.name), shown(first.name)] for face, first in faces.duplicates],
            "unreadable": [[shown(face.name), shown(reason)] for face, reason in faces.unreadable],
        },
        "cost": {method.label: {"seconds": _mean(method), "peak_bytes": method.peak_bytes} for method in summary.methods},
        "published": [table.as_json() for table in summary.published],
        "run": {"command": summary.command, **summary.provenance},
    }
    return json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _method(method: MethodSummary, summary: Summary) -> dict[str, Any]:
    figures = {
        metric.key: {"mean": e.mean, "interval": [e.low, e.high], "count": e.count, "mark": mark}
        for metric, e, mark in zip(summary.metrics, method.estimates, method.marks, strict=bool(method.estimates))
    }
    return {
        "method": method.label,
        "settings": method.method.own_settings | {"method": shown(method.method.own_settings["method"])},
        "measured": method.measured,
        "figures": figures,
        "unavailable": method.unavailable,
        "failures": [[summary.names[place], reason] for place, reason in method.failures.items()],
        "notes": [[summary.names[place], note] for place, note in method.notes.items()],
    }


def as_latex(summary: Summary) -> str:
    """Write tables for a paper (package booktabs); metrics are rows, methods columns, costs a table of their own."""
    counts = {method.measured for method in summary.methods if not method.unavailable}
    faces = _faces(counts.pop()) if len(counts) == 1 else "the faces measured"
    rows = [["faces", *(_thousands(method.measured) for method in summary.methods)]]
    for row, metric in enumerate(summary.metrics):
        digits = row_digits(summary, row)
        rows.append([latex(f"{metric.name} {metric.arrow}"), *(_latex_cell(m, row, digits) for m in summary.methods)])
    lacking = {shown(key): shown(why) for key, why in summary.run.measures.unavailable.items()}
    rows += [[latex(key), *("--" for _ in summary.methods)] for key in lacking]
    backbones = [f"{metric.name}: {metric.backbone}" for metric in summary.metrics if not metric.backbone.startswith("none")]
    named = f" {latex('; '.join(backbones))}." if backbones else ""
    reasons = [f"{name}: {why}" for name, why in summary.unmarked.items()]
    unmarked = f" Not marked: {latex('; '.join(reasons))}." if reasons else ""
    absent = [f"{key}: {why}" for key, why in lacking.items()]
    unmeasured = f" Not measured: {latex('; '.join(absent))}." if absent else ""
    caption = (
        f"Means over {faces} at {RESOLUTION}\\,px with 95\\,\\% bootstrap intervals. Bold: best;"
        f" $\\dagger$: not told from the best by the paired interval.{unmarked}{unmeasured}{named}"
    )
    cost = [["seconds an image", *(latex(number(_mean(method), 3)) for method in summary.methods)]]
    cost.append(["peak memory [GiB]", *(latex(memory(method)) for method in summary.methods)])
    hardware = latex(", ".join(summary.provenance["Hardware"].values()))
    return _latex_table(summary, rows, caption) + "\n" + _latex_table(summary, cost, f"Cost on {hardware}.")


def _faces(count: int) -> str:
    return "1 face" if count == 1 else f"{_thousands(count)} faces"


def _thousands(count: int) -> str:
    return f"{count:,}".replace(",", "{,}")


def latex(text: str) -> str:
    """Escape a text for LaTeX."""
    return "".join(_LATEX.get(character, character) for character in text)


def memory(method: MethodSummary) -> str:
    """Write the peak memory in GiB, where it could be told."""
    return f"{method.peak_bytes / 2**30:.2f}" if method.peak_bytes else "n/a"


def _latex_table(summary: Summary, rows: list[list[str]], caption: str) -> str:
    heads = ["", *(latex(method.label) for method in summary.methods)]
    body = [" & ".join(row) + r" \\" for row in rows]
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{caption}}}",
        rf"  \begin{{tabular}}{{l{'c' * len(summary.methods)}}}",
        r"    \toprule",
        f"    {' & '.join(heads)} " + r"\\",
        r"    \midrule",
        *(f"    {line}" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(method: MethodSummary, row: int, digits: int) -> str:
    if not method.estimates or math.isnan(method.estimates[row].mean):
        return "--"
    estimate, mark = method.estimates[row], method.marks[row]
    mean = latex(number(estimate.mean, digits))
    mean = {"best": rf"\textbf{{{mean}}}", "tied": rf"{mean}$^\dagger$"}.get(mark, mean)
    if estimate.count != method.measured:
        mean += rf" {{\scriptsize ({_faces(estimate.count)})}}"
    if math.isnan(estimate.low):
        return mean
    return rf"{mean} {{\scriptsize [{latex(number(estimate.low, digits))}, {latex(number(estimate.high, digits))}]}}"
