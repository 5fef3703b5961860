"""Does a direction keep its promise? Fresh faces are moved from -3 to 3 along it, scored at every step, and compared.

What is asked: that the attribute rises at every step; by how much a strength of 1 raises it, and every other attribute with
it; and whether it is still the same person. Scores are kept in a folder, so that a measurement that was stopped goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from editing.directions import Direction
from generators.base import Generator
from generators.errors import ToolkitError
from invert.attributes import SCORERS, VERSION, Scorer, score_face
from invert.errors import MetricUnavailable
from invert.identity import Descriptor, load_descriptor
from invert.photo import to_tensor, whole_file
from invert.samples import Draw, Progress, drawer, quiet, sample_codes
from pretrained import safetensors

STRENGTHS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
TRUNCATION_PSI = 0.7
"""Of the faces that are moved."""
SIMILARITY_AT = 2.0
"""How far to both sides faces must still be the same person's. Describing them at every step would take too long."""
MAX_FACES = 1000
JITTER = 0.1
"""Standard deviations of an attribute by which its score may fall and still count as level: what scores of one and the same
face differ by between its picture and the mirror image."""
FACES_SEED = 20_000_000
"""Far from the seeds that directions are learnt with: nothing is measured on faces that it was learnt from."""
_FACES_AT_ONCE = 5


@dataclass(frozen=True, eq=False)
class Measured:
    """What a direction did to faces.

    Attributes:
        attribute: that it is meant to raise.
        scores: by attribute, for each face and each of ``STRENGTHS``; NaN where no face was found.
        deviations: of each attribute over the unedited faces.
        similarity: cosine of face descriptors with the unedited face, NaN but at ``SIMILARITY_AT`` to both sides and at 0;
            None where no descriptor is installed.
    """

    attribute: str
    scores: Mapping[str, Float[Tensor, "n strengths"]]
    deviations: Mapping[str, float]
    similarity: Float[Tensor, "n strengths"] | None

    @property
    def faces(self) -> int:
        """How many faces were moved."""
        return len(self.scores[self.attribute])

    def rising(self, jitter: float = 0.0) -> float:
        """Return the share of faces whose attribute rises at every step.

        A face that is not found at some step has not risen.

        Args:
            jitter: standard deviations by which a step may fall and still count.
        """
        steps = self.scores[self.attribute].diff(dim=1)
        return float((steps > -jitter * self.deviations[self.attribute]).all(1).float().mean())

    def moved(self, attribute: str) -> float:
        """Return what a strength of 1 adds to an attribute, in its standard deviations: the slope from -2 to 2."""
        x = torch.tensor(STRENGTHS)
        near = x.abs() <= 2
        scores = self.scores[attribute][:, near]
        complete = scores[torch.isfinite(scores).all(1)]
        return float((complete @ x[near]).mean() / x[near].square().sum() / self.deviations[attribute])

    def similarity_at_ends(self) -> tuple[float, float] | None:
        """Return mean and minimum of the similarity at ``SIMILARITY_AT`` to both sides; None where it was not measured."""
        if self.similarity is None:
            return None
        ends = self.similarity[:, [STRENGTHS.index(-SIMILARITY_AT), STRENGTHS.index(SIMILARITY_AT)]]
        return float(ends.mean()), float(ends.min())


def measure_direction(
    direction: Direction,
    generator: Generator,
    faces: int = 100,
    *,
    attribute: str | None = None,
    scorers: Mapping[str, Scorer] = SCORERS,
    folder: Path | None = None,
    draw: Draw | None = None,
    progress: Progress = quiet,
) -> Measured:
    """Move fresh faces along a direction and score them.

    Args:
        direction: to measure.
        generator: that draws.
        faces: how many, at most ``MAX_FACES``; each is drawn six times, and once for all directions that share a folder.
        attribute: that it is meant to raise; by default the one that it was learnt from.
        scorers: what is measured.
        folder: keeps the scores; None keeps nothing.
        draw: draws faces; by default the generator does.
        progress: told how far it is.

    Raises:
        ToolkitError: nothing is known to measure it by, or too many faces are asked for.
        LatentMismatch: the direction does not fit the generator.
        ScorerError: a package or model that scores is not installed.
    """
    attribute = attribute or str(direction.quality.get("attribute", direction.name))
    if attribute not in scorers:
        raise ToolkitError(
            f"{direction.name}: nothing scores {attribute!r}: name an attribute of {', '.join(sorted(scorers))}"
        )
    if not 1 <= faces <= MAX_FACES:
        raise ToolkitError(f"{faces} faces: expected 1 to {MAX_FACES}")
    direction.check_generator(generator.identity)
    # All that there may be are sampled, so that the first ones stay the same however many are asked for.
    w = sample_codes(generator, MAX_FACES, FACES_SEED, (TRUNCATION_PSI, TRUNCATION_PSI))[:faces]
    track = _Track(generator, scorers, folder, draw or drawer(generator), _descriptor())
    unedited = track.follow("unedited", None, w, (0.0,), None, progress)
    moving = tuple(strength for strength in STRENGTHS if strength)
    edited = track.follow(direction.name, direction, w, moving, unedited.get("descriptor"), progress)
    zero = STRENGTHS.index(0.0)
    scores = {name: torch.cat([edited[name][:, :zero], unedited[name], edited[name][:, zero:]], dim=1) for name in scorers}
    similarity = edited.get("similarity")
    if similarity is not None:
        similarity = torch.cat([similarity[:, :zero], torch.ones(faces, 1), similarity[:, zero:]], dim=1)
    deviations = {name: float(_found(values).std()) if len(_found(values)) > 1 else 1.0 for name, values in unedited.items()}
    return Measured(attribute, scores, {name: deviations[name] for name in scorers}, similarity)


def _found(values: Tensor) -> Tensor:
    return values[torch.isfinite(values)]


def _descriptor() -> Descriptor | None:
    try:
        return load_descriptor("dlib")
    except MetricUnavailable:
        return None


@dataclass(frozen=True, eq=False)
class _Track:
    """Draws faces along a direction and scores them; what a folder holds already is not done again."""

    generator: Generator
    scorers: Mapping[str, Scorer]
    folder: Path | None
    draw: Draw
    descriptor: Descriptor | None

    def follow(
        self,
        name: str,
        direction: Direction | None,
        w: Float[Tensor, "n w_dim"],
        strengths: Sequence[float],
        reference: Tensor | None,
        progress: Progress,
    ) -> dict[str, Tensor]:
        """Return scores (n, strengths) by attribute; and similarity to a reference, or descriptors where there is none."""
        file = self.folder / f"{name}-{self._key(direction)}.safetensors" if self.folder else None
        kept = safetensors.load(file)[0] if file and file.is_file() else {}
        done = min((len(values) for values in kept.values()), default=0)
        for start in range(done, len(w), _FACES_AT_ONCE):
            part = w[start : start + _FACES_AT_ONCE]
            new = self._row(direction, part, strengths, None if reference is None else reference[start : start + len(part)])
            kept = {key: torch.cat([kept[key], value]) if kept else value for key, value in new.items()}
            if file is not None:
                with whole_file(file) as temporary:
                    safetensors.save(temporary, kept, {})
            progress(f"measuring {name}", start + len(part), len(w))
        return {key: values[: len(w)] for key, values in kept.items()}

    def _row(
        self, direction: Direction | None, w: Tensor, strengths: Sequence[float], reference: Tensor | None
    ) -> dict[str, Tensor]:
        w_plus = w[:, None].repeat(1, self.generator.num_ws, 1)
        moved = [w_plus if direction is None else cast(Tensor, direction(w_plus, strength)) for strength in strengths]
        pictures = self.draw(torch.stack(moved, dim=1).flatten(0, 1))
        scored = [score_face(face, self.scorers) for face in pictures]
        row = {name: torch.tensor([score[name] for score in scored]).view(len(w), len(strengths)) for name in self.scorers}
        if self.descriptor is None:
            return row
        asked = torch.tensor([abs(strength) in (0.0, SIMILARITY_AT) for strength in strengths])
        chosen = [to_tensor(face) for face, is_asked in zip(pictures, asked.repeat(len(w)), strict=True) if is_asked]
        described = self.descriptor(torch.stack(chosen)).view(len(w), int(asked.sum()), -1)
        if direction is None:
            return row | {"descriptor": described}
        if reference is None:
            return row
        similarity = torch.full((len(w), len(strengths)), torch.nan)
        similarity[:, asked] = (described * reference).sum(-1)
        return row | {"similarity": similarity}

    def _key(self, direction: Direction | None) -> str:
        """Name what the rows depend on, so that another direction of the same name starts anew."""
        parts = [self.generator.identity.name, self.generator.identity.sha256, VERSION, sorted(self.scorers)]
        if direction is not None:
            parts += [direction.unit, direction.layers, direction.vector.numpy().tobytes()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
