"""From a photo to results in a folder: the data flow of the toolkit, one line an arrow.

    photo -> detect -> align -> invert -> edit -> synthesis -> paste back -> files

The command line and the web page call ``process_photo`` and add nothing.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from editing.composition import EditSpec
from editing.directions import Direction
from generators.base import Generator
from generators.latent import Latent, batch_size, concatenate, select, space_of
from invert import identity
from invert.comparison import Panel, comparison
from invert.errors import OutputError
from invert.faces import AlignedFace, align, already_aligned, detect, paste_back
from invert.inversion import Inversion, Inverter
from invert.latents import save_latent
from invert.metrics import reconstruction
from invert.perceptual import Perceptual
from invert.photo import decode_photo, photo_stem, read_bytes, to_uint8, whole_file, write_image
from pretrained.directions import load_direction

Paste = Literal["face", "change"]

FACES_AT_ONCE = 4
"""Faces in one batch: the projector needs about 1.3 GB for each at 1024 px."""


@dataclass(frozen=True)
class Tools:
    """The loaded networks that every photo is worked on with."""

    generator: Generator
    inverter: Inverter
    perceptual: Perceptual
    directions: dict[str, Direction] = field(default_factory=dict)
    """By the names that the edits use."""


@dataclass(frozen=True)
class Recipe:
    """What to do with each photo."""

    method: str = "stylemap"
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the method, for the report: space, steps, refine."""
    edits: tuple[EditSpec, ...] = ()
    face: str | int = "largest"
    """``largest``, ``all`` or a number from 0 (the largest)."""
    is_aligned: bool = False
    """The photo is an aligned face already: no detection, no crop."""
    predictor: Path | None = None
    """dlib's 68-point model; None: the one of ``face_recognition_models``, or five landmarks."""
    paste: Paste = "face"
    """``face``: the drawn face takes the place of the photo's; ``change``: only what the edits changed is added to it."""


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


def load_directions(edits: Sequence[EditSpec], generator: Generator) -> dict[str, Direction]:
    """Load the directions that edits name; loading checks that they belong to the generator.

    Raises:
        UnknownName: no such direction.
        LatentMismatch: it was learnt for another generator.
    """
    return {spec.name: load_direction(spec.name, generator.identity) for spec in edits}


def process_photo(source: Path, output: Path, tools: Tools, recipe: Recipe, stem: str | None = None) -> list[dict[str, Any]]:
    """Invert and edit the faces of one photo, and write the results.

    Args:
        source: a file, or ``-`` for standard input.
        output: the folder that gets ``STEM/`` (one face) or ``STEM-0/``, ``STEM-1/``, ... (several, the largest first).
        tools: loaded networks.
        recipe: what to do.
        stem: name of the results; None takes the photo's.

    Returns:
        The report of each face, as it is written to ``report.json``.

    Raises:
        PhotoError: the photo cannot be read.
        NoFaceFound: it has no face, or not the one asked for.
        OutputError: the results cannot be written.
    """
    timer = Timer()
    with timer("read"):
        data = read_bytes(source)
        photo = decode_photo(data, str(source))
    with timer("align"):
        faces = _aligned_faces(photo, tools.generator.img_resolution, recipe)
    images = torch.stack([face.image for face in faces]).to(tools.generator.w_avg.device)
    with timer("invert"):
        inversion = invert_in_parts(images, tools.inverter)
    with timer("edit"):
        stages = _edited(inversion.latent, tools, recipe)
        drawn = [_draw(tools, latent) for _, latent in stages]
    final = drawn[-1] if drawn else inversion.image
    with timer("paste"):
        result = photo
        for i, face in enumerate(faces):
            before = inversion.image[i].cpu() if recipe.paste == "change" else None
            result = paste_back(result, final[i].cpu(), face, inverted=before, match_colour=True)
    with timer("measure"):
        figures = reconstruction(inversion.image, images, tools.perceptual)
        similarity = [identity.identity_similarity(a.cpu(), b.cpu()) for a, b in zip(inversion.image, images, strict=True)]
    stem = photo_stem(source) if stem is None else stem
    reports = []
    for i, face in enumerate(faces):
        folder = output / (stem if len(faces) == 1 else f"{stem}-{i}")
        report = {
            "photo": str(source),
            "photo_sha256": hashlib.sha256(data).hexdigest(),
            "folder": str(folder),
            "face": i,
            "crop_from_photo": face.crop_from_photo.tolist(),
            "crop_side_px": round(face.side_px, 1),
            "method": recipe.method,
            "settings": recipe.settings,
            "edits": [{"name": spec.name, "strength": spec.strength} for spec in recipe.edits],
            "paste": recipe.paste,
            "space": space_of(inversion.latent),
            "generator": {"name": tools.generator.identity.name, "sha256": tools.generator.identity.sha256},
            "metrics": {
                "mse": {"value": float(figures.mse[i]), "resolution": 256, "range": "[-1, 1]"},
                "perceptual": {
                    "value": float(figures.perceptual[i]),
                    "backbone": figures.perceptual_name,
                    "resolution": 256,
                },
                "identity": {"value": similarity[i], "backbone": identity.NAME}
                | ({"reason": identity.HOW_TO_GET} if similarity[i] is None else {}),
            },
            "interrupted": inversion.interrupted,
            "history": inversion.history[-1:] and {"steps": len(inversion.history) - 1, "last": inversion.history[-1]},
            "seconds": {step: round(seconds, 3) for step, seconds in timer.seconds.items()},
            "versions": versions(),
        }
        one = [
            (label, select(latent, i), images_of_stage[i])
            for (label, latent), images_of_stage in zip(stages, drawn, strict=True)
        ]
        _write(folder, face, select(inversion.latent, i), inversion.image[i], one, result, tools, report)
        reports.append(report)
    return reports


def invert_in_parts(images: Float[Tensor, "batch 3 h w"], inverter: Inverter) -> Inversion:
    """Invert at most ``FACES_AT_ONCE`` faces at a time: a group photo must not need a group's memory."""
    parts = [inverter(part) for part in images.split(FACES_AT_ONCE)]
    if len(parts) == 1:
        return parts[0]
    history = [row for part in parts for row in part.history]
    image, latent = torch.cat([part.image for part in parts]), concatenate([part.latent for part in parts])
    return Inversion(latent, image, history, any(part.interrupted for part in parts))


def _draw(tools: Tools, latent: Latent) -> Float[Tensor, "batch 3 h w"]:
    """Draw latents without gradients."""
    starts = range(0, batch_size(latent), FACES_AT_ONCE)
    with torch.no_grad():
        return torch.cat([tools.generator.synthesis(select(latent, slice(i, i + FACES_AT_ONCE))) for i in starts])


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


def unique_stems(sources: Sequence[Path]) -> list[str]:
    """Name the results of several photos so that none overwrites another's: ``photo``, ``photo_2``, ..."""
    taken: set[str] = set()
    stems = []
    for source in sources:
        stem, number = photo_stem(source), 2
        while stem in taken:
            stem, number = f"{photo_stem(source)}_{number}", number + 1
        taken.add(stem)
        stems.append(stem)
    return stems


def _aligned_faces(photo: UInt8[np.ndarray, "height width 3"], resolution: int, recipe: Recipe) -> list[AlignedFace]:
    if recipe.is_aligned:
        return [already_aligned(photo, resolution)]
    faces = detect(photo, recipe.face, predictor=recipe.predictor)
    return [align(photo, face, resolution) for face in faces]


def _edited(latent: Latent, tools: Tools, recipe: Recipe) -> list[tuple[str, Latent]]:
    """Apply the edits one after the other; return each stage with its label."""
    stages: list[tuple[str, Latent]] = []
    for spec in recipe.edits:
        latent = tools.directions[spec.name](latent, spec.strength)
        stages.append((f"{'+ ' if stages else ''}{spec.name} {spec.strength:+g}", latent))
    return stages


def _write(
    folder: Path,
    face: AlignedFace,
    latent: Latent,
    inverted: Float[Tensor, "3 h w"],
    stages: list[tuple[str, Latent, Float[Tensor, "3 h w"]]],
    result: UInt8[np.ndarray, "height width 3"],
    tools: Tools,
    report: dict[str, Any],
) -> None:
    """Write the results of one face, the report last: a folder with a report is complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}): choose another folder with --output") from error
    aligned = to_uint8(face.image)
    metrics = report["metrics"]
    note = f"{metrics['perceptual']['backbone']} {metrics['perceptual']['value']:.3f}, MSE {metrics['mse']['value']:.4f}"
    panels = [
        Panel(aligned, "photo", f"{report['crop_side_px']:.0f} px across"),
        Panel(to_uint8(inverted), report["method"], note),
    ]
    panels += [Panel(to_uint8(image), label) for label, _, image in stages]
    (folder / "report.json").unlink(missing_ok=True)  # An old report must not vouch for new files.
    write_image(folder / "aligned.png", aligned)
    write_image(folder / "inverted.png", to_uint8(inverted))
    if stages:
        write_image(folder / "edited.png", to_uint8(stages[-1][2]))
    else:
        (folder / "edited.png").unlink(missing_ok=True)
    write_image(folder / "result.jpg", result)
    write_image(folder / "comparison.png", comparison(panels))
    save_latent(
        folder / "latent.safetensors",
        latent,
        tools.generator.identity,
        photo_sha256=report["photo_sha256"],
        crop_from_photo=report["crop_from_photo"],
        toolkit_version=toolkit_version(),
        method=report["method"],
    )
    with whole_file(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
