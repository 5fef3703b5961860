"""MobileStyleGAN: StyleGAN2's mapping network and W space, with a synthesis network light enough for a CPU.

Reference: Belousov 2021, arXiv:2104.04767. Depthwise-separable modulated convolutions replace StyleGAN2's, wavelets replace
its skip connections, and demodulation is frozen into the weights, so that a style is nothing but a scale per channel (and,
with a stylemap, per pixel).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from generators.base import Compose, Generator, NoiseMode, dtype_at
from generators.latent import Latent, StyleMap, check_latent
from generators.mapping import MappingNetwork
from generators.ops import fast_layout, inverse_haar, modulate, needs_gradient

Features: TypeAlias = Float[Tensor, "batch c height width"]


class StyleAffine(nn.Linear):
    """Turn a style map of W into scales of a layer's input channels, pixel by pixel."""

    def forward(self, style_map: StyleMap) -> Float[Tensor, "batch c _ _"]:  # type: ignore[override]
        """Return one scale a channel, and a pixel."""
        # A plain matrix product is several times faster than a 1x1 convolution of one pixel.
        if style_map.shape[2:] == (1, 1):
            return super().forward(style_map[:, :, 0, 0])[:, :, None, None]
        return F.conv2d(style_map, self.weight[:, :, None, None], self.bias)


class NoisyLeakyReLU(nn.Module):
    """Add noise and bias, then LeakyReLU with slope 0.2 (no gain, unlike StyleGAN2)."""

    noise: Tensor

    def __init__(self, channels: int, resolution: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("noise", torch.zeros(1, 1, resolution, resolution))

    def forward(self, x: Features, noise_mode: NoiseMode) -> Features:
        """Add noise of a mode and bend, in x itself; the convolution before has added the bias."""
        match noise_mode:
            case "const":
                x = x.add_(self.noise.to(x.dtype))
            case "random":
                # The published constant is strength times unit noise; its spread is the strength.
                strength = self.noise.std() if self.noise.numel() > 1 else self.noise.abs().squeeze()
                x = x.add_(torch.randn_like(x[:, :1]) * strength.to(x.dtype))
            case "none":
                pass
            case _:
                raise ValueError(f"noise_mode {noise_mode!r}: expected 'const', 'random' or 'none'")
        return F.leaky_relu_(x, 0.2)


class StyledConv(nn.Module):
    """Modulated convolution, 3x3: full, or depthwise followed by pointwise."""

    def __init__(self, in_channels: int, out_channels: int, resolution: int, w_dim: int, separable: bool) -> None:
        super().__init__()
        self.modulation = StyleAffine(w_dim, in_channels)
        if separable:
            self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
            self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        else:
            self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.separable = separable
        self.activation = NoisyLeakyReLU(out_channels, resolution)

    def forward(self, x: Features, style_map: StyleMap, noise_mode: NoiseMode) -> Float[Tensor, "batch out_c height width"]:
        """Modulate, convolve, add noise, bend."""
        style = self.modulation(style_map)
        bias = self.activation.bias.flatten().to(x.dtype)
        if self.separable:
            x = self._modulated_depthwise(x, style)
            x = F.conv2d(x, self.pointwise.weight.to(x.dtype), bias)
        else:
            x = F.conv2d(modulate(x, style), self.conv.weight.to(x.dtype), bias, padding=1)
        return self.activation(x, noise_mode)

    def _modulated_depthwise(self, x: Tensor, style: Tensor) -> Tensor:
        weight: Tensor = self.depthwise.weight
        if style.shape == (1, x.shape[1], 1, 1) and not needs_gradient(style):
            # Scales one number a tap instead of one a pixel; the gradient, though, is dearer for weights than for features.
            weight = weight * style.reshape(-1, 1, 1, 1)
        else:
            x = modulate(x, style)
        return F.conv2d(x, weight.to(x.dtype), padding=1, groups=x.shape[1])


class SynthesisBlock(nn.Module):
    """Double the resolution by a modulated inverse Haar transform, then two styled convolutions."""

    def __init__(self, in_channels: int, out_channels: int, resolution: int, w_dim: int) -> None:
        super().__init__()
        self.up_modulation = StyleAffine(w_dim, in_channels)
        self.conv1 = StyledConv(in_channels // 4, out_channels, resolution, w_dim, separable=True)
        self.conv2 = StyledConv(out_channels, out_channels, resolution, w_dim, separable=True)

    def forward(
        self, x: Features, style_maps: Sequence[StyleMap], noise_mode: NoiseMode
    ) -> Float[Tensor, "batch out_c double_h double_w"]:
        """Draw the next resolution from two style maps, of ``up`` with ``conv1`` and of ``conv2``."""
        x = inverse_haar(modulate(x, self.up_modulation(style_maps[0])))
        x = self.conv1(x, style_maps[0], noise_mode)
        return self.conv2(x, style_maps[1], noise_mode)


class ToImage(nn.Module):
    """Turn features into RGB of twice the size: a modulated 1x1 convolution to 12 sub-bands, then inverse Haar."""

    def __init__(self, in_channels: int, w_dim: int) -> None:
        super().__init__()
        self.modulation = StyleAffine(w_dim, in_channels)
        self.conv = nn.Conv2d(in_channels, 12, 1)

    def forward(self, x: Features, style_map: StyleMap) -> Float[Tensor, "batch 3 double_h double_w"]:
        """Return RGB of twice the size."""
        x = modulate(x, self.modulation(style_map))
        weight, bias = self.conv.weight, cast(Tensor, self.conv.bias)
        bands = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype))
        return inverse_haar(bands.to(weight.dtype)).contiguous()


class MobileSynthesis(nn.Module):
    """Draw an image from a latent: constant, one convolution at 4 px, blocks at 8, 16, ..., then RGB."""

    feature_dtype: torch.dtype | None = None
    """What features are computed in: see :meth:`generators.base.Generator.compute_in`."""

    def __init__(self, channels: Sequence[int], const_channels: int, w_dim: int) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.num_ws = 2 * len(channels) + 2
        self.img_resolution = 4 * 2 ** (len(channels) + 1)
        self.const = nn.Parameter(torch.zeros(1, const_channels, 4, 4))
        self.conv1 = StyledConv(const_channels, const_channels, 4, w_dim, separable=False)
        inputs = (const_channels, *channels[:-1])
        self.blocks = nn.ModuleList(
            SynthesisBlock(c_in, c_out, 8 * 2**k, w_dim)
            for k, (c_in, c_out) in enumerate(zip(inputs, channels, strict=True))
        )
        self.to_image = ToImage(channels[-1], w_dim)

    def blocks_before(self, resolution: int) -> int:
        """Return how many blocks the features of a resolution have behind them.

        Raises:
            ValueError: there are no features of that resolution.
        """
        num_blocks = resolution.bit_length() - 3
        if resolution != 4 * 2**num_blocks or not 0 <= num_blocks <= len(self.blocks):
            raise ValueError(f"no features of {resolution} px: expected a power of 2 from 4 to {self.img_resolution // 2}")
        return num_blocks

    def features(
        self, latent: Latent, resolution: int, noise_mode: NoiseMode = "const", compose: Compose | None = None
    ) -> Features:
        """Return the features of one resolution (4, 8, ... half of the image's): cheap where the details do not matter.

        Raises:
            LatentMismatch: the latent does not fit this network.
            ValueError: there is no such resolution.
        """
        maps = check_latent(latent, self.num_ws, self.w_dim)
        num_blocks = self.blocks_before(resolution)
        x = fast_layout(self.const.expand(maps[0].shape[0], -1, -1, -1))
        x = self.conv1(x, maps[0], noise_mode)
        x = x if compose is None else compose(x)
        for k in range(num_blocks):
            x = x.to(dtype_at(8 * 2**k, self.feature_dtype, self.const.dtype))
            x = self.blocks[k](x, maps[2 * k + 1 : 2 * k + 3], noise_mode)
            x = x if compose is None else compose(x)
        return x

    def forward(
        self, latent: Latent, noise_mode: NoiseMode = "const", compose: Compose | None = None
    ) -> Float[Tensor, "batch 3 height width"]:
        """Draw images in [-1, 1] (nominally: values may stick out a little); ``compose`` may change features on the way.

        Raises:
            LatentMismatch: the latent does not fit this network.
        """
        x = self.features(latent, self.img_resolution // 2, noise_mode, compose)
        return self.to_image(x, check_latent(latent, self.num_ws, self.w_dim)[-1])


class MobileStyleGAN(Generator):
    """The whole generator: ``mapping`` and ``synthesis``.

    W+ has 2 vectors for every block (its up-sampling shares one with its first convolution), one for the first convolution
    and one for RGB: 16 at 1024 px, in the order of StyleGAN2's, so that layers 0-3 are coarse, 4-7 middle, the rest fine.
    """

    synthesis: MobileSynthesis

    def __init__(
        self,
        channels: Sequence[int] = (512, 512, 512, 512, 256, 128, 64),  # Of the blocks at 8, 16, ... px.
        const_channels: int = 512,  # Of the learned constant at 4 px.
        z_dim: int = 512,  # Width of the input noise.
        w_dim: int = 512,  # Width of a style.
        mapping_layers: int = 8,  # Fully connected layers of the mapping network.
    ) -> None:
        super().__init__()
        self.channels, self.const_channels = tuple(channels), const_channels
        self.synthesis = MobileSynthesis(channels, const_channels, w_dim)
        self.z_dim, self.w_dim = z_dim, w_dim
        self.num_ws, self.img_resolution = self.synthesis.num_ws, self.synthesis.img_resolution
        self.mapping = MappingNetwork(z_dim, w_dim, self.num_ws, mapping_layers)
