"""What does a user do? Photo in, latent code, edits, photo out; the command line is a thin layer over this package.

    from invert import read_photo, detect, align, load_generator, invert, edit, paste_back

Names are resolved when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_HOME = {
    "AlignedFace": "invert.faces",
    "BrokenFile": "pretrained.errors",
    "CheckpointMismatch": "pretrained.errors",
    "DownloadFailed": "pretrained.errors",
    "EditError": "editing.errors",
    "Editor": "invert.editor",
    "Face": "invert.landmarks",
    "ForeignFile": "pretrained.errors",
    "ImageError": "invert.errors",
    "Inversion": "invert.inversion",
    "LEC": "editing.lec",
    "LatentMismatch": "generators.errors",
    "LocalEdit": "editing.blending",
    "MetricError": "invert.errors",
    "MetricUnavailable": "invert.errors",
    "NoFaceFound": "invert.errors",
    "OutputError": "invert.errors",
    "Panel": "invert.panels",
    "PhotoError": "invert.errors",
    "PredictorError": "invert.errors",
    "Projector": "invert.projector",
    "Recipe": "invert.recipe",
    "RecipeError": "invert.errors",
    "ScorerError": "invert.age_and_gender",
    "Smoothing": "invert.video",
    "TooFewImages": "invert.errors",
    "ToolkitError": "generators.errors",
    "Tools": "invert.tools",
    "TrainingDataError": "editing.errors",
    "UnknownName": "generators.errors",
    "UnsafePickle": "pretrained.errors",
    "VideoError": "invert.errors",
    "align": "invert.faces",
    "already_aligned": "invert.faces",
    "blend": "editing.blending",
    "comparison": "invert.panels",
    "detect": "invert.faces",
    "draw_blended": "editing.blending",
    "edit": "invert.editor",
    "edit_video": "invert.video",
    "interpolate": "editing.interpolation",
    "interpolate_z": "editing.interpolation",
    "invert": "invert.inverters",
    "keep_freed_memory": "invert.performance",
    "load_direction": "pretrained.directions",
    "load_encoder": "pretrained.loading",
    "load_features": "invert.metrics",
    "load_generator": "pretrained.loading",
    "load_inverter": "invert.inverters",
    "load_latent": "invert.latents",
    "load_pair_metric": "invert.metrics",
    "load_perceptual": "invert.perceptual",
    "load_tools": "invert.tools",
    "map_sizes": "editing.blending",
    "mask_of": "invert.masks",
    "measure_direction": "invert.measure",
    "mix": "editing.mixing",
    "parse_layers": "editing.layers",
    "parse_recipe": "invert.recipe",
    "part_mask": "invert.masks",
    "paste_back": "invert.faces",
    "process_photo": "invert.pipeline",
    "read_latents": "invert.latents",
    "read_mask": "invert.masks",
    "read_photo": "invert.photo",
    "read_recipe": "invert.recipe",
    "reconstruction": "invert.metrics",
    "save_latent": "invert.latents",
    "to_tensor": "invert.photo",
    "to_uint8": "invert.photo",
    "train_directions": "invert.directions",
    "write_image": "invert.photo",
    "write_video": "invert.animation",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 (a list of names all the same)


def __getattr__(name: str) -> Any:
    """Import a public name from the module that holds it."""
    if name not in _HOME:
        raise AttributeError(f"module 'invert' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__


def _check_siblings() -> None:
    """Say so plainly when another project's package of the same name stands before ours."""
    ours = Path(__file__).resolve().parent.parent
    for name in ("generators", "encoders", "editing", "pretrained"):
        spec = find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent.parent != ours:
            found = "none" if spec is None else spec.origin or "a folder without __init__.py"
            raise ImportError(
                f"stylegan-invert needs its own package {name!r} from {ours}, but Python finds {found}:"
                " start from another folder, or remove that one from PYTHONPATH"
            )


_check_siblings()
