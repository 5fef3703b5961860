"""How does noise become a style? StyleGAN's mapping network, with truncation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from generators.latent import WPlus


class MappingNetwork(nn.Module):
    """Map z to w, and repeat it for every layer.

    The weights are plain: learning-rate multiplier and equalised scale of the training are folded in.

    Reference: Karras et al. 2019, arXiv:1812.04948, section 2; the truncation trick is its appendix B.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int = 512,  # Width of the input noise.
        w_dim: int = 512,  # Width of the style.
        num_ws: int = 16,  # How many layers take a style.
        num_layers: int = 8,  # Fully connected layers.
    ) -> None:
        super().__init__()
        self.z_dim, self.w_dim, self.num_ws = z_dim, w_dim, num_ws
        self.layers = nn.ModuleList(nn.Linear(z_dim if i == 0 else w_dim, w_dim) for i in range(num_layers))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def w(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch w_dim"]:
        """Map z to W, without truncation."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2) * 2**0.5
        return x

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"],
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> WPlus:
        """Map z to w_plus; ``truncation_psi`` in [0, 1] pulls the first ``truncation_cutoff`` layers (all) to w_avg."""
        w_plus = self.w(z)[:, None].repeat(1, self.num_ws, 1)
        return truncate(w_plus, self.w_avg, truncation_psi, truncation_cutoff)


def truncate(w_plus: WPlus, w_avg: Float[Tensor, " w_dim"], psi: float, cutoff: int | None) -> WPlus:
    """Pull the first ``cutoff`` layers (None: all) towards w_avg; ``psi`` 1 leaves them, 0 gives w_avg itself.

    Reference: Karras et al. 2019, arXiv:1812.04948, appendix B.
    """
    if psi == 1:
        return w_plus
    cutoff = w_plus.shape[1] if cutoff is None else cutoff
    return torch.cat([w_avg.lerp(w_plus[:, :cutoff], psi), w_plus[:, cutoff:]], dim=1)
