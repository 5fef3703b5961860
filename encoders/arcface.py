"""Whose face is it? Networks that turn a face into a vector, alike for pictures of one person: for losses and metrics.

Tensor names are those of the published files: ``model_ir_se50.pth`` (ArcFace, IR-SE50, of TreB1eN/InsightFace_Pytorch) and
``CurricularFace_Backbone.pth`` (IR-101, of HuangYG123/CurricularFace). The README of pSp links both.

References: Deng et al. 2019, arXiv:1801.07698; Huang et al. 2020, arXiv:2004.00288.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoders import irse

ROWS, COLUMNS = slice(35, 223), slice(32, 220)
"""What the identity losses of pSp and e4e take of an FFHQ face at 256 px (Richardson et al. 2021, released code)."""
FACE_RESOLUTION = 112


class ArcFace(nn.Module):
    """Embed FFHQ-aligned faces; the cosine of two embeddings tells whether they are one person's."""

    input_resolution = 256

    def __init__(
        self,
        units: tuple[int, int, int, int] = irse.IR_50,  # Residual units of the groups; IR_101 for CurricularFace.
        squeeze: bool = True,  # With squeeze-and-excitation; CurricularFace has none.
        affine: bool = True,  # Scale and shift behind the last norm; CurricularFace has none.
    ) -> None:
        super().__init__()
        self.input_layer, self.body = irse.input_layer(), irse.body(units, squeeze)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512, affine=affine),
        )

    def forward(self, image: Float[Tensor, "batch 3 256 256"]) -> Float[Tensor, "batch 512"]:
        """Return unit vectors of faces in [-1, 1], aligned like FFHQ: their inner product is the cosine."""
        return self.embed(F.adaptive_avg_pool2d(image[:, :, ROWS, COLUMNS], FACE_RESOLUTION))

    def embed(self, face: Float[Tensor, "batch 3 112 112"]) -> Float[Tensor, "batch 512"]:
        """Return unit vectors of faces in [-1, 1] that are aligned as face recognition has it (by MTCNN's landmarks)."""
        return F.normalize(self.output_layer(self.body(self.input_layer(face))))
