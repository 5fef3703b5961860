"""How consistent are edits over a folder of faces? Latent editing consistency of every face, kept row by row, and its means.

The evaluation's runner does the work: what its manifest holds is not done again, whatever ended the run before.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from editing.lec import LatentDistance
from invert.evaluation.manifest import Manifest
from invert.evaluation.measures import figure_key
from invert.evaluation.runner import Run
from invert.json_values import plain
from invert.photo import whole_file
from invert.report.summary import cell


@dataclass(frozen=True)
class Row:
    """One edit of one face; NaN, and a reason, where it could not be measured."""

    file: str
    sha256: str
    method: str
    edit: str
    avg: float = math.nan
    min: float = math.nan
    max: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Mean:
    """One form of one edit over all faces that could be measured; each content counts once."""

    method: str
    edit: str
    form: str
    mean: float
    standard_error: float
    faces: int
    failed: int


def read_rows(run: Run, manifest: Path) -> list[Row]:
    """Read the figures of a run with edits, file by file; files of one content have the same ones, and say so."""
    forms = LatentDistance._fields
    keys: dict[str, dict[str, str]] = {}
    for description in run.measures.descriptions:
        metric, _, edit = description.key.partition(" ")
        if metric.removeprefix("lec-") in forms:
            keys.setdefault(edit, {})[metric.removeprefix("lec-")] = figure_key(description)
    rows, wanted = [], run.measures.keys()
    with Manifest(manifest) as book:
        for column in run.columns:
            results = {result.content: result for result in book.results(column.method.key)}
            for content, face in run.faces.files.items():
                result = results.get(content)
                why = column.unavailable or (result.why_not(wanted) if result is not None else "") or "not measured yet"
                for edit, of in keys.items():
                    values = {form: math.nan if result is None else result.figures.get(of[form], math.nan) for form in forms}
                    # What befell another edit of this face is none of this one's.
                    reason = why if any(map(math.isnan, values.values())) else ""
                    rows.append(Row(face.name, content, column.method.spec, edit, **values, reason=reason))
            others = run.faces.unreadable + [(face, f"the same as {first.name}") for face, first in run.faces.duplicates]
            rows += [Row(face.name, "", column.method.spec, edit, reason=why) for face, why in others for edit in keys]
    return rows


def means(rows: Sequence[Row]) -> list[Mean]:
    """Average each form of each edit, with its standard error."""
    found = []
    for method, edit in dict.fromkeys((row.method, row.edit) for row in rows):
        mine = [row for row in rows if (row.method, row.edit) == (method, edit)]
        for form in LatentDistance._fields:
            values = [value for row in mine if math.isfinite(value := getattr(row, form))]
            left = [row for row in mine if not math.isfinite(getattr(row, form))]
            failed = sum(not row.reason.startswith("the same as ") for row in left)
            mean = sum(values) / len(values) if values else math.nan
            spread = sum((value - mean) ** 2 for value in values) / (len(values) - 1) if len(values) > 1 else math.nan
            error = (spread / len(values)) ** 0.5 if values else math.nan
            found.append(Mean(method, edit, form, mean, error, len(values), failed))
    return found


def as_markdown(found: Sequence[Mean]) -> str:
    """Lay the means out as a table, one row an edit; where all forms agree they are one number."""
    lines = ["| method | edit | faces | failed | LEC avg | min | max |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for method, edit in dict.fromkeys((mean.method, mean.edit) for mean in found):
        of = {mean.form: mean for mean in found if (mean.method, mean.edit) == (method, edit)}
        cells = [_cell(of[form]) for form in LatentDistance._fields]
        first = of["avg"]
        lines.append(f"| {method} | {edit} | {first.faces} | {first.failed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(mean: Mean) -> str:
    if not mean.faces:
        return "n/a"
    return f"{mean.mean:.2f}" + (f" ± {mean.standard_error:.2f}" if math.isfinite(mean.standard_error) else "")


def write_rows(folder: Path, rows: Sequence[Row], settings: dict[str, Any]) -> None:
    """Write ``lec.csv``, a row a face and edit, and ``lec.json`` with the means, too; both whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    with whole_file(folder / "lec.csv") as part, part.open("w", newline="", encoding="utf-8", errors="replace") as file:
        table = csv.DictWriter(file, list(Row.__dataclass_fields__))
        table.writeheader()
        table.writerows({key: _cell_of(value) for key, value in asdict(row).items()} for row in rows)
    entries = plain({"settings": settings, "means": list(map(asdict, means(rows))), "rows": list(map(asdict, rows))})
    with whole_file(folder / "lec.json") as part:
        part.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8", errors="replace")


def _cell_of(value: str | float) -> str | float:
    if isinstance(value, str):
        return cell(value)
    return "" if math.isnan(value) else value
