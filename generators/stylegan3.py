"""StyleGAN3: a generator whose details move with the face, because no layer ever sees, or makes, an aliased signal.

Two configurations share the code: T, equivariant to translation (3x3 convolutions, separable filters), and R, equivariant to
rotation as well (1x1 convolutions, twice the channels, filters that are the same in all directions). Tensors have the names
of NVIDIA's files and the scale of their training.

Reference: Karras et al. 2021, arXiv:2106.12423; filters and sizes are those of its appendix C and D.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generators.base import Compose, Generator, dtype_at
from generators.errors import LatentMismatch
from generators.latent import Latent, check_latent
from generators.ops import fast_layout, filtered_lrelu, modulated_conv2d
from generators.stylegan2 import Dense, MappingNetwork

Features: TypeAlias = Float[Tensor, "batch c height width"]
Filter: TypeAlias = Float[Tensor, " taps"] | Float[Tensor, "taps taps"]

NOISE_MODES = ("const", "random", "none")
"""What every generator takes; this one injects no noise, so that they are all the same."""


def low_pass(taps: int, cutoff: float, width: float, sampling_rate: int, radial: bool = False) -> Filter | None:
    """Design a Kaiser-windowed low-pass filter: sinc along one axis, or jinc in two.

    Args:
        taps: along an axis; 1 is no filter.
        cutoff: in the unit of the sampling rate.
        width: of the transition band, in the same unit.
        sampling_rate: of the taps.
        radial: the same in all directions; it has two axes then.

    Reference: Karras et al. 2021, arXiv:2106.12423, appendix C.1; Kaiser's formulas for the window.
    """
    if taps == 1:
        return None
    attenuation = 2.285 * (taps - 1) * math.pi * width / (sampling_rate / 2) + 7.95
    beta = 0.0
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    at = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / sampling_rate
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
    if radial:
        r = at.square().add(at.square()[:, None]).sqrt()
        f = torch.special.bessel_j1(2 * math.pi * cutoff * r) / (math.pi * r) * window.outer(window)
    else:
        f = torch.sinc(2 * cutoff * at) * window
    return (f / f.sum()).float()


class Band(NamedTuple):
    """Which frequencies the features of a layer hold, and how they are sampled."""

    cutoff: float
    half_width: float
    """Of the transition band."""
    sampling_rate: int
    size: int
    """Side in samples, the margin included."""
    channels: int


def plan_bands(
    img_resolution: int,
    channel_base: int,
    channel_max: int,
    num_layers: int,
    num_critical: int,
    first_cutoff: float,
    first_stopband: float,
    last_stopband_rel: float,
    margin_size: int,
) -> list[Band]:
    """Plan the layers from the Fourier features to RGB: cutoffs and stopbands grow geometrically.

    Reference: Karras et al. 2021, arXiv:2106.12423, section 3.2 and figure 4b.
    """
    last_cutoff = img_resolution / 2
    last_stopband = last_cutoff * last_stopband_rel
    bands = []
    for i in range(num_layers + 1):
        exponent = min(i / (num_layers - num_critical), 1)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** exponent
        stopband = first_stopband * (last_stopband / first_stopband) ** exponent
        sampling_rate = 2 ** math.ceil(math.log2(min(2 * stopband, img_resolution)))
        # The last two layers are cropped to the image: one bends, one makes the colours.
        size = sampling_rate + 2 * margin_size if i < num_layers - 1 else img_resolution
        channels = round(min(channel_base / 2 / cutoff, channel_max)) if i < num_layers else 3
        bands.append(Band(cutoff, max(stopband, sampling_rate / 2) - cutoff, sampling_rate, size, channels))
    return bands


class FourierInput(nn.Module):
    """Make the first features: sine waves, which a style and ``transform`` can move and turn without aliasing."""

    freqs: Tensor
    phases: Tensor
    transform: Tensor
    """From output to input coordinates, in units of the image's side: (3, 3); set it to move and turn the image."""

    def __init__(self, w_dim: int, band: Band) -> None:
        super().__init__()
        self.band = band
        freqs = torch.randn(band.channels, 2)
        radii = freqs.square().sum(1, keepdim=True).sqrt()
        # Uniform over the disc of frequencies below the cutoff.
        freqs = freqs / (radii * radii.square().exp().pow(0.25)) * band.cutoff
        self.weight = nn.Parameter(torch.randn(band.channels, band.channels))
        self.affine = Dense(w_dim, 4)
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias[0] = 1
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(band.channels) - 0.5)

    def forward(self, w: Float[Tensor, "batch w_dim"]) -> Features:
        """Sample the waves on the grid of the first layer, and mix them."""
        cos, sin, right, down = self.affine(w).unbind(1)
        norm = torch.stack([cos, sin]).norm(dim=0)
        cos, sin, right, down = cos / norm, sin / norm, right / norm, down / norm
        one, zero = torch.ones_like(cos), torch.zeros_like(cos)
        rotate = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1).reshape(-1, 3, 3)
        move = torch.stack([one, zero, -right, zero, one, -down, zero, zero, one], 1).reshape(-1, 3, 3)
        # The user's transform comes first, then the learned translation, then the learned rotation.
        transform = rotate @ move @ self.transform
        phases = self.phases + (self.freqs @ transform[:, :2, 2:])[:, :, 0]
        freqs = self.freqs @ transform[:, :2, :2]
        # A zoomed-out transform would take waves beyond what the grid can hold: they fade.
        cutoff, rate = self.band.cutoff, self.band.sampling_rate
        amplitudes = (1 - (freqs.norm(dim=2) - cutoff) / (rate / 2 - cutoff)).clamp(0, 1)
        size = self.band.size
        at = (torch.arange(size, device=w.device, dtype=w.dtype) * 2 + 1 - size) / (2 * rate)
        turns = at[None, :, None, None] * freqs[:, None, None, :, 1] + at[None, None, :, None] * freqs[:, None, None, :, 0]
        x = torch.sin((turns + phases[:, None, None]) * (2 * math.pi)) * amplitudes[:, None, None]
        return (x @ (self.weight * self.weight.shape[1] ** -0.5).T).permute(0, 3, 1, 2)


class FilteredLayer(nn.Module):
    """Modulated convolution, then a filtered nonlinearity that also resamples."""

    up_filter: Tensor | None
    down_filter: Tensor | None
    magnitude_ema: Tensor
    """Mean square of the input in training; dividing by its root keeps features at unit variance."""

    def __init__(
        self,
        w_dim: int,  # Width of a style.
        before: Band,  # Of the input.
        band: Band,  # Of the result.
        kernel_size: int,  # Of the convolution.
        is_rgb: bool,  # Colours are neither bent, nor filtered, nor demodulated.
        radial: bool,  # Whether to filter alike in all directions before dropping samples.
        filter_size: int,  # Taps for every sample of the lower of two sampling rates.
        lrelu_upsampling: int,  # How much higher the sampling rate is where features are bent.
        conv_clamp: float | None,  # Bound of the bent result.
    ) -> None:
        super().__init__()
        self.band, self.is_rgb, self.conv_clamp = band, is_rgb, conv_clamp
        # Bent at a higher rate than either, so that what bending adds can be filtered off.
        rate = max(before.sampling_rate, band.sampling_rate) * (1 if is_rgb else lrelu_upsampling)
        self.up, self.down = rate // before.sampling_rate, rate // band.sampling_rate
        up_taps = filter_size * self.up if self.up > 1 and not is_rgb else 1
        down_taps = filter_size * self.down if self.down > 1 and not is_rgb else 1
        self.affine = Dense(w_dim, before.channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(band.channels, before.channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(band.channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        self.register_buffer("up_filter", low_pass(up_taps, before.cutoff, 2 * before.half_width, rate))
        self.register_buffer("down_filter", low_pass(down_taps, band.cutoff, 2 * band.half_width, rate, radial))
        # What the filters and the convolution take at the border, and what is cropped to the new size.
        total = (band.size - 1) * self.down + 1 - (before.size + kernel_size - 1) * self.up + up_taps + down_taps - 2
        low = (total + self.up) // 2
        self.padding = (low, total - low, low, total - low)

    def forward(self, x: Features, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch out_c out_height out_width"]:
        """Return the features of the next band."""
        styles = self.affine(w)
        weight: Tensor = self.weight
        if self.is_rgb:
            styles = styles * weight[0].numel() ** -0.5
        else:
            # Demodulation cancels both scales but for its epsilon, which the published weights were trained with.
            weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
            styles = styles * styles.square().mean().rsqrt()
        x = x * self.magnitude_ema.rsqrt().to(x.dtype)
        x = modulated_conv2d(x, weight, styles, demodulate=not self.is_rgb, padding=weight.shape[2] - 1)
        return filtered_lrelu(
            x,
            self.up_filter,
            self.down_filter,
            self.bias,
            self.up,
            self.down,
            self.padding,
            gain=1.0 if self.is_rgb else 2**0.5,
            slope=1.0 if self.is_rgb else 0.2,
            clamp=self.conv_clamp,
        )


class StyleGAN3Synthesis(nn.Module):
    """Draw an image from a w_plus: one style places the Fourier features, one belongs to every layer."""

    feature_dtype: torch.dtype | None = None
    """What features are computed in: see :meth:`generators.base.Generator.compute_in`."""

    def __init__(
        self,
        w_dim: int,  # Width of a style.
        bands: list[Band],  # From the Fourier features to RGB.
        num_critical: int,  # Last layers but RGB whose filters are never radial.
        kernel_size: int,  # Of the convolutions.
        radial: bool,  # Whether filters are the same in all directions.
        filter_size: int,  # Taps for every sample of the lower of two sampling rates.
        lrelu_upsampling: int,  # How much higher the sampling rate is where features are bent.
        output_scale: float,  # Of the image.
        conv_clamp: float | None,  # Bound of every layer's result; None: none.
    ) -> None:
        super().__init__()
        self.w_dim, self.num_ws, self.img_resolution = w_dim, len(bands) + 1, bands[-1].size
        self.output_scale = output_scale
        self.input = FourierInput(w_dim, bands[0])
        self.layer_names: list[str] = []
        self.sizes = [band.size for band in bands[:-1]]
        for i, band in enumerate(bands):
            is_rgb, is_critical = i == len(bands) - 1, i >= len(bands) - 1 - num_critical
            layer = FilteredLayer(
                w_dim,
                bands[max(i - 1, 0)],
                band,
                1 if is_rgb else kernel_size,
                is_rgb,
                radial and not is_critical,
                filter_size,
                lrelu_upsampling,
                conv_clamp,
            )
            self.layer_names.append(f"L{i}_{band.size}_{band.channels}")
            self.add_module(self.layer_names[-1], layer)

    def features(self, latent: Latent, resolution: int, noise_mode: str = "const") -> Features:
        """Return the features of the last layer of a size in samples, its margin included (36, 52, 84, ...).

        Raises:
            LatentMismatch: the latent does not fit this network.
            ValueError: no layer has that size, or there is no such noise mode.
        """
        if resolution not in self.sizes:
            raise ValueError(f"no features of {resolution} px: expected one of {sorted(set(self.sizes))}")
        return self._run(latent, noise_mode, len(self.sizes) - self.sizes[::-1].index(resolution))

    def forward(
        self, latent: Latent, noise_mode: str = "const", compose: Compose | None = None
    ) -> Float[Tensor, "batch 3 height width"]:
        """Draw images, nominally in [-1, 1]; there is no noise in this network, whatever the mode.

        Raises:
            LatentMismatch: the latent does not fit this network, or is a stylemap of more than one pixel.
            ValueError: there is no such noise mode, or features are to be composed by place.
        """
        if compose is not None:
            raise ValueError("StyleGAN3 composes no features: they move under the pixels, so that no place holds in them")
        return (
            self._run(latent, noise_mode, len(self.layer_names)).to(self.input.weight.dtype).contiguous() * self.output_scale
        )

    def _run(self, latent: Latent, noise_mode: str, num_layers: int) -> Tensor:
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode {noise_mode!r}: expected 'const', 'random' or 'none'")
        maps = check_latent(latent, self.num_ws, self.w_dim)
        if any(style_map.shape[2:] != (1, 1) for style_map in maps):
            raise LatentMismatch(
                "StyleGAN3 takes a w_plus, not a stylemap: its features move under the pixels, so that no pixel of a map "
                "belongs to a place; average the maps, or use a StyleGAN2"
            )
        first, *rest = (style_map[:, :, 0, 0] for style_map in maps)
        x = fast_layout(self.input(first))
        for name, w in zip(self.layer_names[:num_layers], rest, strict=False):
            layer = cast(FilteredLayer, self.get_submodule(name))
            x = layer(x.to(dtype_at(layer.band.sampling_rate, self.feature_dtype, w.dtype)), w)
        return x


class StyleGAN3(Generator):
    """The whole generator: ``mapping`` and ``synthesis``; the defaults are those of T at 1024 px.

    R at 1024 px: ``channel_base=65536, channel_max=1024, kernel_size=1, radial=True``.
    """

    synthesis: StyleGAN3Synthesis
    mapping: MappingNetwork

    def __init__(
        self,
        img_resolution: int = 1024,  # Side of its images.
        z_dim: int = 512,  # Width of the input noise.
        c_dim: int = 0,  # Width of the label; 0: none.
        w_dim: int = 512,  # Width of a style.
        mapping_layers: int = 2,  # Fully connected layers of the mapping network.
        channel_base: int = 32768,  # Channels of a layer are half of this divided by its cutoff,
        channel_max: int = 512,  # but at most these.
        kernel_size: int = 3,  # Of the convolutions: 3 for T, 1 for R.
        radial: bool = False,  # Whether filters are the same in all directions: R.
        num_layers: int = 14,  # Without the one for RGB.
        num_critical: int = 2,  # Last layers whose cutoff is half their sampling rate, for the sake of fine detail.
        first_cutoff: float = 2.0,  # Of the Fourier features, in waves an image.
        first_stopband: float = 2**2.1,  # Where their transition band ends.
        last_stopband_rel: float = 2**0.3,  # Where the last layer's ends, over its cutoff.
        margin_size: int = 10,  # Samples beyond every border, which hide that the image ends.
        conv_clamp: float | None = 256.0,  # Bound of every layer's result; None: none.
        filter_size: int = 6,  # Taps for every sample of the lower of two sampling rates.
        lrelu_upsampling: int = 2,  # How much higher the sampling rate is where features are bent.
        output_scale: float = 0.25,  # Of the image.
        mapping_lr_multiplier: float = 0.01,  # Of the mapping network's training.
    ) -> None:
        super().__init__()
        bands = plan_bands(
            img_resolution,
            channel_base,
            channel_max,
            num_layers,
            num_critical,
            first_cutoff,
            first_stopband,
            last_stopband_rel,
            margin_size,
        )
        self.synthesis = StyleGAN3Synthesis(
            w_dim, bands, num_critical, kernel_size, radial, filter_size, lrelu_upsampling, output_scale, conv_clamp
        )
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.num_ws, self.img_resolution = self.synthesis.num_ws, img_resolution
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, mapping_layers, lr_multiplier=mapping_lr_multiplier)

    @property
    def style_resolutions(self) -> tuple[int, ...]:
        """None: no place of an image holds in features that move under it."""
        return ()

    @property
    def transform(self) -> Float[Tensor, "3 3"]:
        """From output to input coordinates, in units of the image's side; assign a matrix to move and turn the image."""
        return self.synthesis.input.transform

    @transform.setter
    def transform(self, matrix: Float[Tensor, "3 3"]) -> None:
        self.synthesis.input.transform.copy_(matrix)

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"],
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        c: Float[Tensor, "batch c_dim"] | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Draw images of random z; a conditional network takes a label c, too.

        Raises:
            ValueError: the label c does not fit.
        """
        return self.synthesis(self.mapping(z, truncation_psi, truncation_cutoff, c))
