"""Which numbers does a report show? Means with their intervals, who is best, what failed, and what to do it again with."""

from __future__ import annotations

import datetime
import hashlib
import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from invert.evaluation.faces import RESOLUTION
from invert.evaluation.manifest import Manifest
from invert.evaluation.measures import figure_key
from invert.evaluation.methods import Method
from invert.evaluation.runner import Column, Run
from invert.evaluation.statistics import Estimate, estimate, interval, resampled_means
from invert.literature import PublishedTable
from invert.metrics import Description
from invert.pipeline import toolkit_version

_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "lpips", "torchmetrics", "dlib-bin")


@dataclass(frozen=True)
class MethodSummary:
    """One column of the table."""

    method: Method
    label: str
    """What stands above the column: the name, of a file without its folders."""
    values: Float64[np.ndarray, "metrics faces"]
    """NaN where there is none."""
    seconds: Float64[np.ndarray, " measured"]
    """An image, of those measured."""
    peak_bytes: int
    places: frozenset[int] = frozenset()
    """Of the faces that it has all figures of, in the list."""
    estimates: list[Estimate] = field(default_factory=list)
    """One a metric."""
    marks: list[str] = field(default_factory=list)
    """One a metric: ``best``, ``tied`` (its interval to the best, on the faces that both have, holds 0) or nothing."""
    unavailable: str = ""
    """Why there is nothing."""
    failures: dict[int, str] = field(default_factory=dict)
    """Why there are no figures of a face, by its place in the list."""
    notes: dict[int, str] = field(default_factory=dict)
    """Why some figure of a face is missing."""

    @property
    def measured(self) -> int:
        """How many faces it has all figures of."""
        return len(self.seconds)


@dataclass(frozen=True)
class Summary:
    """All that a report shows but pictures."""

    run: Run
    metrics: list[Description]
    methods: list[MethodSummary]
    names: list[str]
    """Of the faces, as shown."""
    command: str
    provenance: dict[str, dict[str, str]]
    """By heading and name."""
    published: Sequence[PublishedTable] = ()
    """Tables of papers to stand beside."""
    unmarked: dict[str, str] = field(default_factory=dict)
    """Why no method is marked as the best, by the metrics' names, where several have figures."""

    @property
    def contents(self) -> list[str]:
        """SHA-256 of the faces, in the order of their names."""
        return list(self.run.faces.files)

    @property
    def missing(self) -> dict[str, int]:
        """Faces that a lost worker has left unmeasured, or without some figure, by method."""
        expected = len(self.names)
        counts = {m.label: expected - m.measured - len(m.failures) for m in self.methods if not m.unavailable}
        return {label: count for label, count in counts.items() if count}

    @property
    def is_complete(self) -> bool:
        """Whether every face has its figures by every method, whichever worker was lost on the way."""
        failed = any(method.unavailable or method.failures for method in self.methods)
        return not (self.missing or self.run.faces.unreadable or failed)


def summarise(run: Run, book: Manifest, command: str = "", published: Sequence[PublishedTable] = ()) -> Summary:
    """Collect what a finished run's manifest says."""
    metrics = run.measures.descriptions
    positions = {content: place for place, content in enumerate(run.faces.files)}
    names = [shown(face.name) for face in run.faces.files.values()]
    labels = [shown(label) for label in _labels([column.method for column in run.columns])]
    collected = [
        _collect(column, label, positions, metrics, book) for column, label in zip(run.columns, labels, strict=True)
    ]
    compared, unmarked = _compare(collected, metrics, run.plan.seed)
    return Summary(run, metrics, compared, names, shown(command), _provenance(run), published, unmarked)


def shown(name: str) -> str:
    """Make a file's name printable: bytes that are no Unicode and control characters become escapes."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cell(text: str) -> str:
    """Make a text safe as a cell of a CSV: a spreadsheet takes what begins like a formula for one, unless quoted."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def digits_of(values: Sequence[float]) -> int:
    """Return how many decimals give the largest of some numbers four digits that count."""
    finite = [abs(value) for value in values if math.isfinite(value)]
    largest = max(finite, default=0.0)
    return 4 if largest == 0 else min(6, max(0, 3 - math.floor(math.log10(largest))))


def _labels(methods: Sequence[Method]) -> list[str]:
    """Name columns shortly, and differently."""
    short = [Path(method.spec).name if method.weights_sha256 else method.spec for method in methods]
    return [name if short.count(name) == 1 else method.spec for name, method in zip(short, methods, strict=True)]


def _collect(
    column: Column, label: str, positions: dict[str, int], metrics: list[Description], book: Manifest
) -> MethodSummary:
    values = np.full((len(metrics), len(positions)), np.nan)
    rows = {figure_key(metric): row for row, metric in enumerate(metrics)}
    seconds, peak, places = [], 0, set()
    failures, notes = {}, {}
    for result in book.results(column.method.key):
        place = positions.get(result.content)
        if place is None:
            continue
        if not result.has(rows.keys()) and result.reason:
            failures[place] = result.reason
            continue
        for key, row in rows.items():
            values[row, place] = result.figures.get(key, math.nan)
        if not result.has(rows.keys()):  # Of an earlier run that asked for less; who was to add the rest is gone.
            continue
        places.add(place)
        seconds.append(result.seconds)
        peak = max(peak, result.peak_bytes)
        if result.note:
            notes[place] = result.note
    failed, noted = ({place: shown(texts[place]) for place in sorted(texts)} for texts in (failures, notes))
    return MethodSummary(
        column.method,
        label,
        values,
        np.array(seconds),
        peak,
        frozenset(places),
        unavailable=shown(column.unavailable),
        failures=failed,
        notes=noted,
    )


def _compare(
    methods: list[MethodSummary], metrics: list[Description], seed: int
) -> tuple[list[MethodSummary], dict[str, str]]:
    """Estimate all means, and mark in each row the best and those that cannot be told from it; say why none is marked.

    Methods that failed on some faces are compared on those that both have: hard faces left out would make them better.
    """
    if not metrics:
        return methods, {}
    values = np.stack([method.values for method in methods])
    columns = list(values.reshape(len(methods) * len(metrics), -1))

    def column(method: int, other: int, row: int) -> int:
        """Find where a method's figures of the faces that another has, too, are drawn from."""
        missing = np.isnan(values[other, row]) & ~np.isnan(values[method, row])
        if not missing.any():
            return method * len(metrics) + row
        columns.append(np.where(missing, np.nan, values[method, row]))
        return len(columns) - 1

    marks, unmarked, pairs = np.full((len(methods), len(metrics)), "", dtype=object), {}, []
    for row, metric in enumerate(metrics):
        rivals, why = _ranked(metric, values[:, row])
        if why:
            unmarked[metric.name] = why
        for best, other in ((rivals[0], other) for other in rivals[1:]):
            marks[best, row] = "best"
            pairs.append((other, row, column(best, other, row), column(other, best, row)))
    drawn = resampled_means(np.stack(columns), seed)
    for other, row, ours, theirs in pairs:
        with np.errstate(invalid="ignore"):  # The difference of two infinities.
            low, high = interval(drawn[theirs] - drawn[ours])
        if low <= 0 <= high:
            marks[other, row] = "tied"
    count = marks.size
    estimates = np.array(estimate(np.stack(columns[:count]), drawn[:count]), dtype=object).reshape(marks.shape)
    compared = zip(methods, estimates, marks, strict=True)
    return [replace(method, estimates=list(means), marks=list(own)) for method, means, own in compared], unmarked


def _ranked(metric: Description, values: Float64[np.ndarray, "methods faces"]) -> tuple[list[int], str]:
    """Return the methods with figures, that which none is better than first; or none of them, and why."""
    there = ~np.isnan(values)
    rivals = [number for number in range(len(values)) if there[number].any()]
    wins = dict.fromkeys(rivals, 0)
    for one, other in combinations(rivals, 2):
        both = there[one] & there[other]
        if both.sum() < 2:
            return [], "methods have fewer than two faces in common"
        means = (values[one, both].mean(), values[other, both].mean())
        one_wins, other_wins = (means[0] >= means[1], means[1] >= means[0])
        wins[one] += one_wins if metric.higher_is_better else other_wins
        wins[other] += other_wins if metric.higher_is_better else one_wins
    best = next((number for number in rivals if wins[number] == len(rivals) - 1), None)
    if best is None:
        return [], "no method is the best in every pair, each compared on the faces that both have" if rivals else ""
    return [best, *(number for number in rivals if number != best)], ""


def _provenance(run: Run) -> dict[str, dict[str, str]]:
    plan = run.plan
    versions = {"python": platform.python_version(), "stylegan-invert": toolkit_version()} | {
        name: _version(name) for name in _PACKAGES
    }
    faces = {"aligned": "aligned like FFHQ already", "photos": "the largest face of each photo, cut out like FFHQ"}[run.kind]
    return {
        "Data": {
            "sources": ", ".join(shown(str(source)) for source in plan.sources),
            "split": shown(plan.split or "all"),
            "files": f"{run.faces.count:,} files, {len(run.faces.files):,} different",
            "faces": f"{faces}, {RESOLUTION} px",
            "SHA-256 of the list of contents": hashlib.sha256("\n".join(run.faces.files).encode()).hexdigest(),
        },
        "Networks": {f"generator {shown(run.generator.identity.name)}": run.generator.identity.sha256 or "unknown"}
        | {shown(c.method.spec): c.method.weights_sha256 or "no weights of its own" for c in run.columns}
        | weights_of(run.measures.descriptions),
        "Settings": {
            "seed": str(plan.seed),
            "steps of the projector": f"{plan.steps} in {plan.space}",
            "faces at once": str(plan.batch),
            "threads a worker": str(plan.threads),
            "features": plan.dtype,
            "workers": str(run.team.size),
        },
        "Versions": versions,
        "Hardware": _hardware(run.device),
        "When": {"written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")},
    }


def weights_of(metrics: Sequence[Description]) -> dict[str, str]:
    """Return the SHA-256 of each metric's network."""
    return {metric.name: metric.weights for metric in metrics if metric.weights}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _hardware(device: torch.device) -> dict[str, str]:
    hardware = {"system": f"{platform.system()} {platform.release()} {platform.machine()}"}
    hardware["processor"] = f"{_processor()}, {os.cpu_count()} cores"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        hardware["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    hardware["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return hardware


def _processor() -> str:
    """Name the processor; Linux keeps it in a file that ``platform`` does not read."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
