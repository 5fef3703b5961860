"""How does the toolkit learn its edit directions? Draw faces, score them, separate the codes, then measure what it does.

The last step is what makes a direction usable: a few dozen fresh faces are moved along it and scored again. This gives the
length of one step (strength 1.0 raises the attribute by one standard deviation of its score, unless three such steps would
tear faces), and the entanglement table (how far the same step moves every other attribute).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from editing.directions import Direction
from editing.errors import TrainingDataError
from editing.training import Fit, fit_direction, orthogonalise
from generators.base import Generator
from generators.errors import UnknownName
from generators.latent import WPlus
from invert.attributes import ATTRIBUTES, SCORERS, Scorer, score_face

SCORED_PX = 256
"""Faces are scored at this size: landmarks and networks ask for no more."""
TRUNCATION = (0.6, 1.0)
"""Samples are drawn with truncation_psi between these: whole ones are rarer faces, and now and then none at all."""
CALIBRATION_PSI = 0.75
CALIBRATION_STEPS = (-1.0, -0.5, 0.5, 1.0)
"""Where the slope is measured, in standard deviations of the codes along the direction."""
MAX_STEP = 0.25
"""Longest step, as a part of the mean distance of codes from their mean. Three such steps, 6 latent units in the
default generator, leave a face; the 9 or 10 units that three standard deviations of yaw or gender would take leave none."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""
Draw: TypeAlias = Callable[[WPlus], UInt8[np.ndarray, "batch size size 3"]]
"""Draws faces as pixels; the default is the generator itself, brought to ``SCORED_PX``."""


@dataclass(frozen=True)
class Recipe:
    """What to learn.

    Attributes:
        attribute: whose score the direction follows.
        without: attributes that it should leave alone, and how much of what it shares with their directions is taken out of
            it: 1 makes it orthogonal to them.
        layers: that it moves; None for all.
    """

    attribute: str
    without: Mapping[str, float] = field(default_factory=dict)
    layers: tuple[int, ...] | None = None

    @property
    def attributes(self) -> tuple[str, ...]:
        """All attributes whose scores it needs."""
        return (self.attribute, *self.without)


# Chosen on the default generator by the entanglement table and by looking. An age made orthogonal to gender turns faces
# feminine, a gender made orthogonal to age turns them young: hence the parts of 1. Ages of layers 2-10 leave pose, light and
# background as they are; a pose needs no more than layers 0-4, an expression no more than 0-7.
RECIPES: Mapping[str, Recipe] = {
    "age": Recipe("age", {"gender": 0.6, "glasses": 1.0}, tuple(range(2, 11))),
    "smile": Recipe("smile", layers=tuple(range(7))),
    "pose": Recipe("yaw", layers=tuple(range(5))),
    "gender": Recipe("gender", {"age": 0.4, "glasses": 1.0}, tuple(range(9))),
    "eyes_open": Recipe("eyes_open", {"gender": 1.0, "age": 1.0, "smile": 1.0, "glasses": 1.0}, tuple(range(3, 8))),
    "mouth_open": Recipe("mouth_open", {"smile": 1.0}, tuple(range(2, 8))),
}
"""The directions that ship, by name."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Codes of W and what their faces scored.

    Attributes:
        codes: one for each face.
        scores: one number for each face, by attribute; NaN where no face was found.
    """

    codes: Float[Tensor, "n w_dim"]
    scores: Mapping[str, Float[Tensor, " n"]]

    def fit(self, attribute: str, seed: int = 0) -> Fit:
        """Fit the direction of one attribute to the faces that were found.

        Raises:
            TrainingDataError: too few were found, or they do not differ.
        """
        scores = self.scores[attribute]
        found = torch.isfinite(scores)
        try:
            return fit_direction(self.codes[found], scores[found], seed=seed)
        except TrainingDataError as error:
            missing = f" ({int((~found).sum())} of {len(found)} pictures show no face)" if not bool(found.all()) else ""
            raise TrainingDataError(f"{attribute}: {error}{missing}") from error

    @property
    def distance(self) -> float:
        """Mean distance of the codes from their mean: how large the part of W is where faces lie."""
        return float((self.codes - self.codes.mean(0)).norm(dim=1).mean())

    def deviation(self, attribute: str) -> float:
        """Return the standard deviation of an attribute's score."""
        scores = self.scores[attribute]
        return float(scores[torch.isfinite(scores)].std())


@dataclass(frozen=True, eq=False)
class Learnt:
    """Directions, and how far each moves every attribute.

    Attributes:
        directions: by name.
        entanglement: by name and attribute, what strength 1.0 adds to the score, in standard deviations of that score.
    """

    directions: Mapping[str, Direction]
    entanglement: Mapping[str, Mapping[str, float]]

    def table(self) -> str:
        """Lay out accuracy, unit and entanglement as a Markdown table."""
        attributes = list(next(iter(self.entanglement.values()), {}))
        head = ["direction", "held-out accuracy", "correlation", "unit", *attributes]
        rows = [head, ["---"] * len(head)]
        for name, direction in self.directions.items():
            accuracy, correlation = direction.quality["held_out_accuracy"], direction.quality["correlation"]
            moved = (f"{self.entanglement[name][attribute]:+.2f}" for attribute in attributes)
            rows.append([f"`{name}`", f"{accuracy:.3f}", f"{correlation:.2f}", f"{direction.unit:.2f}", *moved])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def train_directions(
    generator: Generator,
    names: Sequence[str] = tuple(RECIPES),
    samples: int | Samples = 1500,
    *,
    recipes: Mapping[str, Recipe] = RECIPES,
    scorers: Mapping[str, Scorer] = SCORERS,
    calibration_faces: int = 24,
    seed: int = 0,
    draw: Draw | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Learnt:
    """Learn directions in W of a generator, with the length of their steps and their side effects measured.

    Args:
        generator: whose faces are drawn.
        names: of recipes.
        samples: how many faces to draw and score, or faces that were scored before.
        recipes: what each name stands for.
        scorers: what measures each attribute; all of them are in the table of side effects.
        calibration_faces: fresh faces that are moved along each direction; each is drawn four times.
        seed: of all that is random.
        draw: draws faces; by default the generator does.
        progress: told how far it is.

    Raises:
        UnknownName: no such recipe, or a recipe of an attribute that nothing scores.
        ScorerError: a package or model that scores is not installed.
        TrainingDataError: too few faces, faces that do not differ, or a direction that does not move its attribute.
    """
    for name in names:
        if name not in recipes:
            raise UnknownName("direction to learn", name, recipes)
    needed = {part for name in names for part in recipes[name].attributes}
    for attribute in sorted(needed - scorers.keys()):
        raise UnknownName("attribute", attribute, scorers)
    draw = draw or drawer(generator)
    if isinstance(samples, int):
        codes = sample_codes(generator, samples, seed)
        pictures = _drawn(draw, codes[:, None].repeat(1, generator.num_ws, 1))
        samples = score_samples(codes, pictures, scorers, progress)
    for attribute in sorted(needed - samples.scores.keys()):
        raise UnknownName("attribute of the samples", attribute, samples.scores)
    fits = {attribute: samples.fit(attribute, seed) for attribute in sorted(needed)}
    fresh = sample_codes(generator, calibration_faces, seed + 1, (CALIBRATION_PSI, CALIBRATION_PSI))
    directions, entanglement = {}, {}
    for name in names:
        recipe = recipes[name]
        fit = fits[recipe.attribute]
        normal = orthogonalise(fit.normal, [fits[other].normal for other in recipe.without], list(recipe.without.values()))
        raw = Direction(name, normal, generator.identity, layers=recipe.layers)
        steps = [step * fit.spread for step in CALIBRATION_STEPS]
        slopes = measure_slopes(raw, fresh, generator.num_ws, steps, scorers, draw, _named(progress, f"calibrating {name}"))
        directions[name], entanglement[name] = _calibrated(raw, recipe, fit, samples, slopes, scorers, calibration_faces)
    return Learnt(directions, entanglement)


def _named(progress: Progress, what: str) -> Progress:
    return lambda _, done, total: progress(what, done, total)


def _calibrated(
    raw: Direction,
    recipe: Recipe,
    fit: Fit,
    samples: Samples,
    slopes: Mapping[str, float],
    scorers: Mapping[str, Scorer],
    faces: int,
) -> tuple[Direction, dict[str, float]]:
    """Give a direction its unit, its evidence, and its row of the entanglement table."""
    own, deviation = slopes[recipe.attribute], samples.deviation(recipe.attribute)
    if not own > 0:
        raise TrainingDataError(
            f"{raw.name}: faces that move along it do not gain {recipe.attribute} (slope {own:.3g}): more samples, fewer"
            f" attributes to leave alone than {', '.join(recipe.without) or 'none'}, or more layers are needed"
        )
    unit = min(deviation / own, MAX_STEP * samples.distance)
    row = {name: slope * unit / samples.deviation(name) for name, slope in slopes.items() if name in samples.scores}
    attribute = ATTRIBUTES.get(recipe.attribute)
    measured = attribute.how if attribute and scorers[attribute.name] is attribute.score else "a scorer of the user's"
    parts = [f"{part:.0%} of what it shares with {other}'s" for other, part in recipe.without.items()]
    without = f", less {', '.join(parts)}" if parts else ""
    quality = {
        "held_out_accuracy": round(fit.accuracy, 4),
        "correlation": round(fit.correlation, 4),
        "samples": len(samples.codes),
        "fitted": fit.num_fitted,
        "held_out": fit.num_held_out,
        "attribute": recipe.attribute,
        "score_unit": attribute.unit if attribute else "",
        "score_deviation": round(deviation, 5),
        "score_slope": round(own, 5),
        "calibration_faces": faces,
        "entanglement": {name: round(value, 3) for name, value in row.items()},
    }
    direction = Direction(
        raw.name,
        raw.vector,
        raw.generator,
        layers=raw.layers,
        unit=unit,
        sign=attribute.positive if attribute else f"more {recipe.attribute}",
        learnt=f"normal of a linear SVM on W{without}; scored by {measured}",
        quality=quality,
    )
    return direction, row


def measure_slopes(
    direction: Direction,
    codes: Float[Tensor, "n w_dim"],
    num_ws: int,
    strengths: Sequence[float],
    scorers: Mapping[str, Scorer],
    draw: Draw,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, float]:
    """Measure how much each score changes per strength, by drawing faces moved by each of ``strengths``.

    The slope is a straight line's through all scores of all faces, each face about its own mean.

    Raises:
        TrainingDataError: hardly any of these pictures shows a face.
    """
    w_plus = codes[:, None].repeat(1, num_ws, 1)
    moved = torch.stack([cast(Tensor, direction(w_plus, strength)) for strength in strengths], dim=1).flatten(0, 1)
    scored = score_samples(torch.zeros(len(moved), 1), _drawn(draw, moved), scorers, progress)
    slopes = {}
    for name, scores in scored.scores.items():
        grid = scores.view(len(codes), len(strengths)).numpy()
        complete = grid[np.isfinite(grid).all(1)]  # Faces that were found at every step.
        if len(complete) < max(1, len(grid) // 2):
            raise TrainingDataError(f"{direction.name}: {len(complete)} of {len(grid)} faces only were found at every step")
        x = np.asarray(strengths) - np.mean(strengths)
        slopes[name] = float((complete @ x).mean() / (x @ x))
    return slopes


def drawer(generator: Generator, batch_size: int = 4) -> Draw:
    """Return a function that draws codes and brings the faces to ``SCORED_PX``, some at a time."""

    @torch.inference_mode()
    def draw(w_plus: WPlus) -> UInt8[np.ndarray, "batch size size 3"]:
        faces = []
        for part in w_plus.to(generator.w_avg.device).split(batch_size):
            image = generator.synthesis(part)
            if image.shape[-1] > SCORED_PX:
                image = F.adaptive_avg_pool2d(image, SCORED_PX)
            pixels = (image.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
            faces.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(faces)

    return draw


def _drawn(draw: Draw, w_plus: WPlus, at_once: int = 16) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
    """Draw faces when they are asked for, so that thousands need no more memory than a few."""
    for part in w_plus.split(at_once):
        yield from draw(part)


def sample_codes(
    generator: Generator, count: int, seed: int, truncation: tuple[float, float] = TRUNCATION
) -> Float[Tensor, "n w_dim"]:
    """Sample codes of W, each with a truncation_psi of its own between two bounds."""
    random = torch.Generator().manual_seed(seed)
    device = generator.w_avg.device
    z = torch.randn(count, generator.z_dim, generator=random).to(device)
    low, high = truncation
    psi = (low + (high - low) * torch.rand(count, 1, generator=random)).to(device)
    with torch.inference_mode():
        return generator.w_avg.lerp(generator.mapping(z)[:, 0], psi).clone()


def score_samples(
    codes: Float[Tensor, "n w_dim"],
    faces: Iterator[UInt8[np.ndarray, "height width 3"]] | Sequence[UInt8[np.ndarray, "height width 3"]],
    scorers: Mapping[str, Scorer] | Sequence[str] = SCORERS,
    progress: Progress = lambda what, done, total: None,
) -> Samples:
    """Score one face per code.

    Args:
        codes: in W.
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
