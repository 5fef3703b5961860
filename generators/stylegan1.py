"""StyleGAN1: the generator before weight demodulation, where a style scales and shifts normalised features (AdaIN).

Weights keep the scale of their training, under the names ``mapping.dense{i}``, ``synthesis.layer{n}`` and
``synthesis.output{k}``, where output 0 is that of 4 px. Convolutions are stored as (out, in, k, k).

Reference: Karras et al. 2019, arXiv:1812.04948; where its released code departs from it, this follows the code.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from generators.base import Compose, Generator, dtype_at
from generators.latent import Latent, StyleMap, WPlus, check_latent
from generators.mapping import truncate
from generators.ops import bias_act, fast_layout, filter2d, resize_style

Features: TypeAlias = Float[Tensor, "batch c height width"]

NOISE_MODES = ("const", "random", "none")
TRUNCATION_PSI, TRUNCATION_CUTOFF = 0.7, 8
"""What the published samples were drawn with; give them to ``mapping``, which truncates nothing of its own accord."""
EPS = 1e-8
LRELU_GAIN = 2**0.5
"""Scales weights before a leaky ReLU; the activation itself has no gain, so that biases are not scaled."""


class Dense(nn.Module):
    """A fully connected layer whose weights are scaled when they are used."""

    def __init__(self, in_features: int, out_features: int, gain: float = 1.0, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.scale, self.lr_multiplier = gain * in_features**-0.5 * lr_multiplier, lr_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Float[Tensor, "batch in_features"]) -> Float[Tensor, "batch out_features"]:
        """Multiply, and add the bias."""
        return F.linear(x, self.weight * self.scale, self.bias * self.lr_multiplier)


class StyleGAN1Mapping(nn.Module):
    """Map z to w, and repeat it for every layer.

    Reference: Karras et al. 2019, arXiv:1812.04948, section 2; the truncation trick is its appendix B.
    """

    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int, num_ws: int, num_layers: int) -> None:
        super().__init__()
        self.num_ws, self.num_layers = num_ws, num_layers
        for i in range(num_layers):
            self.add_module(f"dense{i}", Dense(z_dim if i == 0 else w_dim, w_dim, LRELU_GAIN, lr_multiplier=0.01))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def w(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch w_dim"]:
        """Map z to W, without truncation."""
        x = z * (z.square().mean(1, keepdim=True) + EPS).rsqrt()
        for i in range(self.num_layers):
            x = F.leaky_relu(self.get_submodule(f"dense{i}")(x), 0.2)
        return x

    def forward(
        self, z: Float[Tensor, "batch z_dim"], truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> WPlus:
        """Map z to w_plus; ``truncation_psi`` in [0, 1] pulls the first ``truncation_cutoff`` layers (all) to w_avg."""
        w_plus = self.w(z)[:, None].repeat(1, self.num_ws, 1)
        return truncate(w_plus, self.w_avg, truncation_psi, truncation_cutoff)


class Noise(nn.Module):
    """Add one image of noise to all channels, with a strength for each."""

    noise: Tensor

    def __init__(self, channels: int, resolution: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise", torch.randn(1, 1, resolution, resolution))

    def forward(self, x: Features, noise_mode: str) -> Features:
        """Add noise of a mode."""
        if noise_mode == "none":
            return x
        noise = self.noise if noise_mode == "const" else torch.randn_like(x[:, :1])
        return torch.addcmul(x, noise.to(x.dtype), self.weight.to(x.dtype)[:, None, None])


class StyledLayer(nn.Module):
    """Constant or convolution, blur after up-sampling, noise, bias, LeakyReLU, and adaptive instance normalisation."""

    blur: Tensor

    def __init__(
        self,
        in_channels: int | None,  # None: the layer starts from a learned constant.
        out_channels: int,  # Of the result.
        resolution: int,  # Of the result.
        w_dim: int,  # Width of a style.
        up: bool = False,  # Whether the result has twice the resolution of the input.
        is_fused: bool = False,  # Whether up-sampling and convolution are one transposed convolution.
    ) -> None:
        super().__init__()
        self.up, self.is_fused = up, is_fused
        if in_channels is None:
            self.const = nn.Parameter(torch.ones(1, out_channels, resolution, resolution))
        else:
            self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.apply_noise = Noise(out_channels, resolution)
        self.style = Dense(w_dim, 2 * out_channels)
        # On the CPU also where the network is built without memory, since no file fills a constant in.
        taps = torch.tensor([1.0, 2.0, 1.0], device="cpu")
        self.register_buffer("blur", taps.outer(taps) / 16, persistent=False)

    def forward(
        self, x: Features | None, style_map: StyleMap, noise_mode: str
    ) -> Float[Tensor, "batch out_c out_height out_width"]:
        """Return styled features; ``x`` is None where the layer starts from its constant."""
        x = fast_layout(self.const.expand(style_map.shape[0], -1, -1, -1)) if x is None else self._convolve(x)
        x = bias_act(self.apply_noise(x, noise_mode), self.bias, act="lrelu", gain=1.0, inplace=noise_mode != "none")
        x = x - x.mean((2, 3), keepdim=True)
        # Eq. 1, with a scale that is stored less 1.
        scale, shift = resize_style(self._style(style_map), x.shape[2], x.shape[3]).chunk(2, dim=1)
        scale = (scale + 1) * (x.square().mean((2, 3), keepdim=True) + EPS).rsqrt()
        return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))

    def _convolve(self, x: Tensor) -> Tensor:
        weight = (self.weight * (LRELU_GAIN * self.weight[0].numel() ** -0.5)).to(x.dtype)
        if not self.up:
            return F.conv2d(x, weight, padding=1)
        if self.is_fused:
            # Every pixel is spread over 2x2, so that the kernel grows to 4x4. Unlike the other way it is not flipped.
            spread = F.pad(weight, [1, 1, 1, 1])
            spread = spread[..., 1:, 1:] + spread[..., :-1, 1:] + spread[..., 1:, :-1] + spread[..., :-1, :-1]
            x = F.conv_transpose2d(x, spread.transpose(0, 1), stride=2, padding=1)
        else:
            x = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
        return filter2d(x, self.blur)

    def _style(self, style_map: Tensor) -> Tensor:
        if style_map.shape[2:] == (1, 1):
            return self.style(style_map[:, :, 0, 0])[:, :, None, None]
        return F.conv2d(style_map, (self.style.weight * self.style.scale)[:, :, None, None], self.style.bias)


class ToRGB(nn.Module):
    """Make colours of features: a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Features) -> Float[Tensor, "batch 3 height width"]:
        """Return colours."""
        x = F.conv2d(x, (self.weight * self.weight.shape[1] ** -0.5).to(x.dtype), self.bias.to(x.dtype))
        return x.to(self.weight.dtype).contiguous()


class StyleGAN1Synthesis(nn.Module):
    """Draw an image from a latent; ``lod`` says how many doublings of the resolution are left out."""

    lod: Tensor
    """0 draws all details; 1.5 draws a quarter of the resolution, half blended with an eighth, and enlarges it."""
    feature_dtype: torch.dtype | None = None
    """What features are computed in: see :meth:`generators.base.Generator.compute_in`."""

    def __init__(self, w_dim: int, img_resolution: int, channel_base: int, channel_max: int, fused_from: int) -> None:
        super().__init__()
        if img_resolution < 8 or img_resolution & (img_resolution - 1):
            raise ValueError(f"img_resolution={img_resolution}: expected a power of 2, at least 8")
        self.w_dim, self.img_resolution = w_dim, img_resolution
        self.num_levels = img_resolution.bit_length() - 2
        self.num_ws = 2 * self.num_levels
        before: int | None = None
        for level in range(self.num_levels):
            resolution = 4 * 2**level
            channels = min(channel_base // resolution, channel_max)
            first = StyledLayer(before, channels, resolution, w_dim, up=level > 0, is_fused=resolution >= fused_from)
            self.add_module(f"layer{2 * level}", first)
            self.add_module(f"layer{2 * level + 1}", StyledLayer(channels, channels, resolution, w_dim))
            self.add_module(f"output{level}", ToRGB(channels))
            before = channels
        self.register_buffer("lod", torch.zeros([]))

    def features(self, latent: Latent, resolution: int, noise_mode: str = "const") -> Features:
        """Return the features of one resolution (4, 8, ... the image's).

        Raises:
            LatentMismatch: the latent does not fit this network.
            ValueError: there is no such resolution or noise mode.
        """
        level = resolution.bit_length() - 3
        if resolution != 4 * 2 ** max(level, 0) or level >= self.num_levels:
            raise ValueError(f"no features of {resolution} px: expected a power of 2 from 4 to {self.img_resolution}")
        return self._features(latent, noise_mode, level)[-1]

    def forward(
        self, latent: Latent, noise_mode: str = "const", compose: Compose | None = None
    ) -> Float[Tensor, "batch 3 height width"]:
        """Draw images, nominally in [-1, 1]; ``compose`` may change features on the way.

        Raises:
            LatentMismatch: the latent does not fit this network.
            ValueError: there is no such noise mode.
        """
        lod = min(max(float(self.lod), 0.0), self.num_levels - 1.0)
        level = self.num_levels - 1 - int(lod)
        x = self._features(latent, noise_mode, level, compose)
        image = self.get_submodule(f"output{level}")(x[level])
        if lod > int(lod):
            coarser = self.get_submodule(f"output{level - 1}")(x[level - 1])
            image = image.lerp(F.interpolate(coarser, scale_factor=2, mode="nearest"), lod - int(lod))
        return F.interpolate(image, scale_factor=2 ** int(lod), mode="nearest") if int(lod) else image

    def _features(self, latent: Latent, noise_mode: str, last: int, compose: Compose | None = None) -> list[Tensor]:
        """Return the features of all levels to the last."""
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode {noise_mode!r}: expected 'const', 'random' or 'none'")
        maps = check_latent(latent, self.num_ws, self.w_dim)
        x: Tensor | None = None
        levels = []
        for level in range(last + 1):
            x = x if x is None else x.to(dtype_at(4 * 2**level, self.feature_dtype, maps[0].dtype))
            for layer in (2 * level, 2 * level + 1):
                x = self.get_submodule(f"layer{layer}")(x, maps[layer], noise_mode)
            assert x is not None
            x = x if compose is None else compose(x)
            levels.append(x)
        return levels


class StyleGAN1(Generator):
    """The whole generator: ``mapping`` and ``synthesis``.

    W+ has 2 vectors for every resolution: 18 at 1024 px. Unlike in StyleGAN2, colours take none.
    """

    synthesis: StyleGAN1Synthesis
    mapping: StyleGAN1Mapping

    def __init__(
        self,
        img_resolution: int = 1024,  # Side of its images.
        z_dim: int = 512,  # Width of the input noise.
        w_dim: int = 512,  # Width of a style.
        mapping_layers: int = 8,  # Fully connected layers of the mapping network.
        channel_base: int = 16384,  # Channels of a layer are this divided by its resolution,
        channel_max: int = 512,  # but at most these.
        fused_from: int = 128,  # Resolution from which up-sampling is a transposed convolution, whose kernel is not flipped.
    ) -> None:
        super().__init__()
        self.synthesis = StyleGAN1Synthesis(w_dim, img_resolution, channel_base, channel_max, fused_from)
        self.z_dim, self.w_dim = z_dim, w_dim
        self.num_ws, self.img_resolution = self.synthesis.num_ws, img_resolution
        self.mapping = StyleGAN1Mapping(z_dim, w_dim, self.num_ws, mapping_layers)

    @property
    def style_resolutions(self) -> tuple[int, ...]:
        """Side of the features that each style works on: two styles for every resolution, the lowest one, too."""
        return tuple(4 * 2 ** (layer // 2) for layer in range(self.num_ws))
