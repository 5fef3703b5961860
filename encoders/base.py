"""What must every encoder offer? The contract that training, inverters and readers of files rely on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from generators.base import Identity
from generators.latent import StyleMap


class Encoder(nn.Module):
    """Base of all encoders: ``encoder(image)`` returns the latents of faces in [-1, 1] that are aligned like FFHQ.

    An encoder that starts from one style w_0 for all layers and adds deltas to it learns them one after the other
    (Tov et al. 2021, arXiv:2102.02766, section 4.1): ``stage`` is the last layer whose delta is on. At 0 all layers get w_0.
    """

    input_resolution = 256
    """Side of the images that it takes, in pixels."""
    in_channels = 3
    """Of the images; 6 for an encoder that also looks at what was drawn so far."""
    looks: int = 1
    """How often it looks at a face, where nobody says: see ``encoders.feedback``."""
    num_ws: int
    """Layers of the generator whose codes it gives."""
    w_dim: int
    """Width of a style."""
    backbone_name: str = "unknown"
    """What it sees with: ``compact``, ``ir-se50`` or ``resnet-34``."""
    deltas: bool = False
    """Whether it starts from one style and adds deltas, so that ``stage`` matters."""
    stage: int | None = None
    """Last layer whose delta is on; None: all of them, or there are none."""
    w_avg: Tensor
    """Added to every code."""
    identity: Identity = Identity()
    """The generator whose codes it gives."""

    @property
    def space(self) -> Literal["w_plus", "stylemap"]:
        """The space of the codes it returns."""
        return "w_plus"

    def styles_to_deltas(self) -> None:
        """Turn weights learnt for styles into weights for ``deltas``: every layer begins as the first layer's style."""
        raise NotImplementedError

    @property
    def active_layers(self) -> int:
        """How many layers, from the first on, have what is their own at this stage."""
        return self.num_ws if self.stage is None else min(self.stage + 1, self.num_ws)


def add_deltas(maps: Sequence[StyleMap], stage: int | None) -> list[StyleMap]:
    """Turn one style and deltas from it into styles (Tov et al. 2021, arXiv:2102.02766, section 4.1).

    Args:
        maps: one a layer. The mean of the first is w_0; the first's pixels and the other maps are deltas from it.
        stage: last layer whose delta is on (None: all); the first layer's pixels count as layer 1.

    Returns:
        One map a layer, of unchanged sizes; at stage 0 every pixel is w_0.
    """
    last = len(maps) if stage is None else stage
    w_0 = maps[0].mean((2, 3), keepdim=True)
    deltas = [maps[0] - w_0, *maps[1:]]
    return [w_0 + delta * float(max(layer, 1) <= last) for layer, delta in enumerate(deltas)]
