"""How do StyleGAN1's PyTorch ports name its tensors? Two tables of names; one stores some kernels in TensorFlow's order.

References: github.com/genforce/genforce, ``models/stylegan_generator.py``; github.com/genforce/interfacegan,
``models/stylegan_generator_model.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pretrained.errors import BrokenFile

GENFORCE = ((r"truncation\.w_avg", "mapping.w_avg"),)
INTERFACEGAN = (
    *GENFORCE,
    (r"mapping\.(dense\d+)\.(?:linear|wscale)\.(weight|bias)", r"mapping.\1.\2"),
    (r"synthesis\.layer0\.first_layer", "synthesis.layer0.const"),
    (r"synthesis\.((?:layer|output)\d+)\.conv\.weight", r"synthesis.\1.weight"),
    (r"synthesis\.(layer\d+)\.epilogue\.style_mod\.dense\.(?:linear|wscale)\.(weight|bias)", r"synthesis.\1.style.\2"),
    (r"synthesis\.(layer\d+)\.epilogue\.(.+)", r"synthesis.\1.\2"),
)
"""Their names, and what they are here."""
TRUNCATION = "truncation.truncation"
"""What InterFaceGAN's code keeps of its settings beside the weights: which layers are truncated."""
NEVER_FUSED = 65536
"""A resolution that no network has, for one that never up-samples by a transposed convolution."""


def from_genforce(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Rename the tensors of genforce's StyleGAN1; return also the settings that the names tell.

    Raises:
        BrokenFile: its blur is not StyleGAN1's.
    """
    return _rename(_without_constants(tensors), GENFORCE), {}


def from_interfacegan(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Rename the tensors of InterFaceGAN's StyleGAN1; return also the settings that the names tell.

    Layers that up-sample by a transposed convolution are told by their names, and hold kernels as (height, width, in, out).

    Raises:
        BrokenFile: its blur is not StyleGAN1's.
    """
    given = _without_constants(tensors)
    fused = {
        int(match[1]): match[0] for name in given if (match := re.fullmatch(r"synthesis\.layer(\d{1,2})\.weight", name))
    }
    for name in fused.values():
        if given[name].ndim != 4:
            raise BrokenFile(f"{name} has the shape {tuple(given[name].shape)}: expected (height, width, in, out)")
        given[name] = given[name].permute(3, 2, 0, 1)
    # Layers come in pairs, the first of which up-samples.
    return _rename(given, INTERFACEGAN), {"fused_from": 2 ** (min(fused) // 2 + 2) if fused else NEVER_FUSED}


def _without_constants(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what is no weight, after a look at the blur."""
    taps = torch.tensor([1.0, 2.0, 1.0])
    blur = taps.outer(taps) / 16
    for name, kernel in tensors.items():
        if name.endswith(".blur.kernel") and not (
            kernel.shape[1:] == (1, 3, 3) and torch.allclose(kernel.float(), blur.expand_as(kernel))
        ):
            raise BrokenFile(f"the blur {name} is not StyleGAN1's 1-2-1")
    return {name: value for name, value in tensors.items() if not name.endswith(".blur.kernel") and name != TRUNCATION}


def _rename(tensors: Mapping[str, Tensor], table: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in tensors.items():
        ours = (re.sub(pattern, new, name) for pattern, new in table if re.fullmatch(pattern, name))
        renamed[next(ours, name)] = value
    return renamed
