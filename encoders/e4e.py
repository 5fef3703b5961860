"""The encoder of e4e: one style for all layers, and a delta from it for each.

Tensor names are those of the published files, as in ``encoders.psp``.

Reference: Tov et al. 2021, arXiv:2102.02766, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoders.psp import ImageBatch, PyramidEncoder
from generators.latent import WPlus


class Encoder4Editing(PyramidEncoder):
    """e4e: w_0 from the first head, deltas from the others; ``stage`` turns them on one by one.

    Its tensors are those of ``GradualStyleEncoder``; what they mean is not.
    """

    deltas = True

    def styles_to_deltas(self) -> None:
        """Turn pSp's weights into weights for e4e: every layer begins as the first layer's style."""
        forget_deltas(self.styles)

    def forward(self, image: ImageBatch) -> WPlus:
        """Encode faces in [-1, 1], aligned like FFHQ."""
        return from_deltas(self.head_outputs(image, self.active_layers), self.num_ws) + self.w_avg


@torch.no_grad()
def forget_deltas(heads: nn.ModuleList) -> None:
    """Let heads of deltas, all but the first, begin with none; what they read off the features stays."""
    for head in list(heads)[1:]:
        nn.init.zeros_(head.get_parameter("linear.weight"))
        nn.init.zeros_(head.get_parameter("linear.bias"))


def from_deltas(outputs: Sequence[Float[Tensor, "batch w_dim"]], num_ws: int) -> Float[Tensor, "batch {num_ws} w_dim"]:
    """Add deltas, from layer 1 on, to w_0, which comes first; layers without a delta get w_0 itself."""
    w_0, *deltas = outputs
    styles = [w_0, *(w_0 + delta for delta in deltas)]
    return torch.stack(styles + [w_0] * (num_ws - len(styles)), dim=1)
