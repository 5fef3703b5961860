"""How good is a method over many faces? Every face inverted, every figure kept, means with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from invert.identity import identity_similarity
from invert.inversion import Inverter
from invert.metrics import reconstruction
from invert.perceptual import Perceptual
from invert.training import from_uint8


@dataclass(frozen=True)
class Row:
    """The figures of one face."""

    face: str
    method: str
    mse: float
    perceptual: float
    identity: float | None
    """Cosine of dlib's descriptors; None where its models are not installed."""
    seconds: float


def evaluate(
    inverters: dict[str, Inverter],
    faces: UInt8[Tensor, "n 3 256 256"],
    names: Sequence[str],
    perceptual: Perceptual,
    device: str = "cpu",
    on_face: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Invert aligned faces by each method.

    Args:
        inverters: by the name of the method.
        faces: the faces.
        names: of the faces.
        perceptual: distance to report.
        device: where the inverters work.
        on_face: told each row as it is ready.
    """
    rows = []
    for row in _rows(inverters, faces, names, perceptual, device):
        rows.append(row)
        if on_face is not None:
            on_face(row)
    return rows


def _rows(
    inverters: dict[str, Inverter], faces: Tensor, names: Sequence[str], perceptual: Perceptual, device: str
) -> Iterator[Row]:
    for method, inverter in inverters.items():
        for face, name in zip(faces, names, strict=True):
            image = from_uint8(face[None].numpy()).to(device)
            began = time.perf_counter()
            inversion = inverter(image)
            seconds = time.perf_counter() - began
            figures = reconstruction(inversion.image, image, perceptual)
            similarity = identity_similarity(inversion.image[0].cpu(), image[0].cpu())
            yield Row(name, method, float(figures.mse), float(figures.perceptual), similarity, seconds)


def table(rows: Sequence[Row], perceptual_name: str) -> str:
    """Lay out means and standard errors as a Markdown table, one row a method."""
    lines = [
        f"| method | faces | {perceptual_name} | MSE | identity (dlib, cosine) | seconds a face |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method in dict.fromkeys(row.method for row in rows):
        mine = [asdict(row) for row in rows if row.method == method]
        cells = [
            _mean(mine, key, digits) for key, digits in (("perceptual", 4), ("mse", 4), ("identity", 3), ("seconds", 2))
        ]
        lines.append(f"| {method} | {len(mine)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(rows: list[dict[str, Any]], key: str, digits: int) -> str:
    values = np.array([row[key] for row in rows if row[key] is not None], dtype=float)
    if not len(values):
        return "n/a"
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"
