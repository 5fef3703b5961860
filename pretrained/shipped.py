"""Which weights ship with the toolkit? Listed without loading anything."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def weights_folder() -> Path:
    """Return the folder of the weights that ship."""
    return Path(str(resources.files("pretrained.weights")))


def encoder_names() -> dict[str, Path]:
    """Return the encoders that ship, by the name that ``--method`` takes."""
    return {path.stem: path for path in sorted(weights_folder().glob("*.safetensors"))}
