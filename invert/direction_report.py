"""What was found out about directions, as a table, and which of the figures that were promised they miss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from editing.directions import Direction
from generators.base import Identity
from generators.errors import LatentMismatch
from invert.measure import JITTER, SIMILARITY_AT, STRENGTHS, Measured
from pretrained.directions import load_direction

ACCURACY, RISING, SIMILARITY = 0.90, 0.95, 0.6
"""Promised: held-out accuracy, share of faces whose attribute rises at every step, cosine of descriptors at both ends."""
_LEAK = 0.25
"""Standard deviations of another attribute, per strength, from which it is named."""


def report(
    directions: Mapping[str, Direction],
    results: Mapping[str, Measured],
    generator: Identity,
    published: Path | None = None,
) -> str:
    """Lay out what was measured as a Markdown table.

    Args:
        directions: by name.
        results: of the same names.
        generator: whose directions the published ones are taken for.
        published: folder of directions of others, ``NAME.pt`` or ``NAME.npy``; None adds no column.
    """
    columns = ["direction", "accuracy", "rises at every step", f"but for {JITTER:g} SD", "strength 1 = SD",
               f"similarity at {SIMILARITY_AT:g} (mean, least)", "moves with it (SD)"]  # fmt: skip
    rows = [[*columns, *(["cosine with published"] if published else [])]]
    rows.append(["---"] * len(rows[0]))
    for name, direction in directions.items():
        measured = results[name]
        similarity = measured.similarity_at_ends()
        row = [
            f"`{direction.name}`",
            _number(direction.quality.get("held_out_accuracy"), "{:.2f}"),
            f"{measured.rising():.0%} of {measured.faces}",
            f"{measured.rising(JITTER):.0%}",
            f"{measured.moved(measured.attribute):.2f}",
            "not measured" if similarity is None else "{:.2f}, {:.2f}".format(*similarity),
            leaks(measured) or "nothing",
        ]
        if published is not None:
            row.append(_number(_cosine(direction, generator, published), "{:+.2f}"))
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def leaks(measured: Measured) -> str:
    """Name the other attributes that a strength of 1 moves, the most moved first."""
    moved = {name: measured.moved(name) for name in measured.scores if name != measured.attribute}
    strong = sorted((name for name, amount in moved.items() if abs(amount) >= _LEAK), key=lambda name: -abs(moved[name]))
    return ", ".join(f"{name} {moved[name]:+.2f}" for name in strong)


def missed(directions: Mapping[str, Direction], results: Mapping[str, Measured]) -> list[str]:
    """Say in words which promised figures are missed."""
    lines = []
    for name, direction in directions.items():
        measured, accuracy = results[name], direction.quality.get("held_out_accuracy")
        if accuracy is not None and accuracy < ACCURACY:
            lines.append(f"{direction.name}: held-out accuracy {accuracy:.3f}, {ACCURACY:.2f} asked for")
        if measured.rising() < RISING:
            lines.append(
                f"{direction.name}: {measured.attribute} rises at every step from {STRENGTHS[0]:g} to {STRENGTHS[-1]:g} in"
                f" {measured.rising():.0%} of faces ({measured.rising(JITTER):.0%} but for falls below {JITTER:g} SD),"
                f" {RISING:.0%} asked for"
            )
        similarity = measured.similarity_at_ends()
        if similarity is not None and similarity[1] < SIMILARITY:
            lines.append(
                f"{direction.name}: similarity falls to {similarity[1]:.2f} at {SIMILARITY_AT:g}, {SIMILARITY:g} asked for"
            )
    return lines


def with_figures(direction: Direction, measured: Measured) -> Direction:
    """Write the figures into a direction's card."""
    similarity = measured.similarity_at_ends()
    figures = {
        "rising": round(measured.rising(), 3),
        "rising_but_for_jitter": round(measured.rising(JITTER), 3),
        "rising_faces": measured.faces,
        "moved": {name: round(measured.moved(name), 3) for name in measured.scores},
        "similarity_within_2": None if similarity is None else [round(value, 3) for value in similarity],
    }
    return replace(direction, quality={**direction.quality, **figures})


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _cosine(direction: Direction, generator: Identity, folder: Path) -> float | None:
    """Return the cosine with the published direction of the same name; None where there is none of the same kind."""
    files = [folder / f"{direction.name}{suffix}" for suffix in (".pt", ".npy")]
    for file in files:
        if file.is_file():
            other = load_direction(file, generator)
            if other.space != direction.space or other.w_dim != direction.w_dim:
                raise LatentMismatch(f"{file}: a direction of {other.space}, {direction.name} is one of {direction.space}")
            return float((direction.vector * other.vector).sum() / direction.vector.norm() / other.vector.norm())
    return None
