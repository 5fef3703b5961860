"""From a photo to results in a folder: the data flow of the toolkit, one line an arrow.

    photo -> detect -> align -> invert -> edit -> synthesis -> paste back -> files

The command line calls ``process_photo`` and adds nothing.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from editing.composition import EditSpec
from generators.base import Generator
from generators.latent import Latent, select, space_of
from invert import identity
from invert.edits import as_edit, draw_edited
from invert.errors import NoFaceFound, OutputError
from invert.faces import AlignedFace, align, already_aligned, detect, paste_back
from invert.inversion import Inversion, Inverter, resize
from invert.latents import save_latent
from invert.metrics import reconstruction
from invert.metrics.base import METRIC_RESOLUTION
from invert.panels import Panel, comparison
from invert.photo import STDIN, decode_photo, photo_stem, read_bytes, to_uint8, whole_file, write_image
from invert.recipe import Recipe
from invert.tools import Tools
from invert.tuning import TunedInverter
from pretrained.conversion import save_generator

FACES_AT_ONCE = 4
"""Faces in one batch: the projector needs about 1.3 GB for each at 1024 px."""
MAX_STAGES = 7
"""Edits that are each drawn and shown in the comparison."""
_NUMBER = re.compile(r"-(0|[1-9][0-9]*)$")
"""Of a face, behind the stem of its photo."""


class Stage(NamedTuple):
    """A face after one more edit."""

    label: str
    latent: Latent
    image: Float[Tensor, "1 3 height width"]


@dataclass(frozen=True)
class Timer:
    """Seconds by step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Add the time inside to a step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - began


def process_photo(
    source: Path | str, output: Path | str, tools: Tools, recipe: Recipe, stem: str | None = None
) -> list[dict[str, Any]]:
    """Invert and edit the faces of one photo, and write the results.

    Args:
        source: a file, or ``-`` for standard input.
        output: the folder that gets ``STEM/`` (one face) or ``STEM-0/``, ``STEM-1/``, ... (several, the largest first).
        tools: loaded networks; ``load_tools`` gives them, and the recipe that goes with them.
        recipe: what to do.
        stem: name of the results; None takes the photo's.

    Returns:
        The report of each face, as it is written to ``report.json``.

    Raises:
        PhotoError: the photo cannot be read.
        NoFaceFound: it has no face, or not the one asked for.
        ImageError: an edit, or the inversion, cannot be drawn.
        OutputError: the results cannot be written.
    """
    timer = Timer()
    with timer("read"):
        data = read_bytes(source)
        photo = decode_photo(data, str(source))
    with timer("align"):
        faces = _aligned_faces(photo, tools.generator.img_resolution, recipe)
        numbers = [recipe.face] if isinstance(recipe.face, int) else list(range(len(faces)))
        _check_faces(recipe, numbers)
    images = torch.stack([face.image for face in faces]).to(tools.generator.w_avg.device)
    with timer("invert"):
        inversions = invert_faces(images, tools.inverter)
    with timer("edit"):
        stages = [_edited(found, tools, recipe, number) for found, number in zip(inversions, numbers, strict=True)]
    with timer("paste"):
        result = photo
        for i, face in enumerate(faces):
            final = stages[i][-1].image[0] if stages[i] else inversions[i].image[0]
            before = inversions[i].image[0].cpu() if recipe.paste == "change" else None
            result = paste_back(result, final.cpu(), face, inverted=before, match_colour=True)
    with timer("measure"):
        drawn = torch.cat([found.image for found in inversions])
        figures = reconstruction(drawn, images, tools.perceptual)
        likeness = identity.compare(resize(drawn, METRIC_RESOLUTION).cpu(), resize(images, METRIC_RESOLUTION).cpu())
    names = folder_names(photo_stem(source) if stem is None else stem, len(faces))
    reports = []
    for i, (face, found) in enumerate(zip(faces, inversions, strict=True)):
        folder = Path(output) / names[i]
        report = {
            "photo": str(source),
            "photo_sha256": hashlib.sha256(data).hexdigest(),
            "folder": str(folder),
            "face": numbers[i],
            "faces": len(faces),
            "crop_from_photo": face.crop_from_photo.tolist(),
            "crop_side_px": round(face.side_px, 1),
            "method": recipe.method,
            "settings": recipe.settings,
            "edits": [{"name": spec.name, "strength": spec.strength} for spec in recipe.edits_of(numbers[i])],
            "recipe": followed(recipe, tools.generator).as_dict(),
            "paste": recipe.paste,
            "space": space_of(found.latent),
            "generator": {"name": tools.generator.identity.name, "sha256": tools.generator.identity.sha256},
            "metrics": {
                "mse": {"value": float(figures.mse[i]), "resolution": METRIC_RESOLUTION, "range": "[-1, 1]"},
                "perceptual": {
                    "value": float(figures.perceptual[i]),
                    "backbone": figures.perceptual_name,
                    "resolution": METRIC_RESOLUTION,
                },
                "identity": {
                    "value": None if likeness is None else likeness[i].similarity,
                    "backbone": identity.NAME,
                    "resolution": METRIC_RESOLUTION,
                }
                | ({"reason": identity.HOW_TO_GET} if likeness is None else {}),
            },
            "same_person": None if likeness is None else likeness[i].same_person,
            "interrupted": found.interrupted,
            "history": found.history[-1:] and {"steps": len(found.history) - 1, "last": found.history[-1]},
            "seconds": {step: round(seconds, 3) for step, seconds in timer.seconds.items()},
            "versions": versions(),
        }
        _write(folder, face, found, stages[i], result, tools, report)
        reports.append(report)
    return reports


def earlier_reports(
    source: Path | str, output: Path | str, tools: Tools, recipe: Recipe, stem: str | None = None
) -> list[dict[str, Any]]:
    """Find what ``process_photo`` wrote for the same photo by the same recipe before.

    The photo is told by its content; files that the recipe names (an encoder, a mask) by their names alone.

    Args:
        source: see ``process_photo``, as are all others.
        output: where to look.
        tools: loaded networks.
        recipe: what would be done.
        stem: name of the results; None takes the photo's.

    Returns:
        The reports of all its faces; none of them where one is missing, lacks a file, was interrupted or tells of another
        recipe, and for standard input, which cannot be read twice.

    Raises:
        PhotoError: the photo cannot be read.
    """
    source, output = Path(source), Path(output)
    if source == STDIN:
        return []
    stem = photo_stem(source) if stem is None else stem
    sha256 = hashlib.sha256(read_bytes(source)).hexdigest()
    recipe = followed(recipe, tools.generator)

    def finished(name: str) -> dict[str, Any]:
        return _finished(output / name, sha256, recipe)

    first = finished(stem) or finished(folder_names(stem, 2)[0])
    reports = [finished(name) for name in folder_names(stem, first.get("faces", 0))]
    return reports if all(reports) else []


def _finished(folder: Path, photo_sha256: str, recipe: Recipe) -> dict[str, Any]:
    """Read the report of a complete result of a photo and a recipe; empty where there is none."""
    try:
        report = json.loads((folder / "report.json").read_text())
    except (OSError, ValueError):
        return {}
    wanted = {"photo_sha256": photo_sha256, "recipe": json.loads(json.dumps(recipe.as_dict())), "interrupted": False}
    if not isinstance(report, dict) or any(report.get(key) != value for key, value in wanted.items()):
        return {}
    files = {"aligned.png", "inverted.png", "result.jpg", "comparison.png", "latent.safetensors"}
    files |= {"edited.png"} if recipe.edits_of(report["face"]) else set()
    files |= {"generator.safetensors"} if recipe.settings.get("tune") else set()
    return report if all((folder / name).is_file() for name in files) else {}


def invert_faces(images: Float[Tensor, "batch 3 h w"], inverter: Inverter) -> list[Inversion]:
    """Invert faces, ``FACES_AT_ONCE`` at a time, since a group photo must not need a group's memory; one record a face.

    Faces that a generator is tuned to come one by one, each with a generator of its own.
    """
    found = []
    for part in images.split(1 if isinstance(inverter, TunedInverter) else FACES_AT_ONCE):
        inversion = inverter(part)
        found += [
            replace(inversion, latent=select(inversion.latent, i), image=inversion.image[i : i + 1])
            for i in range(len(part))
        ]
    return found


def versions() -> dict[str, str]:
    """Return what the figures depend on."""
    packages = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {"stylegan-invert": toolkit_version(), "python": platform.python_version(), **packages}


def toolkit_version() -> str:
    """Return the installed version, or ``unknown`` where the package runs without being installed."""
    try:
        return metadata.version("stylegan-invert")
    except metadata.PackageNotFoundError:
        return "unknown"


def folder_names(stem: str, count: int) -> list[str]:
    """Name the folders of a photo's faces: ``STEM`` of one alone, ``STEM-0``, ``STEM-1``, ... of several."""
    return [stem] if count == 1 else [f"{stem}-{i}" for i in range(count)]


def unique_stems(wanted: Sequence[str], several_faces: bool = False) -> list[str]:
    """Name the results of several photos so that none overwrites another's: ``photo``, ``photo_2``, ...

    Args:
        wanted: what each would be called alone, such as ``photo_stem`` says.
        several_faces: each may have several, so that ``IMG-1`` could be the second one of ``IMG``: see ``folder_names``.

    Returns:
        A name for each, that no other one has, not even where file systems take ``IMG`` and ``img`` for the same.
    """
    taken: set[str] = set()
    numbered: set[str] = set()

    def is_taken(stem: str) -> bool:
        return stem in taken or (several_faces and (stem in numbered or _NUMBER.sub("", stem) in taken))

    stems = []
    for name in wanted:
        stem, number = name, 2
        while is_taken(stem.casefold()):
            stem, number = f"{name}_{number}", number + 1
        taken.add(stem.casefold())
        numbered.add(_NUMBER.sub("", stem.casefold()))
        stems.append(stem)
    return stems


def _aligned_faces(photo: UInt8[np.ndarray, "height width 3"], resolution: int, recipe: Recipe) -> list[AlignedFace]:
    if recipe.is_aligned:
        return [already_aligned(photo, resolution)]
    faces = detect(photo, recipe.face, predictor=recipe.predictor)
    return [align(photo, face, resolution) for face in faces]


def _check_faces(recipe: Recipe, numbers: Sequence[int]) -> None:
    """Refuse edits of a face that is not worked on: they would be lost without a word."""
    for spec in recipe.edits:
        if spec.face not in (None, *numbers):
            raise NoFaceFound(
                f"the edit {spec} is for face {spec.face}, but only {', '.join(map(str, numbers))} of this photo"
                f" {'is' if len(numbers) == 1 else 'are'} worked on (--face {recipe.face})"
            )


def followed(recipe: Recipe, generator: Generator) -> Recipe:
    """Return the recipe with what it was followed with, so that it gives the same again or says why not."""
    name = recipe.generator or generator.identity.name
    return replace(recipe, generator=name, generator_sha256=generator.identity.sha256)


def _edited(inversion: Inversion, tools: Tools, recipe: Recipe, number: int) -> list[Stage]:
    """Apply the edits to one face, one after the other; where there are many, only the last stage is drawn."""
    stages: list[Stage] = []
    latent, edits = inversion.latent, recipe.edits_of(number)
    generator = inversion.generator or tools.generator
    for done, spec in enumerate(edits, 1):
        edit = as_edit(spec, tools.directions[spec.name], generator, inversion.image[0], recipe.predictor)
        latent = edit(latent, spec.strength)
        if len(edits) <= MAX_STAGES or done == len(edits):
            label = _label(spec) if len(edits) <= MAX_STAGES else f"{len(edits)} edits"
            stages.append(Stage(f"{'+ ' if stages else ''}{label}", latent, draw_edited(latent, generator)))
    return stages


def _label(spec: EditSpec) -> str:
    layers = "" if spec.layers is None else f" ({spec.layers})"
    return f"{Path(spec.name).stem} {spec.strength:+g}{layers}{'' if spec.mask is None else f' at {Path(spec.mask).stem}'}"


def _write(
    folder: Path,
    face: AlignedFace,
    inversion: Inversion,
    stages: list[Stage],
    result: UInt8[np.ndarray, "height width 3"],
    tools: Tools,
    report: dict[str, Any],
) -> None:
    """Write the results of one face, the report last: a folder with a report is complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}): choose another folder with --output") from error
    aligned, inverted = to_uint8(face.image), to_uint8(inversion.image[0])
    metrics = report["metrics"]
    figures = f"{metrics['perceptual']['backbone']} {metrics['perceptual']['value']:.3f}, MSE {metrics['mse']['value']:.4f}"
    panels = [
        Panel(aligned, "photo", f"{report['crop_side_px']:.0f} px across"),
        Panel(inverted, report["method"] or "inverted", figures),
    ]
    panels += [Panel(to_uint8(stage.image[0]), stage.label) for stage in stages]
    note = json.dumps(report["recipe"])
    (folder / "report.json").unlink(missing_ok=True)  # An old report must not vouch for new files.
    write_image(folder / "aligned.png", aligned, note)
    write_image(folder / "inverted.png", inverted, note)
    if stages:
        write_image(folder / "edited.png", to_uint8(stages[-1].image[0]), note)
    else:
        (folder / "edited.png").unlink(missing_ok=True)
    write_image(folder / "result.jpg", result, note)
    write_image(folder / "comparison.png", comparison(panels), note)
    save_latent(
        folder / "latent.safetensors",
        inversion.latent,
        tools.generator.identity,
        photo_sha256=report["photo_sha256"],
        crop_from_photo=report["crop_from_photo"],
        toolkit_version=toolkit_version(),
        method=report["method"],
        recipe=report["recipe"],
    )
    (folder / "generator.safetensors").unlink(missing_ok=True)
    if inversion.generator is not None:  # The code alone would draw another face.
        save_generator(folder / "generator.safetensors", inversion.generator)
    with whole_file(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
