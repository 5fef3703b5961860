"""How are a metric's values spread over the faces? A row a method: its density, the quartiles, and the mean's interval."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from invert.evaluation.statistics import Estimate

WIDTH, LABEL, ROW, AXIS, RIGHT = 560, 128, 58, 34, 16
DENSITY_PX = 40
"""Height of a row's highest density."""
COLOURS = 6
"""Classes ``c0`` to ``c5`` of the page's style; more methods take them in turn."""
_GRID = 128


@dataclass(frozen=True)
class Spread:
    """One method's values."""

    name: str
    values: Float64[np.ndarray, " faces"]
    """Finite ones alone."""
    estimate: Estimate


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def __call__(self, value: float) -> str:
        """Place a value on the picture."""
        return f"{LABEL + (value - self.low) / (self.high - self.low) * (WIDTH - LABEL - RIGHT):.1f}"


def distribution(title: str, unit: str, rows: Sequence[Spread], digits: int) -> str:
    """Draw one metric as SVG; colours and fonts are the page's.

    Args:
        title: of the chart, for those who cannot see it.
        unit: what stands under the axis.
        rows: from top to bottom.
        digits: of the numbers that are read out.
    """
    scale = _scale(rows)
    bottom = len(rows) * ROW
    spoken = "; ".join(f"{row.name}: mean {row.estimate.mean:.{digits}f}" for row in rows)
    parts = [f'<svg viewBox="0 0 {WIDTH} {bottom + AXIS}" role="img" aria-label="{html.escape(f"{title}. {spoken}")}">']
    for tick in _ticks(scale.low, scale.high):
        x = scale(tick)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="4" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 14}">{tick:g}</text>')
    for number, row in enumerate(rows):
        base = (number + 1) * ROW - 8
        parts.append(f'<text class="name" x="{LABEL - 12}" y="{base - 4}">{html.escape(_short(row.name))}</text>')
        parts.append(f'<line class="base" x1="{LABEL}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
        if len(row.values):
            parts.append(f'<g class="c{number % COLOURS}">{_row(row, base, scale)}</g>')
    parts.append(f'<text class="unit" x="{WIDTH - RIGHT}" y="{bottom + 30}">{html.escape(unit)}</text></svg>')
    return "".join(parts)


def _row(row: Spread, base: int, scale: _Scale) -> str:
    """Draw density, quartiles with the median, and the mean with its interval."""
    quartiles = [scale(value) for value in np.percentile(row.values, (25, 50, 75))]
    parts = [
        _density(row.values, base, scale),
        f'<line class="quartiles" x1="{quartiles[0]}" x2="{quartiles[2]}" y1="{base}" y2="{base}"/>',
        f'<line class="median" x1="{quartiles[1]}" x2="{quartiles[1]}" y1="{base - 5}" y2="{base + 5}"/>',
    ]
    mean = row.estimate
    if math.isfinite(mean.low) and math.isfinite(mean.high):
        y = base - 12
        parts.append(f'<line class="interval" x1="{scale(mean.low)}" x2="{scale(mean.high)}" y1="{y}" y2="{y}"/>')
    if math.isfinite(mean.mean):
        parts.append(f'<circle class="mean" cx="{scale(mean.mean)}" cy="{base - 12}" r="3.5"/>')
    return "".join(parts)


def _density(values: Float64[np.ndarray, " faces"], base: int, scale: _Scale) -> str:
    """Draw a Gaussian kernel density (bandwidth of Silverman 1986, eq. 3.31), scaled to one height for every method."""
    lower, upper = np.percentile(values, (25, 75))
    spread = min(values.std(), (upper - lower) / 1.34) or values.std()
    bandwidth = 0.9 * spread * len(values) ** -0.2
    if not bandwidth > 0:
        return ""
    grid = np.linspace(max(values.min() - 2 * bandwidth, scale.low), min(values.max() + 2 * bandwidth, scale.high), _GRID)
    # A histogram first: the sum over 30,000 faces would be a matrix of millions.
    counts, edges = np.histogram(values, bins=4 * _GRID)
    centres = (edges[:-1] + edges[1:]) / 2
    density = np.exp(-0.5 * ((grid[:, None] - centres) / bandwidth) ** 2) @ counts
    heights = base - DENSITY_PX * density / density.max()
    points = " L".join(f"{scale(value)} {height:.1f}" for value, height in zip(grid, heights, strict=True))
    return f'<path class="density" d="M{scale(grid[0])} {base} L{points} L{scale(grid[-1])} {base} Z"/>'


def _scale(rows: Sequence[Spread]) -> _Scale:
    present = np.concatenate([row.values for row in rows]) if rows else np.empty(0)
    low, high = (float(present.min()), float(present.max())) if len(present) else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.05 * max(abs(high), 1.0)
    return _Scale(low - margin, high + margin)


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers."""
    step = 10.0 ** math.floor(math.log10((high - low) / 5))
    step *= next((factor for factor in (1, 2, 5) if (high - low) / (step * factor) <= 6), 10)
    return [round(step * number, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
