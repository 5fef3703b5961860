"""What is measured of one inversion? Metrics of the image, and of edits of its code: latent consistency, identity kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor

from editing.composition import EditSpec, parse_edits
from editing.directions import Direction
from editing.lec import LatentDistance, latent_distance
from generators.base import Generator
from generators.errors import ToolkitError
from generators.latent import Latent
from invert.age_and_gender import ScorerError
from invert.attributes import check_scorers
from invert.edits import as_edit, check_name, load_directions
from invert.errors import MetricUnavailable
from invert.inversion import Inversion, Inverter
from invert.inverters import EncoderInverter
from invert.metrics import Description, PairMetric, check_pair_metric, load_pair_metric
from invert.metrics.edits import SPREADS, describe_leak, describe_moved, measure_effect
from pretrained.directions import direction_names

DEFAULT_METRICS = ("mse", "psnr", "ssim", "ms-ssim", "lpips-squeeze", "id-dlib")
"""Those that one core computes in a fraction of a synthesis; LPIPS by other backbones and other descriptors on request."""
STRIP_EDITS = ("age=+2", "smile=+2", "pose=+2")
"""Drawn for a few faces where the user names no edits."""

Images = Float[Tensor, "batch 3 height width"]


@dataclass(frozen=True)
class Measure:
    """One row of the table, or several that come of one computation."""

    descriptions: tuple[Description, ...]
    values: Callable[[Inverter, Inversion, Images], Float[Tensor, "rows batch"]]
    """Of a batch of faces; NaN for a face that has none."""


@dataclass(frozen=True)
class MeasuredEdit:
    """An edit as it was asked for."""

    spec: EditSpec
    direction: Direction
    """With the layers and unit that were asked for."""

    @property
    def version(self) -> str:
        """What its figures depend on besides its name, which may be that of a file."""
        return f"direction {self.direction.fingerprint[:12]}"

    @property
    def label(self) -> str:
        """Names its pictures in the manifest."""
        return f"{self.spec}, {self.version}"

    def __call__(self, latent: Latent, times: float = 1.0) -> Latent:
        """Apply it, in another strength if wanted: -1 takes it back."""
        return self.direction(latent, times * self.spec.strength)


@dataclass(frozen=True)
class Measures:
    """All rows of the table, with those that cannot be measured here."""

    available: list[Measure]
    unavailable: dict[str, str] = field(default_factory=dict)
    """Why a metric is not there, by its name."""
    strip: list[MeasuredEdit] = field(default_factory=list)
    """Edits that are drawn for a few faces."""
    strip_reason: str = ""
    """Why there are none."""

    @property
    def descriptions(self) -> list[Description]:
        """What is measured, row by row."""
        return [description for measure in self.available for description in measure.descriptions]

    def keys(self) -> set[str]:
        """Name what a finished row of the manifest holds."""
        return {figure_key(description) for description in self.descriptions}

    def __call__(self, inverter: Inverter, inversion: Inversion, images: Images) -> tuple[list[dict[str, float]], list[str]]:
        """Measure a batch: the figures of each face, and a note on each where one has no value that should have."""
        figures: list[dict[str, float]] = [{} for _ in images]
        notes: list[list[str]] = [[] for _ in images]
        for measure in self.available:
            why = "no value for this face (none was found in it, or the generator cannot draw its code)"
            try:
                rows = measure.values(inverter, inversion, images).tolist()
            except (ToolkitError, RuntimeError, ValueError) as error:  # One metric's failure must not cost the others'.
                rows, why = [[math.nan] * len(figures)] * len(measure.descriptions), str(error)
            for description, row in zip(measure.descriptions, rows, strict=True):
                for figure, note, value in zip(figures, notes, row, strict=True):
                    figure[figure_key(description)] = value
                    if math.isnan(value) and (is_encoder(inverter) or not description.key.startswith("lec-")):
                        note.append(f"{description.name}: {why}")
        return figures, ["; ".join(note) for note in notes]


def figure_key(description: Description) -> str:
    """Name a figure in the manifest: a backbone with other weights has another key."""
    text = f"{description.name}|{description.backbone}".encode(errors="surrogateescape")  # Of files with any names.
    return f"{description.key}#{hashlib.sha256(text).hexdigest()[:8]}"


def check_metrics(keys: Sequence[str]) -> None:
    """Refuse names of metrics that there are not.

    Raises:
        UnknownName: naming close ones.
    """
    for key in keys:
        check_pair_metric(key)


def load_measures(metrics: Sequence[str], edits: Sequence[EditSpec], generator: Generator, device: torch.device) -> Measures:
    """Load what is to be measured; what cannot be had is named with its reason, the rest goes on.

    Without metrics, latent editing consistency is all that is asked of the edits.

    Raises:
        UnknownName: no such metric or edit.
        LatentMismatch: an edit belongs to another generator.
    """
    check_metrics(metrics)
    loaded: list[PairMetric] = []
    unavailable = {}
    for key in dict.fromkeys(metrics):
        try:
            loaded.append(load_pair_metric(key, device))
        except MetricUnavailable as error:
            unavailable[key] = str(error)
    measured = _load_edits(edits, generator)
    identities = [metric for metric in loaded if metric.key.startswith("id-")]
    measures = [_reconstruction(metric) for metric in loaded]
    for edit in measured:
        attribute = str(edit.direction.quality.get("attribute")) if metrics else ""
        if attribute in SPREADS:
            try:
                check_scorers()
            except ScorerError as error:  # Optional packages: the other figures stand without them.
                unavailable[f"{describe_moved(attribute).name} by {edit.spec}"] = str(error)
                attribute = ""
        elif metrics:
            unavailable[f"attribute moved by {edit.spec}"] = "no known attribute or spread"
        measures.append(_edited(edit, generator, identities, attribute))
    strip, reason = (measured, "") if measured else _default_strip(generator)
    return Measures(measures, unavailable, strip, reason)


def _load_edits(specs: Sequence[EditSpec], generator: Generator) -> list[MeasuredEdit]:
    """Load edits; one that is named twice counts once."""
    known = list(dict.fromkeys(check_name(spec, generator.identity) for spec in specs))
    directions = load_directions(known, generator)
    edits = ((spec, as_edit(spec, directions[spec.name], generator)) for spec in known)
    # Without a mask, which takes a picture to lie on, an edit is a direction.
    return [MeasuredEdit(spec, edit) for spec, edit in edits if isinstance(edit, Direction)]


def _reconstruction(metric: PairMetric) -> Measure:
    def values(inverter: Inverter, inversion: Inversion, images: Images) -> Float[Tensor, "1 batch"]:
        return metric.per_image(inversion.image, images)[None].double()

    return Measure((metric.description,), values)


def _edited(edit: MeasuredEdit, generator: Generator, identities: Sequence[PairMetric], attribute: str) -> Measure:
    """Measure an edit: its consistency (LEC, of encoders alone), the identity kept, the attribute moved, and the leak."""
    spec = edit.spec
    unit = "latent units, over the encoder and the generator under test"
    forms = LatentDistance._fields
    descriptions = [Description(f"lec-{form} {spec}", f"LEC {spec}, {form}", False, 0.0, math.inf, unit) for form in forms]
    for metric in identities:
        named = replace(metric.description, key=f"{metric.key} {spec}", name=f"{metric.name} kept by {spec}", weights="")
        descriptions.append(named)
    if attribute in SPREADS:
        for described in (describe_moved(attribute), describe_leak(attribute)):
            descriptions.append(replace(described, key=f"{described.key} {spec}", name=f"{described.name} by {spec}"))
    descriptions = [replace(described, backbone=f"{described.backbone}; {edit.version}") for described in descriptions]

    def effect(before: Images, after: Images) -> list[Tensor]:
        found = measure_effect(before, after, attribute)
        return [found.moved * math.copysign(1, spec.strength), found.leak]

    @torch.no_grad()
    def values(inverter: Inverter, inversion: Inversion, images: Images) -> Float[Tensor, "rows batch"]:
        lost = torch.zeros(len(images), dtype=torch.bool, device=images.device)

        def draw(code: Latent) -> Images:
            drawn = (inversion.generator or generator).synthesis(edit(code))
            lost.logical_or_(~torch.isfinite(drawn).flatten(1).all(1))
            # What is measured of it is not reported, and the batch's other faces stand. Infinity becomes grey, too: the
            # largest number, which it else becomes, is infinite again in the first mean.
            return drawn.nan_to_num(0.0, 0.0, 0.0)

        rows, drawn = [torch.full((len(images),), math.nan)] * len(forms), None
        if is_encoder(inverter):
            if inverter.looks is None and inverter.encoder.looks > 1:  # The inversion is more than the encoder's own.
                code = inverter.encode(images)
                seen = draw(code)
            else:
                code, seen = inversion.latent, (drawn := draw(inversion.latent))
            rows = list(latent_distance(code, edit(inverter.encode(seen), -1.0)))
        if identities or attribute in SPREADS:
            drawn = draw(inversion.latent) if drawn is None else drawn
            rows += [metric.per_image(drawn, inversion.image) for metric in identities]
            rows += effect(inversion.image, drawn) if attribute in SPREADS else []
        return torch.stack([row.double().cpu() for row in rows]).masked_fill(lost.cpu(), math.nan)

    return Measure(tuple(descriptions), values)


def is_encoder(inverter: Inverter) -> TypeGuard[EncoderInverter]:
    """Tell whether an inverter is an encoder without polishing, which latent editing consistency is defined for."""
    return isinstance(inverter, EncoderInverter) and inverter.refiner is None


def _default_strip(generator: Generator) -> tuple[list[MeasuredEdit], str]:
    known = set(direction_names(generator.identity))
    specs = [spec for spec in parse_edits(STRIP_EDITS) if spec.name in known]
    if not specs:
        return [], f"no directions ship for the generator {generator.identity}: name some with --edit FILE=STRENGTH"
    return _load_edits(specs, generator), ""
