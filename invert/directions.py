"""How does the toolkit learn its edit directions? Separate the codes of scored faces, then measure what the result does.

The last step is what makes a direction usable: a few dozen fresh faces are moved along it and scored again. This gives the
length of one step (strength 1.0 raises the attribute by one standard deviation of its score, unless three such steps would
tear faces), and the entanglement table (how far the same step moves every other attribute).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from editing.directions import Direction
from editing.errors import TrainingDataError
from editing.training import Fit, orthogonalise
from generators.base import Generator
from generators.errors import UnknownName
from invert.attributes import ATTRIBUTES, SCORERS, Scorer
from invert.samples import (
    Draw,
    Progress,
    Samples,
    as_w_plus,
    drawer,
    drawn,
    quiet,
    read_face,
    sample_codes,
    sample_folder,
    sample_w_plus,
    score_samples,
)
from pretrained.directions import known_names, load_direction

CALIBRATION_PSI = 0.7
"""Truncation of the faces that slopes are measured on."""
CALIBRATION_STEPS = (-0.5, -0.25, 0.25, 0.5)
"""Where the slope is measured, in standard deviations of the codes along the direction."""
MAX_STEP = 0.25
"""Longest step, as a part of the mean distance of codes from their mean. Three such steps, 6 latent units in the
default generator, leave a face; the 9 or 10 units that three standard deviations of yaw or gender would take leave none."""


@dataclass(frozen=True)
class Recipe:
    """What to learn.

    Attributes:
        attribute: whose score the direction follows.
        without: attributes that it should leave alone, and how much of what it shares with their directions is taken out of
            it: 1 makes it orthogonal to them.
        layers: that it moves; None for all.
        max_step: longest step, in standard deviations of the attribute. Three whole ones of yaw would be a profile, three of
            gender no face that there is, three of lightness glare or night, three of age older than networks can tell.
        per_layer: learn a vector for each layer, in W+, from faces whose layers have styles of their own.
    """

    attribute: str
    without: Mapping[str, float] = field(default_factory=dict)
    layers: tuple[int, ...] | None = None
    max_step: float = 1.0
    per_layer: bool = False


def _layers(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


# Chosen on the default generator by the entanglement table and by looking. An age made orthogonal to gender turns faces
# feminine, a gender made orthogonal to age turns them young: hence the parts of 1 (the gender that ships has 0.2 of the unit
# vector of the age that ships taken off as well, so that faces at an end still rise). Ages of layers 2-10 leave pose, light
# and background as they are; a pose needs no more than layers 0-4, an expression no more than 0-7, a colour none before 6.
RECIPES: Mapping[str, Recipe] = {
    "age": Recipe("age", {"gender": 0.6, "glasses": 1.0}, _layers(2, 10), max_step=0.76),
    "smile": Recipe("smile", layers=_layers(0, 6)),
    "pose": Recipe("yaw", layers=_layers(0, 4), max_step=0.48),
    "pitch": Recipe("pitch", {"smile": 0.5, "age": 1.0}, _layers(0, 4)),
    "gender": Recipe("gender", {"age": 0.4, "glasses": 1.0}, _layers(2, 8), max_step=0.28),
    "eyes_open": Recipe("eyes_open", {"gender": 1.0, "age": 1.0, "smile": 1.0, "glasses": 1.0}, _layers(3, 7)),
    "mouth_open": Recipe("mouth_open", {"smile": 1.0}, _layers(2, 7)),
    "hair_light": Recipe("hair_light", {"skin_light": 1.0, "background": 1.0}, _layers(6, 15), max_step=0.4),
    "skin_light": Recipe("skin_light", {"light": 1.0, "background": 1.0}, _layers(6, 15), max_step=0.7),
    "red_lips": Recipe("red_lips", {"skin_light": 1.0}, _layers(6, 15)),
}
"""The directions that ship, by name; any other attribute that has a scorer can be learnt as it is."""


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
    folder: Path | None = None,
    calibration_faces: int = 24,
    seed: int = 0,
    draw: Draw | None = None,
    progress: Progress = quiet,
) -> Learnt:
    """Learn directions in W of a generator, with the length of their steps and their side effects measured.

    Args:
        generator: whose faces are drawn.
        names: of recipes, or of attributes, whose recipe is then the attribute and nothing else.
        samples: how many faces to draw and score, or faces that were scored before.
        recipes: what each name stands for.
        scorers: what measures each attribute; all of them are in the table of side effects.
        folder: keeps what was drawn and scored, see ``sample_folder``; None keeps nothing. Scores of a user's own scorers
            are not kept, since they may change.
        calibration_faces: fresh faces that are moved along each direction; each is drawn four times.
        seed: of all that is random.
        draw: draws faces; by default the generator does.
        progress: told how far it is.

    Raises:
        UnknownName: no such recipe, or a recipe of an attribute that nothing scores.
        ScorerError: a package or model that scores is not installed.
        TrainingDataError: too few faces, faces that do not differ, or a direction that does not move its attribute.
    """
    chosen = {name: find_recipe(name, generator.num_ws, recipes, scorers) for name in names}
    needed = {recipe.attribute for recipe in chosen.values()}
    for attribute in sorted(needed - scorers.keys()):
        raise UnknownName("attribute", attribute, scorers)
    draw = draw or drawer(generator)
    if isinstance(samples, int):
        samples = _drawn_and_scored(generator, samples, seed, scorers, folder, draw, progress)
    for attribute in sorted(needed - samples.scores.keys()):
        raise UnknownName("attribute of the samples", attribute, samples.scores)
    scorers = {name: score for name, score in scorers.items() if samples.knows(name)}
    fresh = sample_codes(generator, calibration_faces, seed + 1, (CALIBRATION_PSI, CALIBRATION_PSI))
    directions, entanglement = {}, {}
    for name, recipe in chosen.items():
        fit = samples.fit(recipe.attribute, recipe.layers, per_layer=recipe.per_layer, seed=seed)
        raw = _separating(name, recipe, fit, samples, generator, seed)
        spread = fit.spread / (raw.vector.norm() if recipe.per_layer else 1.0)
        steps = [step * float(spread) for step in CALIBRATION_STEPS]
        slopes = measure_slopes(raw, fresh, generator.num_ws, steps, scorers, draw, _named(progress, f"calibrating {name}"))
        directions[name], entanglement[name] = _calibrated(raw, recipe, fit, samples, slopes, scorers, calibration_faces)
    return Learnt(directions, entanglement)


def fit_labels(name: str, samples: Samples, generator: Generator, recipe: Recipe, seed: int = 0) -> Direction:
    """Learn a direction of labels alone: nothing is drawn, and nothing can measure what the edit does.

    Strength 1 is one standard deviation of the codes along the direction.

    Raises:
        TrainingDataError: too few labels, one class only, or NaN codes.
    """
    fit = samples.fit(recipe.attribute, recipe.layers, per_layer=recipe.per_layer, seed=seed)
    raw = _separating(name, recipe, fit, samples, generator, seed)
    quality = _evidence(recipe, fit, samples) | {"calibrated": False}
    learnt = f"normal of a linear SVM on {'W+' if recipe.per_layer else 'W'}, from a user's labels{_less(recipe)}"
    unit = fit.spread / (float(raw.vector.norm()) if recipe.per_layer else 1.0)
    return replace(raw, unit=unit, sign=f"more {recipe.attribute}", learnt=learnt, quality=quality)


def find_recipe(
    name: str, num_ws: int, recipes: Mapping[str, Recipe] = RECIPES, scorers: Mapping[str, Scorer] = SCORERS
) -> Recipe:
    """Return what a name stands for: a recipe, or an attribute and nothing else; its layers are those that there are.

    Raises:
        UnknownName: neither.
    """
    recipe = recipes.get(name) or (Recipe(name) if name in scorers else None)
    if recipe is None:
        raise UnknownName("direction to learn", name, {*recipes, *scorers})
    layers = None if recipe.layers is None else tuple(layer for layer in recipe.layers if layer < num_ws)
    return replace(recipe, layers=layers or None)


def _drawn_and_scored(
    generator: Generator,
    count: int,
    seed: int,
    scorers: Mapping[str, Scorer],
    folder: Path | None,
    draw: Draw,
    progress: Progress,
) -> Samples:
    if folder is None:
        codes = sample_w_plus(generator, count, seed)
        return score_samples(codes, drawn(draw, codes), scorers, progress)
    ours = {name: score for name, score in scorers.items() if SCORERS.get(name) is score}
    samples = sample_folder(folder, generator, count, seed, scorers=ours, draw=draw, progress=progress)
    theirs = {name: score for name, score in scorers.items() if name not in ours}
    if theirs:
        pictures = (read_face(folder, row) for row in range(count))
        scored = score_samples(samples.codes, pictures, theirs, progress)
        samples = replace(samples, scores={**samples.scores, **scored.scores})
    return samples


def _separating(name: str, recipe: Recipe, fit: Fit, samples: Samples, generator: Generator, seed: int) -> Direction:
    """Make the normal of a fit a direction, less what the recipe says."""
    others = [_other(other, recipe, samples, generator, seed) for other in recipe.without]
    try:
        normal = orthogonalise(fit.normal, others, list(recipe.without.values()))
    except TrainingDataError as error:
        raise TrainingDataError(f"{name} without {', '.join(recipe.without)}: {error}") from error
    if not recipe.per_layer:
        return Direction(name, normal, generator.identity, layers=recipe.layers)
    layers = list(recipe.layers if recipe.layers is not None else range(generator.num_ws))
    rows = torch.zeros(generator.num_ws, generator.w_dim)
    rows[layers] = normal.view(len(layers), -1)
    return Direction.of(name, rows, generator.identity, layers=recipe.layers, unit=1.0)


def _other(name: str, recipe: Recipe, samples: Samples, generator: Generator, seed: int) -> Float[Tensor, " width"]:
    """Return the normal of what a direction is to leave alone: an attribute of the samples, or a direction that there is.

    Raises:
        UnknownName: neither.
    """
    if name in samples.scores:
        return samples.fit(name, recipe.layers, per_layer=recipe.per_layer, seed=seed).normal
    try:
        direction = load_direction(name, generator.identity)
    except UnknownName:
        known = [*samples.scores, *known_names(generator.identity)]
        raise UnknownName("attribute or direction to leave alone", name, known) from None
    if not recipe.per_layer and direction.space == "w":
        return direction.vector
    if not recipe.per_layer:
        raise TrainingDataError(f"the direction {name!r} has a vector for each layer: only one of W+ can leave it alone")
    rows = direction.vector if direction.space == "w_plus" else direction.vector.repeat(generator.num_ws, 1)
    return (rows if recipe.layers is None else rows[list(recipe.layers)]).flatten()


def _named(progress: Progress, what: str) -> Progress:
    return lambda _, done, total: progress(what, done, total)


def _less(recipe: Recipe) -> str:
    parts = [f"{part:.0%} of what it shares with {other}'s" for other, part in recipe.without.items()]
    return f", less {', '.join(parts)}" if parts else ""


def _evidence(recipe: Recipe, fit: Fit, samples: Samples) -> dict[str, object]:
    return {
        "held_out_accuracy": round(fit.accuracy, 4),
        "correlation": round(fit.correlation, 4),
        "samples": len(samples.codes),
        "fitted": fit.num_fitted,
        "held_out": fit.num_held_out,
        "attribute": recipe.attribute,
        "score_deviation": round(samples.deviation(recipe.attribute), 5),
    }


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
    if recipe.attribute not in slopes:
        raise TrainingDataError(f"{raw.name}: most faces are lost where they move along it: nothing can be measured")
    own, deviation = slopes[recipe.attribute], samples.deviation(recipe.attribute)
    if not own > 0:
        raise TrainingDataError(
            f"{raw.name}: faces that move along it do not gain {recipe.attribute} (slope {own:.3g}): more samples, fewer"
            f" attributes to leave alone than {', '.join(recipe.without) or 'none'}, or more layers are needed"
        )
    unit = min(recipe.max_step * deviation / own, MAX_STEP * samples.distance)
    row = {name: slope * unit / samples.deviation(name) for name, slope in slopes.items()}
    attribute = ATTRIBUTES.get(recipe.attribute)
    measured = attribute.how if attribute and scorers[attribute.name] is attribute.score else "a scorer of the user's"
    quality = _evidence(recipe, fit, samples) | {
        "score_unit": attribute.unit if attribute else "",
        "score_slope": round(own, 5),
        "calibration_faces": faces,
        "entanglement": {name: round(value, 3) for name, value in row.items()},
    }
    sign = attribute.positive if attribute else f"more {recipe.attribute}"
    learnt = f"normal of a linear SVM on {'W+' if recipe.per_layer else 'W'}{_less(recipe)}; scored by {measured}"
    return replace(raw, unit=unit, sign=sign, learnt=learnt, quality=quality), row


def measure_slopes(
    direction: Direction,
    codes: Float[Tensor, "n w_dim"],
    num_ws: int,
    strengths: Sequence[float],
    scorers: Mapping[str, Scorer],
    draw: Draw,
    progress: Progress = quiet,
) -> dict[str, float]:
    """Measure how much each score changes per strength, by drawing faces moved by each of ``strengths``.

    The slope is a straight line's, face by face, and the mean of these without an eighth at either end: one that jumps
    would else outweigh all others.

    Returns:
        Slopes by name; without those for which most pictures show no face, as all but a user's own where none are drawn.
    """
    w_plus = as_w_plus(codes, num_ws)
    moved = torch.stack([cast(Tensor, direction(w_plus, strength)) for strength in strengths], dim=1).flatten(0, 1)
    scored = score_samples(torch.zeros(len(moved), 1), drawn(draw, moved), scorers, progress)
    slopes = {}
    for name, scores in scored.scores.items():
        grid = scores.view(len(codes), len(strengths)).numpy()
        complete = grid[np.isfinite(grid).all(1)]  # Faces that were found at every step.
        if 2 * len(complete) >= len(grid):
            x = np.asarray(strengths) - np.mean(strengths)
            slopes[name] = _trimmed_mean(complete @ x / (x @ x))
    return slopes


def _trimmed_mean(values: Float[np.ndarray, " n"]) -> float:
    cut = max(1, len(values) // 8) if len(values) >= 4 else 0
    return float(np.sort(values)[cut : len(values) - cut].mean())
