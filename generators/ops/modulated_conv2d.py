"""How does a style steer a convolution? StyleGAN2's weight modulation and demodulation, with styles that may vary in space.

Reference: Karras et al. 2020, arXiv:1912.04958, section 2.2, Eqs. 1-3; spatial styles after Hong et al. 2020,
arXiv:2006.05394, in the form of Honda et al., Eq. 2: ``conv(w, s * x) / sqrt(conv(w^2, s^2) + eps)``.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.ops import _triton
from generators.ops.modulate import resize_style
from generators.ops.upfirdn2d import Filter, upfirdn2d

EPS = 1e-8
Features: TypeAlias = Float[Tensor, "batch in_c height width"]
Weight: TypeAlias = Float[Tensor, "out_c in_c k k"]
Style: TypeAlias = Float[Tensor, "batch in_c"] | Float[Tensor, "batch in_c style_h style_w"]
Result: TypeAlias = Float[Tensor, "batch out_c out_height out_width"]


def modulated_conv2d(
    x: Features,
    weight: Weight,
    styles: Style,
    demodulate: bool = True,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    resample_filter: Filter | None = None,
    impl: str = "auto",
) -> Result:
    """Convolve with weights that a style scales, sample by sample or pixel by pixel.

    With ``up=1`` the weights are correlated with the features, as PyTorch's convolutions are; with ``up=2`` they are
    convolved (a transposed convolution), as in the published files.

    Args:
        x: features.
        weight: unscaled; demodulation makes an equalised scale redundant.
        styles: a scale for every input channel, or a map of them, which is resized to the features.
        demodulate: divide by the expected magnitude of the result, for inputs of unit variance.
        up: factor; the result is filtered.
        down: factor; the features are filtered.
        padding: as if there were neither ``up`` nor ``down``: k // 2 keeps the size.
        resample_filter: from ``setup_filter``, for ``up`` and ``down``.
        impl: ``"auto"`` goes by device; ``"reference"``; ``"triton"``.

    Raises:
        ImplUnavailable: ``impl="triton"`` where kernels cannot run.
    """
    _triton.choose("modulated_conv2d", impl, x)
    s = styles[:, :, None, None] if styles.ndim == 2 else resize_style(styles, x.shape[2], x.shape[3])
    if demodulate and x.dtype == torch.float16:
        # Keeps float16 from overflowing; demodulation cancels both scales.
        weight = weight / (weight[0].numel() ** 0.5 * weight.abs().amax((1, 2, 3), keepdim=True))
        s = s / s.abs().amax((1, 2, 3), keepdim=True)
    y = conv2d_resample(x * s.to(x.dtype), weight.to(x.dtype), resample_filter, up, down, padding, impl=impl)
    if not demodulate:
        return y
    scale = _variance(weight, s, up).add(EPS).rsqrt()
    return y * resize_style(scale, y.shape[2], y.shape[3]).to(y.dtype)


def _variance(weight: Tensor, s: Tensor, up: int) -> Float[Tensor, "batch out_c _ _"]:
    """Return ``conv(w^2, s^2)``: the variance of a result whose inputs have a variance of 1."""
    if s.shape[2:] == (1, 1):
        return (s[:, :, 0, 0].square() @ weight.square().sum((2, 3)).T)[:, :, None, None]
    # Styles go on beyond the border, so that a constant map demodulates as a vector does.
    border = weight.shape[2] // 2
    squares = F.pad(s.square(), [border, weight.shape[2] - 1 - border] * 2, mode="replicate")
    return F.conv2d(squares, (weight.flip([2, 3]) if up > 1 else weight).square())


def conv2d_resample(
    x: Features,
    weight: Weight,
    f: Filter | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    groups: int = 1,
    impl: str = "auto",
) -> Result:
    """Convolve, and resample on the way: filter and keep every ``down``-th pixel, or insert pixels and filter.

    Args:
        x: features.
        weight: correlated with the features when ``up`` is 1, convolved with them otherwise.
        f: from ``setup_filter``; None filters nothing.
        up: factor; the result is filtered, at the same brightness.
        down: factor; the features are filtered.
        padding: as if there were neither ``up`` nor ``down``.
        groups: of the convolution, as PyTorch's.
        impl: of the filtering.

    Raises:
        ValueError: both ``up`` and ``down``.
    """
    if up > 1 and down > 1:
        raise ValueError(f"up={up} and down={down}: expected one of them to be 1")
    taps_y, taps_x = (1, 1) if f is None else (f.shape[0], f.shape[-1])
    k = weight.shape[2]
    if down > 1:
        pads = [(taps_x - down + 1) // 2, (taps_x - down) // 2, (taps_y - down + 1) // 2, (taps_y - down) // 2]
        pads = [pad + padding for pad in pads]
        # A 1x1 convolution looks at the kept pixels alone.
        if k == 1:
            return F.conv2d(upfirdn2d(x, f, 1, down, pads, impl=impl), weight, groups=groups)
        return F.conv2d(upfirdn2d(x, f, 1, 1, pads, impl=impl), weight, stride=down, groups=groups)
    if up == 1:
        return F.conv2d(x, weight, padding=padding, groups=groups)
    # What the transposed convolution adds on either side is taken off again: k - 1 before, k - up behind.
    pads = [(taps_x + up - 1) // 2, (taps_x - up) // 2, (taps_y + up - 1) // 2, (taps_y - up) // 2]
    if k == 1:
        pads = [pad + padding for pad in pads]
        return upfirdn2d(F.conv2d(x, weight, groups=groups), f, up, 1, pads, gain=float(up**2), impl=impl)
    pads = [pad + padding - crop for pad, crop in zip(pads, (k - 1, k - up) * 2, strict=True)]
    per_group = weight.shape[0] // groups
    transposed = weight.reshape(groups, per_group, *weight.shape[1:]).transpose(1, 2).reshape(-1, per_group, k, k)
    y = F.conv_transpose2d(x, transposed, stride=up, groups=groups)
    return upfirdn2d(y, f, 1, 1, pads, gain=float(up**2), impl=impl)
