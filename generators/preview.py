"""How does training see a face without drawing all of it? A small head that turns mid-size features into an image.

Most of a generator's time goes into its last resolutions, which an image loss at 256 px hardly sees. The head reads the
features of one resolution and the styles of all layers behind it, and is fitted to what the whole generator draws: first
its linear part by least squares, then all of it by gradients.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from generators.base import Generator, NoiseMode
from generators.latent import AnyBatch, Latent, check_latent
from generators.mobilestylegan import MobileStyleGAN
from generators.ops import haar, inverse_haar, modulate, resize_style


class PreviewHead(nn.Module):
    """Turn a generator's features of ``resolution`` px into an image of twice that size."""

    def __init__(
        self,
        resolution: int,  # Of the features that the head reads.
        in_channels: int,  # Of those features.
        num_styles: int,  # Layers behind them, whose styles still change colours and texture.
        w_dim: int = 512,  # Width of a style.
        width: int = 64,  # Channels inside the head.
    ) -> None:
        super().__init__()
        self.resolution, self.in_channels, self.num_styles = resolution, in_channels, num_styles
        self.affine = nn.Linear(num_styles * w_dim, in_channels + width)
        nn.init.normal_(self.affine.weight, std=0.003)
        nn.init.ones_(self.affine.bias)
        self.linear = nn.Conv2d(in_channels, 12, 1)
        self.squeeze = nn.Conv2d(in_channels, width, 1)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.bands = nn.Conv2d(width, 12, 3, padding=1)

    @classmethod
    def for_generator(cls, generator: MobileStyleGAN, resolution: int) -> PreviewHead:
        """Build the head that fits a generator's features of one resolution.

        Raises:
            ValueError: the generator has no such features.
        """
        num_blocks = generator.synthesis.blocks_before(resolution)
        channels = (generator.const_channels, *generator.channels)[num_blocks]
        return cls(resolution, channels, generator.num_ws - (2 * num_blocks + 1), generator.w_dim)

    @torch.no_grad()
    def solve(self, generator: Generator, drawn: Iterable[tuple[AnyBatch, Float[Tensor, "batch 3 _ _"]]]) -> None:
        """Set the linear part to the least-squares map from features to images, and leave the rest to learn what is left.

        Of the default generator's 64 px features it explains images of 128 px up to a squared error of 0.027, on which
        gradients alone spend 500 steps.

        Args:
            generator: whose features are read.
            drawn: latents and what the whole generator draws for them, at twice the head's resolution; 100 faces do.
        """
        channels = self.in_channels + 1
        gram = torch.zeros(channels, channels, dtype=torch.float64, device=self.affine.bias.device)
        cross = gram.new_zeros(channels, 12)
        for latent, image in drawn:
            x = generator.synthesis.features(latent, self.resolution).movedim(1, -1).flatten(0, 2).double()
            x = torch.cat([x, x.new_ones(x.shape[0], 1)], dim=1)
            gram += x.T @ x
            cross += x.T @ haar(image).movedim(1, -1).flatten(0, 2).double()
        ridge = 1e-3 * gram.diagonal().mean() * torch.eye(channels, dtype=gram.dtype, device=gram.device)
        solution = torch.linalg.solve(gram + ridge, cross)
        self.linear.weight.copy_(solution[:-1].T[:, :, None, None])
        self.linear.get_parameter("bias").copy_(solution[-1])
        nn.init.zeros_(self.bands.weight)
        nn.init.zeros_(self.bands.get_parameter("bias"))

    def forward(
        self, generator: Generator, latent: Latent, noise_mode: NoiseMode = "const"
    ) -> Float[Tensor, "batch 3 height width"]:
        """Draw a latent at twice the head's resolution, in [-1, 1]; gradients flow to the latent."""
        x = generator.synthesis.features(latent, self.resolution, noise_mode)
        maps = check_latent(latent, generator.num_ws, generator.w_dim)[-self.num_styles :]
        side = max(style_map.shape[2] for style_map in maps), max(style_map.shape[3] for style_map in maps)
        styles = torch.cat([resize_style(style_map, *side).expand(-1, -1, *side) for style_map in maps], dim=1)
        scales = F.conv2d(styles, self.affine.weight[:, :, None, None], self.affine.bias)
        outer, inner = scales.split([self.in_channels, self.conv1.in_channels], dim=1)
        x = modulate(x, outer)
        y = F.leaky_relu(self.conv1(F.leaky_relu(self.squeeze(x), 0.2)), 0.2)
        y = y + F.leaky_relu(self.conv2(y), 0.2)
        return inverse_haar(self.linear(x) + self.bands(modulate(y, inner)))
