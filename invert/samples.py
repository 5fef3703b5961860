"""Which faces are directions learnt from? Faces that the generator drew, kept in a folder with their codes and scores.

A folder of samples holds all that is slow: a second direction costs a fit only, and a call that was stopped goes on.

    samples.json        which generator, how many, seed, truncation
    codes.safetensors   the codes, in W+
    faces/000000.png    what the generator drew for each, at 256 px
    scores.csv          one row for each face, one column for each attribute; empty where no face was found
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from editing.errors import TrainingDataError
from editing.training import Fit, fit_direction
from generators.base import Generator
from generators.errors import ToolkitError
from generators.latent import WPlus
from invert.attributes import SCORERS, VERSION, Scorer, score_face
from invert.photo import whole_file
from pretrained import safetensors
from pretrained.errors import BrokenFile

SCORED_PX = 256
"""Faces are scored at this size: landmarks and networks ask for no more."""
TRUNCATION = (0.6, 1.0)
"""Samples are drawn with truncation_psi between these: whole ones are rarer faces, and now and then none at all."""
_SCORES_AT_ONCE = 100

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""
Pixels: TypeAlias = UInt8[np.ndarray, "height width 3"]
Draw: TypeAlias = Callable[[WPlus], UInt8[np.ndarray, "batch size size 3"]]
"""Draws faces as pixels; the default is the generator itself, brought to ``SCORED_PX``."""
Codes: TypeAlias = Float[Tensor, "n *num_ws w_dim"]


def quiet(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Codes and what their faces scored.

    Attributes:
        codes: of W, or of W+ where layers have styles of their own; one for each face.
        scores: one number for each face, by attribute; NaN where no face was found.
    """

    codes: Codes
    scores: Mapping[str, Float[Tensor, " n"]] = field(default_factory=dict)

    def fit(self, attribute: str, layers: Sequence[int] | None = None, *, per_layer: bool = False, seed: int = 0) -> Fit:
        """Fit the direction of one attribute to the faces that were found.

        Args:
            attribute: whose scores it follows.
            layers: whose styles are looked at, in codes of W+; None for all.
            per_layer: fit one vector for each of these layers (one after the other in ``normal``), not one for their mean.
            seed: of the split into what is fitted and what is held out.

        Raises:
            TrainingDataError: too few were found, they do not differ, or vectors per layer are asked of codes of W.
        """
        scores = self.scores[attribute]
        found = torch.isfinite(scores)
        try:
            return fit_direction(self._features(layers, per_layer)[found], scores[found], seed=seed)
        except TrainingDataError as error:
            missing = f" ({int((~found).sum())} of {len(found)} pictures show no face)" if not bool(found.all()) else ""
            raise TrainingDataError(f"{attribute}: {error}{missing}") from error

    def _features(self, layers: Sequence[int] | None, per_layer: bool) -> Float[Tensor, "n width"]:
        if self.codes.ndim == 2:
            if per_layer:
                raise TrainingDataError("a vector for each layer is learnt from codes of W+, these are of W")
            return self.codes
        chosen = self.codes if layers is None else self.codes[:, list(layers)]
        return chosen.flatten(1) if per_layer else chosen.mean(1)

    def knows(self, attribute: str) -> bool:
        """Tell whether any face has a score of an attribute."""
        return attribute in self.scores and bool(torch.isfinite(self.scores[attribute]).any())

    @property
    def distance(self) -> float:
        """Mean distance of the codes from their mean, a layer: how large the part of W is where faces lie."""
        return float((self.codes - self.codes.mean(0)).norm(dim=-1).mean())

    def deviation(self, attribute: str) -> float:
        """Return the standard deviation of an attribute's score."""
        scores = self.scores[attribute]
        return float(scores[torch.isfinite(scores)].std())


def drawer(generator: Generator, batch_size: int = 4) -> Draw:
    """Return a function that draws codes and brings the faces to ``SCORED_PX``, some at a time."""

    @torch.inference_mode()
    def draw(w_plus: WPlus) -> UInt8[np.ndarray, "batch size size 3"]:
        faces = []
        for part in w_plus.to(generator.w_avg).split(batch_size):
            image = generator.synthesis(part).float()
            if image.shape[-1] > SCORED_PX:
                image = F.adaptive_avg_pool2d(image, SCORED_PX)
            pixels = (image * 127.5 + 128).clamp(0, 255).to(torch.uint8)
            faces.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(faces)

    return draw


def drawn(draw: Draw, w_plus: WPlus, at_once: int = 16) -> Iterator[Pixels]:
    """Draw faces when they are asked for, so that thousands need no more memory than a few."""
    for start in range(0, len(w_plus), at_once):
        yield from draw(w_plus[start : start + at_once])


def sample_codes(
    generator: Generator, count: int, seed: int, truncation: tuple[float, float] = TRUNCATION
) -> Float[Tensor, "n w_dim"]:
    """Sample codes of W, each with a truncation_psi of its own between two bounds."""
    random = torch.Generator().manual_seed(seed)
    mean = generator.w_avg
    z = torch.randn(count, generator.z_dim, generator=random).to(mean)
    low, high = truncation
    psi = (low + (high - low) * torch.rand(count, 1, generator=random)).to(mean)
    with torch.inference_mode():
        return mean.lerp(generator.mapping(z)[:, 0], psi).float().cpu().clone()


def sample_w_plus(generator: Generator, count: int, seed: int) -> WPlus:
    """Sample codes of W+ to learn from: half have one style, in the others a second style takes over at a random layer.

    These teach what each layer does on its own: directions learnt from both kinds tell unseen codes of W better than those
    learnt from as many of W and none of the other.
    """
    first, second = (sample_codes(generator, count, seed + offset)[:, None] for offset in (0, 1_000_003))
    random = torch.Generator().manual_seed(seed)
    crossover = torch.randint(1, max(2, generator.num_ws), (count, 1), generator=random)
    crossover[: count // 2] = generator.num_ws
    before = (torch.arange(generator.num_ws)[None] < crossover)[:, :, None]
    return torch.where(before, first, second)


def as_w_plus(codes: Codes, num_ws: int) -> WPlus:
    """Repeat codes of W for every layer; codes of W+ stay."""
    return codes[:, None].repeat(1, num_ws, 1) if codes.ndim == 2 else codes


def score_samples(
    codes: Codes,
    faces: Iterator[Pixels] | Sequence[Pixels],
    scorers: Mapping[str, Scorer] | Sequence[str] = SCORERS,
    progress: Progress = quiet,
) -> Samples:
    """Score one face per code.

    Args:
        codes: of W or W+.
        faces: what the generator draws for them.
        scorers: names of ``ATTRIBUTES``, or functions by name.
        progress: told how far it is.

    Raises:
        UnknownName: no such attribute.
        ScorerError: a package or model that scores is not installed.
    """
    rows = []
    for done, (_, face) in enumerate(zip(codes, faces, strict=True)):
        rows.append(score_face(face, scorers))
        progress("scoring faces", done + 1, len(codes))
    return Samples(codes, {name: torch.tensor([row[name] for row in rows]) for name in (rows[0] if rows else [])})


def sample_folder(
    folder: Path,
    generator: Generator,
    count: int,
    seed: int = 0,
    *,
    scorers: Mapping[str, Scorer] | None = SCORERS,
    draw: Draw | None = None,
    progress: Progress = quiet,
) -> Samples:
    """Draw and score faces into a folder that stays; what it holds already is not done again.

    Args:
        folder: of the samples; made where it is missing.
        generator: whose faces are drawn.
        count: how many.
        seed: of the codes.
        scorers: of the toolkit, by name; their scores are kept. None scores nothing.
        draw: draws faces; by default the generator does.
        progress: told how far it is.

    Raises:
        ToolkitError: the folder holds samples of another generator, number or seed.
        BrokenFile: what it holds is damaged.
        ScorerError: a package or model that scores is not installed.
    """
    _check_plan(folder, generator, count, seed)
    codes = _codes(folder / "codes.safetensors", lambda: sample_w_plus(generator, count, seed))
    missing = [row for row in range(count) if not face_file(folder, row).is_file()]
    pictures = drawn(draw or drawer(generator), codes[missing])
    for done, (row, face) in enumerate(zip(missing, pictures, strict=True)):
        with whole_file(face_file(folder, row)) as temporary:
            Image.fromarray(face).save(temporary)
        progress("drawing faces", count - len(missing) + done + 1, count)
    return Samples(codes, _kept_scores(folder, count, scorers, progress) if scorers else {})


def face_file(folder: Path, row: int) -> Path:
    """Return where the picture of a sample is kept."""
    return folder / "faces" / f"{row:06d}.png"


def read_face(folder: Path, row: int) -> Pixels:
    """Read the picture of a sample.

    Raises:
        BrokenFile: it is missing or damaged.
    """
    try:
        with Image.open(face_file(folder, row)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise BrokenFile(
            f"{face_file(folder, row)}: a damaged picture ({error}): delete it, and it is drawn again"
        ) from error


def _check_plan(folder: Path, generator: Generator, count: int, seed: int) -> None:
    identity = generator.identity
    plan = {
        "generator": identity.name,
        "generator_sha256": identity.sha256,
        "count": count,
        "seed": seed,
        "truncation": list(TRUNCATION),
    }
    file = folder / "samples.json"
    if file.is_file():
        try:
            kept = json.loads(file.read_text())
        except ValueError as error:
            raise BrokenFile(f"{file}: damaged ({error}): delete the folder, or choose another") from error
        changed = [key for key, value in plan.items() if not isinstance(kept, dict) or kept.get(key) != value]
        if changed:
            was = ", ".join(f"{key}={kept.get(key)!r}" for key in changed) if isinstance(kept, dict) else "nothing known"
            raise ToolkitError(f"{folder} holds other samples ({was}): choose another folder, or the same settings")
        return
    with whole_file(file) as temporary:
        temporary.write_text(json.dumps(plan, indent=2))


def _codes(file: Path, sample: Callable[[], WPlus]) -> WPlus:
    if not file.is_file():
        with whole_file(file) as temporary:
            safetensors.save(temporary, {"codes": sample()}, {})
    codes = safetensors.load(file)[0].get("codes")
    if codes is None:
        raise BrokenFile(f"{file}: no codes in it: delete the folder, or choose another")
    return codes.float()


def _kept_scores(
    folder: Path, count: int, scorers: Mapping[str, Scorer], progress: Progress
) -> dict[str, Float[Tensor, " n"]]:
    """Return scores of all faces; those of a folder are read, what is missing is scored and kept."""
    file = folder / "scores.csv"
    rows = _read_scores(file, count)
    if rows and not set(scorers) <= set(rows[0]):
        rows = []  # Of another set of attributes, or of older scorers: all anew.
    for row in range(len(rows), count):
        rows.append(score_face(read_face(folder, row), scorers))
        progress("scoring faces", row + 1, count)
        if (row + 1) % _SCORES_AT_ONCE == 0 or row + 1 == count:
            _write_scores(file, rows)
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.float32) for name in scorers}


def _write_scores(file: Path, rows: Sequence[Mapping[str, float]]) -> None:
    with whole_file(file) as temporary, temporary.open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow([f"index (scorers {VERSION})", *rows[0]])
        for number, row in enumerate(rows):
            writer.writerow([number, *("" if math.isnan(value) else f"{value:.7g}" for value in row.values())])


def _read_scores(file: Path, count: int) -> list[dict[str, float]]:
    """Read the scores that are kept; none where there are none, or none of these scorers."""
    if not file.is_file():
        return []
    try:
        with file.open(newline="") as text:
            head, *lines = list(csv.reader(text))
            if head[0] != f"index (scorers {VERSION})":
                return []
            rows = [{name: float(value or "nan") for name, value in zip(head[1:], line[1:], strict=True)} for line in lines]
    except (ValueError, IndexError, csv.Error) as error:
        raise BrokenFile(f"{file}: damaged ({error}): delete it, and the faces are scored again") from error
    return rows[:count]
