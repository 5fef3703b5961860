"""StyleGAN2: the generator that this toolkit is about, and its residual discriminator, under the names of NVIDIA's files.

Weights keep the scale of their training: every layer multiplies them by its equalised learning rate when it is used, so that
a state dict is a published file's, number for number.

Reference: Karras et al. 2020, arXiv:1912.04958; the conditional network and the clamp are those of arXiv:2006.06676.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from generators.base import Compose, Generator, dtype_at
from generators.errors import UnknownName
from generators.latent import Latent, StyleMap, WPlus, check_latent
from generators.mapping import truncate
from generators.ops import bias_act, conv2d_resample, downsample2d, fast_layout, modulated_conv2d, upsample2d

Features: TypeAlias = Float[Tensor, "batch c height width"]
Image: TypeAlias = Float[Tensor, "batch 3 height width"]

ARCHITECTURES = ("orig", "skip", "resnet")
"""RGB from the last block alone, RGB of every block added up, or residual blocks (figure 7 of the paper)."""
NOISE_MODES = ("const", "random", "none")
LOWEST = 4
"""Side of the constant in pixels."""
FIR = (1, 3, 3, 1)
"""Taps that images and features are resampled with."""


def channels_of(resolution: int, channel_base: int, channel_max: int) -> int:
    """Return how many channels the features of a resolution have."""
    return min(channel_base // resolution, channel_max)


def resolutions_to(img_resolution: int) -> list[int]:
    """Return 4, 8, ... up to a resolution.

    Raises:
        ValueError: it is no power of 2 from 8 on.
    """
    if img_resolution < 2 * LOWEST or img_resolution & (img_resolution - 1):
        raise ValueError(f"img_resolution={img_resolution}: expected a power of 2, at least {2 * LOWEST}")
    return [2**k for k in range(2, img_resolution.bit_length())]


def fir() -> Float[Tensor, "taps taps"]:
    """Return the filter that images and features are resampled with; also where tensors have no memory."""
    taps = torch.tensor(FIR, dtype=torch.float32)
    return taps.outer(taps) / taps.sum() ** 2


class Dense(nn.Module):
    """A fully connected layer whose weights are scaled when they are used."""

    def __init__(
        self,
        in_features: int,  # Width of the input.
        out_features: int,  # Width of the result.
        act: str = "linear",  # Of bias_act.
        lr_multiplier: float = 1.0,  # Of the training; below 1, the stored numbers are that much larger.
        bias_init: float = 0.0,  # What the bias starts as.
    ) -> None:
        super().__init__()
        self.act, self.lr_multiplier = act, lr_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], bias_init / lr_multiplier))

    def forward(self, x: Float[Tensor, "batch in_features"]) -> Float[Tensor, "batch out_features"]:
        """Multiply, add the bias, bend."""
        weight = self.weight * (self.lr_multiplier * self.weight.shape[1] ** -0.5)
        bias = self.bias if self.lr_multiplier == 1 else self.bias * self.lr_multiplier
        return bias_act(x @ weight.T.to(x.dtype), bias, act=self.act)


class StyleAffine(Dense):
    """Turn a style map of W into scales of a layer's input channels, pixel by pixel."""

    def __init__(self, w_dim: int, channels: int) -> None:
        super().__init__(w_dim, channels, bias_init=1.0)

    def forward(self, style_map: StyleMap) -> Float[Tensor, "batch c _ _"]:  # type: ignore[override]
        """Return one scale a channel, and a pixel."""
        if style_map.shape[2:] == (1, 1):
            return super().forward(style_map[:, :, 0, 0])[:, :, None, None]
        weight = self.weight * self.weight.shape[1] ** -0.5
        return F.conv2d(style_map, weight[:, :, None, None], self.bias)


class MappingNetwork(nn.Module):
    """Map z, and a label where there is one, to w, and repeat it for every layer.

    Reference: Karras et al. 2019, arXiv:1812.04948, section 2; the truncation trick is its appendix B.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,  # Width of the input noise; 0: the label is all.
        c_dim: int,  # Width of the label; 0: none.
        w_dim: int,  # Width of the result.
        num_ws: int | None,  # How often it is repeated; None: not at all, and there is no mean to truncate to.
        num_layers: int = 8,  # Fully connected layers.
        features: int | None = None,  # Width between the layers; None: that of the result.
        embed_features: int | None = None,  # Width that a label is brought to; None: that of the result.
        lr_multiplier: float = 0.01,  # Of the training.
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.num_layers = z_dim, c_dim, w_dim, num_ws, num_layers
        embed_features = embed_features or w_dim
        if c_dim:
            self.embed = Dense(c_dim, embed_features)
        widths = [z_dim + (embed_features if c_dim else 0), *[features or w_dim] * (num_layers - 1), w_dim]
        for i, (width, next_width) in zip(range(num_layers), pairwise(widths), strict=False):
            setattr(self, f"fc{i}", Dense(width, next_width, act="lrelu", lr_multiplier=lr_multiplier))
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def w(
        self, z: Float[Tensor, "batch z_dim"], c: Float[Tensor, "batch c_dim"] | None = None
    ) -> Float[Tensor, "batch w_dim"]:
        """Map z, and the label c, to W, without truncation.

        Raises:
            ValueError: the network takes labels and got none, or the other way round, or of another width.
        """
        if (0 if c is None else c.shape[1]) != self.c_dim:
            raise ValueError(f"expected c, a label of width {self.c_dim} (0: None), got {None if c is None else c.shape[1]}")
        parts = [z] if self.z_dim else []
        if c is not None:
            parts.append(self.embed(c))
        x = torch.cat([part * (part.square().mean(1, keepdim=True) + 1e-8).rsqrt() for part in parts], dim=1)
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"],
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        c: Float[Tensor, "batch c_dim"] | None = None,
    ) -> WPlus:
        """Map z to w_plus; ``truncation_psi`` in [0, 1] pulls the first ``truncation_cutoff`` layers (all) to w_avg.

        Raises:
            ValueError: the label c does not fit.
        """
        w_plus = self.w(z, c)[:, None].repeat(1, self.num_ws or 1, 1)
        # A discriminator's mapping has no mean of W, and is never truncated.
        return w_plus if truncation_psi == 1 else truncate(w_plus, self.w_avg, truncation_psi, truncation_cutoff)


class StyledConv(nn.Module):
    """Modulated convolution 3x3, noise, bias, LeakyReLU."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, resolution: int, w_dim: int, up: int, conv_clamp: float | None
    ) -> None:
        super().__init__()
        self.up, self.conv_clamp = up, conv_clamp
        self.affine = StyleAffine(w_dim, in_channels)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", fir())

    def forward(
        self, x: Features, style_map: StyleMap, noise_mode: str, gain: float = 1.0
    ) -> Float[Tensor, "batch out_c out_height out_width"]:
        """Modulate, convolve, demodulate, add noise, bend; ``gain`` scales the result."""
        styles = self.affine(style_map)
        x = modulated_conv2d(
            x, self.weight, styles, up=self.up, padding=1, resample_filter=self.resample_filter if self.up > 1 else None
        )
        # No gradient needs what a modulated convolution returns, so noise and activation may overwrite it.
        if noise_mode == "const":
            x = x.add_((self.noise_const * self.noise_strength).to(x.dtype))
        elif noise_mode == "random":
            noise = torch.randn([x.shape[0], 1, *x.shape[2:]], device=x.device)
            x = x.add_((noise * self.noise_strength).to(x.dtype))
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, self.bias, act="lrelu", gain=2**0.5 * gain, clamp=clamp, inplace=True)


class ToRGB(nn.Module):
    """Turn features into colour: a modulated 1x1 convolution, not demodulated."""

    def __init__(self, in_channels: int, w_dim: int, conv_clamp: float | None) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = StyleAffine(w_dim, in_channels)
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Features, style_map: StyleMap) -> Image:
        """Return colour."""
        styles = self.affine(style_map) * self.weight.shape[1] ** -0.5
        x = modulated_conv2d(x, self.weight, styles, demodulate=False)
        return bias_act(x, self.bias, clamp=self.conv_clamp, inplace=True)


class Conv(nn.Module):
    """An ordinary convolution with an equalised learning rate, and resampling on the way."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,  # Of the input.
        out_channels: int,  # Of the result.
        kernel: int,  # Side of the weights.
        act: str = "lrelu",  # Of bias_act.
        bias: bool = True,  # Whether there is one.
        up: int = 1,  # Factor of up-sampling.
        down: int = 1,  # Factor of down-sampling.
        conv_clamp: float | None = None,  # Bound of the result; None: none.
    ) -> None:
        super().__init__()
        self.act, self.up, self.down, self.conv_clamp = act, up, down, conv_clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", fir())

    def forward(self, x: Features, gain: float = 1.0) -> Float[Tensor, "batch out_c out_height out_width"]:
        """Convolve, add the bias, bend; ``gain`` scales the result."""
        weight = (self.weight * self.weight[0].numel() ** -0.5).to(x.dtype)
        is_resampled = self.up > 1 or self.down > 1
        f = self.resample_filter if is_resampled else None
        x = conv2d_resample(x, weight, f, self.up, self.down, padding=self.weight.shape[2] // 2)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        gain *= 2**0.5 if self.act == "lrelu" else 1
        return bias_act(x, self.bias, act=self.act, gain=gain, clamp=clamp, inplace=True)


class SynthesisBlock(nn.Module):
    """Double the resolution: an up-sampling and a plain styled convolution, and colour where the architecture has it."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,  # Of the block before; 0: this is the first, which owns the constant.
        out_channels: int,  # Of its features.
        resolution: int,  # Of its features.
        w_dim: int,  # Width of a style.
        architecture: str,  # One of ARCHITECTURES.
        has_rgb: bool,  # Whether it draws.
        conv_clamp: float | None,  # Bound of every layer's result.
    ) -> None:
        super().__init__()
        self.register_buffer("resample_filter", fir())
        if in_channels:
            self.conv0 = StyledConv(in_channels, out_channels, resolution, w_dim, up=2, conv_clamp=conv_clamp)
        else:
            self.const = nn.Parameter(torch.randn(out_channels, LOWEST, LOWEST))
        self.conv1 = StyledConv(out_channels, out_channels, resolution, w_dim, up=1, conv_clamp=conv_clamp)
        self.torgb = ToRGB(out_channels, w_dim, conv_clamp) if has_rgb else None
        is_residual = bool(in_channels) and architecture == "resnet"
        self.skip = Conv(in_channels, out_channels, 1, act="linear", bias=False, up=2) if is_residual else None

    def draw(
        self, x: Features, style_maps: tuple[StyleMap, StyleMap], noise_mode: str
    ) -> Float[Tensor, "batch out_c double_h double_w"]:
        """Draw the features of this resolution from those of the one before."""
        if self.skip is None:
            return self.conv1(self.conv0(x, style_maps[0], noise_mode), style_maps[1], noise_mode)
        shortcut = self.skip(x, gain=0.5**0.5)
        x = self.conv1(self.conv0(x, style_maps[0], noise_mode), style_maps[1], noise_mode, gain=0.5**0.5)
        return shortcut + x

    def add_colour(
        self, image: Float[Tensor, "batch 3 half_h half_w"] | None, x: Features, style_map: StyleMap
    ) -> Image | None:
        """Add this block's colour to the image so far."""
        if image is not None:
            image = upsample2d(image, self.resample_filter)
        if self.torgb is None:
            return image
        colour = self.torgb(x, style_map)
        return colour.to(self.torgb.bias.dtype) if image is None else image.add_(colour)


class StyleGAN2Synthesis(nn.Module):
    """Draw an image from a latent: a constant at 4 px, then blocks at 8, 16, ... px."""

    feature_dtype: torch.dtype | None = None
    """What features are computed in: see :meth:`generators.base.Generator.compute_in`."""

    def __init__(
        self,
        w_dim: int,  # Width of a style.
        img_resolution: int,  # Side of the image.
        channel_base: int,  # Channels of a layer are this divided by its resolution,
        channel_max: int,  # but at most these.
        architecture: str,  # One of ARCHITECTURES.
        conv_clamp: float | None,  # Bound of every layer's result; None: none.
        num_fp16_res: int,  # How many of the largest resolutions run in float16, on a GPU.
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise UnknownName("architecture", architecture, ARCHITECTURES)
        self.w_dim, self.img_resolution = w_dim, img_resolution
        self.resolutions = resolutions_to(img_resolution)
        self.num_ws = 2 * len(self.resolutions)
        self.fp16_resolutions = set(self.resolutions[len(self.resolutions) - num_fp16_res :]) if num_fp16_res else set()
        in_channels = 0
        for resolution in self.resolutions:
            out_channels = channels_of(resolution, channel_base, channel_max)
            has_rgb = architecture == "skip" or resolution == img_resolution
            block = SynthesisBlock(in_channels, out_channels, resolution, w_dim, architecture, has_rgb, conv_clamp)
            setattr(self, f"b{resolution}", block)
            in_channels = out_channels

    def block(self, resolution: int) -> SynthesisBlock:
        """Return the block of a resolution."""
        return cast(SynthesisBlock, self.get_submodule(f"b{resolution}"))

    def features(self, latent: Latent, resolution: int, noise_mode: str = "const") -> Features:
        """Return the features of one resolution (4, 8, ... the image's): cheap where the details do not matter.

        Raises:
            LatentMismatch: the latent does not fit this network.
            ValueError: there is no such resolution or noise mode.
        """
        if resolution not in self.resolutions:
            raise ValueError(f"no features of {resolution} px: expected one of {self.resolutions}")
        return self._run(latent, resolution, noise_mode)[0]

    def forward(self, latent: Latent, noise_mode: str = "const", compose: Compose | None = None) -> Image:
        """Draw images in [-1, 1] (nominally: values may stick out a little); ``compose`` may change features on the way.

        Raises:
            LatentMismatch: the latent does not fit this network.
            ValueError: there is no such noise mode.
        """
        image = self._run(latent, self.img_resolution, noise_mode, compose or (lambda x: x))[1]
        assert image is not None, "the last block draws in every architecture"
        return image.contiguous()

    def _run(
        self, latent: Latent, last: int, noise_mode: str, compose: Compose | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the features of a resolution, and, if there is ``compose`` to tell of them, the image so far."""
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode {noise_mode!r}: expected 'const', 'random' or 'none'")
        maps = check_latent(latent, self.num_ws, self.w_dim)
        first = self.block(LOWEST)
        x, image = fast_layout(first.const.expand(maps[0].shape[0], -1, -1, -1)), None
        # Colour shares its style with the next block's first convolution, so a block moves on by its convolutions alone.
        for k, resolution in enumerate(self.resolutions[: self.resolutions.index(last) + 1]):
            block = self.block(resolution)
            x = x.to(self._dtype_at(resolution, x))
            pair = (maps[max(2 * k - 1, 0)], maps[2 * k])
            x = block.draw(x, pair, noise_mode) if k else block.conv1(x, pair[1], noise_mode)
            if compose is not None:
                x = compose(x)
                image = block.add_colour(image, x, maps[2 * k + 1])
                image = image if image is None else compose(image)
        return x, image

    def _dtype_at(self, resolution: int, x: Tensor) -> torch.dtype:
        if resolution in self.fp16_resolutions and x.is_cuda:
            return torch.float16
        return dtype_at(resolution, self.feature_dtype, self.block(LOWEST).const.dtype)


class StyleGAN2(Generator):
    """The whole generator: ``mapping`` and ``synthesis``.

    W+ has 2 vectors for every resolution but the first, which has one, and one for the last colour: 18 at 1024 px.
    """

    synthesis: StyleGAN2Synthesis
    mapping: MappingNetwork

    def __init__(
        self,
        img_resolution: int = 1024,  # Side of its images.
        z_dim: int = 512,  # Width of the input noise.
        c_dim: int = 0,  # Width of the label; 0: none.
        w_dim: int = 512,  # Width of a style.
        mapping_layers: int = 8,  # Fully connected layers of the mapping network.
        channel_base: int = 32768,  # Channels of a layer are this divided by its resolution,
        channel_max: int = 512,  # but at most these.
        architecture: str = "skip",  # One of ARCHITECTURES.
        conv_clamp: float | None = None,  # Bound of every layer's result; 256 in networks trained in float16.
        num_fp16_res: int = 0,  # How many of the largest resolutions run in float16, on a GPU.
        mapping_features: int | None = None,  # Width between the layers of the mapping network; None: w_dim.
        embed_features: int | None = None,  # Width that a label is brought to; None: w_dim.
        mapping_lr_multiplier: float = 0.01,  # Of the mapping network's training.
    ) -> None:
        super().__init__()
        self.synthesis = StyleGAN2Synthesis(
            w_dim, img_resolution, channel_base, channel_max, architecture, conv_clamp, num_fp16_res
        )
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.num_ws, self.img_resolution = self.synthesis.num_ws, img_resolution
        self.conv_clamp = conv_clamp
        self.mapping = MappingNetwork(
            z_dim, c_dim, w_dim, self.num_ws, mapping_layers, mapping_features, embed_features, mapping_lr_multiplier
        )

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"],
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        c: Float[Tensor, "batch c_dim"] | None = None,
    ) -> Image:
        """Draw images of random z; a conditional network takes a label c, too.

        Raises:
            ValueError: the label c does not fit.
        """
        return self.synthesis(self.mapping(z, truncation_psi, truncation_cutoff, c))


class DiscriminatorBlock(nn.Module):
    """Halve the resolution by two convolutions, beside a shortcut where the architecture has it."""

    resample_filter: Tensor

    def __init__(
        self,
        channels: int,  # Of the features.
        out_channels: int,  # Of the result.
        architecture: str,  # One of ARCHITECTURES.
        is_first: bool,  # Whether there are no features yet.
        conv_clamp: float | None,  # Bound of every layer's result.
    ) -> None:
        super().__init__()
        self.register_buffer("resample_filter", fir())
        self.architecture = architecture
        has_rgb = is_first or architecture == "skip"
        self.fromrgb = Conv(3, channels, 1, conv_clamp=conv_clamp) if has_rgb else None
        self.conv0 = Conv(channels, channels, 3, conv_clamp=conv_clamp)
        self.conv1 = Conv(channels, out_channels, 3, down=2, conv_clamp=conv_clamp)
        is_residual = architecture == "resnet"
        self.skip = Conv(channels, out_channels, 1, act="linear", bias=False, down=2) if is_residual else None

    def forward(
        self, x: Features | None, image: Float[Tensor, "batch 3 _ _"]
    ) -> tuple[Float[Tensor, "batch out_c half_h half_w"], Float[Tensor, "batch 3 _ _"]]:
        """Look at features, and at the image where the architecture has it; both come back at half the resolution.

        Only the architecture ``skip`` halves the image: the others do not look at it again.
        """
        if self.fromrgb is not None:
            x = self.fromrgb(image) if x is None else x + self.fromrgb(image)
        if self.architecture == "skip":
            image = downsample2d(image, self.resample_filter)
        if self.skip is None:
            return self.conv1(self.conv0(x)), image
        return self.skip(x, gain=0.5**0.5) + self.conv1(self.conv0(x), gain=0.5**0.5), image


class DiscriminatorEpilogue(nn.Module):
    """Judge the features of 4 px, and how much they vary over the batch."""

    def __init__(
        self,
        channels: int,  # Of the features.
        cmap_dim: int,  # Width of the mapped label; 0: none.
        architecture: str,  # One of ARCHITECTURES.
        mbstd_group_size: int | None,  # Images over which the standard deviation is taken; None: all.
        mbstd_num_channels: int,  # Channels that it becomes.
        conv_clamp: float | None,  # Bound of the convolution's result.
    ) -> None:
        super().__init__()
        self.mbstd_group_size, self.mbstd_num_channels = mbstd_group_size, mbstd_num_channels
        self.fromrgb = Conv(3, channels, 1) if architecture == "skip" else None
        self.conv = Conv(channels + mbstd_num_channels, channels, 3, conv_clamp=conv_clamp)
        self.fc = Dense(channels * LOWEST**2, channels, act="lrelu")
        self.out = Dense(channels, cmap_dim or 1)

    def forward(self, x: Features, image: Float[Tensor, "batch 3 _ _"]) -> Float[Tensor, "batch out"]:
        """Return the logit, or, of a conditional network, what the label is held against."""
        if self.fromrgb is not None:
            x = x + self.fromrgb(image)
        if self.mbstd_num_channels:
            x = torch.cat([x, self.minibatch_std(x)], dim=1)
        return self.out(self.fc(self.conv(x).flatten(1)))

    def minibatch_std(self, x: Features) -> Float[Tensor, "batch std_c height width"]:
        """Return the mean standard deviation over groups of the batch, as further channels.

        Reference: Karras et al. 2018, arXiv:1710.10196, section 3, over groups as in StyleGAN2.

        Raises:
            ValueError: the batch cannot be divided into groups.
        """
        batch, _, height, width = x.shape
        group = batch if self.mbstd_group_size is None else min(self.mbstd_group_size, batch)
        if batch % group:
            raise ValueError(f"a batch of {batch}: expected fewer than {group} images, or a multiple of {group}")
        members = x.reshape(group, batch // group, self.mbstd_num_channels, -1)
        std = (members.var(0, unbiased=False) + 1e-8).sqrt().mean(2)
        return std.repeat(group, 1)[:, :, None, None].expand(-1, -1, height, width)


class StyleGAN2Discriminator(nn.Module):
    """Tell real images from drawn ones: blocks from the image down to 4 px."""

    def __init__(
        self,
        img_resolution: int = 1024,  # Side of the images.
        c_dim: int = 0,  # Width of the label; 0: none.
        channel_base: int = 32768,  # Channels of a layer are this divided by its resolution,
        channel_max: int = 512,  # but at most these.
        mapping_layers: int = 8,  # Fully connected layers behind the label.
        mbstd_group_size: int | None = 4,  # Images over which the standard deviation is taken; None: all.
        conv_clamp: float | None = None,  # Bound of every layer's result; None: none.
        architecture: str = "resnet",  # One of ARCHITECTURES.
        mbstd_num_channels: int = 1,  # Channels that the standard deviation becomes; 0: it is not looked at.
        cmap_dim: int | None = None,  # Width of the mapped label; None: the channels at 4 px.
        mapping_features: int | None = None,  # Width between the layers behind the label; None: cmap_dim.
        embed_features: int | None = None,  # Width that the label is brought to; None: cmap_dim.
        mapping_lr_multiplier: float = 0.01,  # Of the training of the layers behind the label.
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise UnknownName("architecture", architecture, ARCHITECTURES)
        self.img_resolution, self.c_dim = img_resolution, c_dim
        self.resolutions = resolutions_to(img_resolution)[:0:-1]
        for resolution in self.resolutions:
            channels, out_channels = (channels_of(r, channel_base, channel_max) for r in (resolution, resolution // 2))
            is_first = resolution == img_resolution
            block = DiscriminatorBlock(channels, out_channels, architecture, is_first, conv_clamp)
            setattr(self, f"b{resolution}", block)
        channels = channels_of(LOWEST, channel_base, channel_max)
        width = channels if cmap_dim is None else cmap_dim
        mapping = (mapping_layers, mapping_features, embed_features, mapping_lr_multiplier)
        self.mapping = MappingNetwork(0, c_dim, width, None, *mapping) if c_dim else None
        self.b4 = DiscriminatorEpilogue(
            channels, width if c_dim else 0, architecture, mbstd_group_size, mbstd_num_channels, conv_clamp
        )

    def forward(self, image: Image, c: Float[Tensor, "batch c_dim"] | None = None) -> Float[Tensor, "batch 1"]:
        """Return a logit for every image in [-1, 1]; a conditional network takes a label c, too.

        Raises:
            ValueError: the images or the label do not fit, or the batch cannot be divided into groups.
        """
        if image.shape[2:] != (self.img_resolution, self.img_resolution) or (c is None) != (self.c_dim == 0):
            raise ValueError(
                f"expected images of {self.img_resolution} px and a label of width {self.c_dim} (0: None), got"
                f" {tuple(image.shape)} and {None if c is None else tuple(c.shape)}"
            )
        x: Tensor | None = None
        for resolution in self.resolutions:
            x, image = self.get_submodule(f"b{resolution}")(x, image)
        logits = self.b4(x, image)
        if self.mapping is None or c is None:
            return logits
        label = self.mapping.w(image.new_zeros(len(c), 0), c)
        return (logits * label).sum(1, keepdim=True) * label.shape[1] ** -0.5
