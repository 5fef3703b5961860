"""Where do face networks come from? From a file of the user's: ArcFace's ``model_ir_se50.pth``, CurricularFace's backbone.

They are not fetched: their authors publish them through file hosts that ask before they hand out. The first is of
TreB1eN/InsightFace_Pytorch, the second (``CurricularFace_Backbone.pth``) of HuangYG123/CurricularFace; the README of
eladrich/pixel2style2pixel links both, under "Auxiliary Models".
"""

from __future__ import annotations

from pathlib import Path

import torch

from encoders.arcface import ArcFace
from pretrained.checkpoints import read_checkpoint
from pretrained.errors import BrokenFile
from pretrained.loading import build_weights


def load_arcface(file: str | Path, device: str | torch.device = "cpu") -> ArcFace:
    """Load a face network: ArcFace's IR-SE50 or CurricularFace's IR-101, which its tensors tell.

    Returns:
        A frozen network: (batch, 3, 256, 256) in [-1, 1], aligned like FFHQ, becomes (batch, 512) of length 1.

    Raises:
        UnsafePickle: the file wants to run something, and is refused.
        BrokenFile: it cannot be read, or holds no face network.
        CheckpointMismatch: it is almost a face network.
    """
    checkpoint = read_checkpoint(Path(file))
    if "face" not in checkpoint.readers:
        raise BrokenFile(f"{file}: no face network in it, but {', '.join(sorted(checkpoint.readers))}")
    network = build_weights(checkpoint.read("face"), str(file))
    assert isinstance(network, ArcFace)
    return network.to(device)
