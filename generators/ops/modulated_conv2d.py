"""How does a style steer a convolution? StyleGAN2's weight modulation and demodulation, with styles that may vary in space.

A style can scale the weights, sample by sample, or the features before and after an ordinary convolution: the same numbers.
What is cheaper was measured on a CPU: 32 channels at 1024 px in float32 take one core 85 ms to convolve, 12 ms to scale, and
their weights take 1 ms; so one sample's weights are scaled where they are fewer than its features. The gradient takes 85 ms
for the features alone, 244 ms with the weights' beside them; so where one goes to the style of fixed weights (projection),
features are scaled, unless the weights are few (colours). Several samples share a convolution on a CPU.

Reference: Karras et al. 2020, arXiv:1912.04958, section 2.2, Eqs. 1-3; spatial styles after Hong et al. 2020,
arXiv:2006.05394, in the form of Honda et al., Eq. 2: ``conv(w, s * x) / sqrt(conv(w^2, s^2) + eps)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.ops import _triton
from generators.ops.convolution import convolve, convolve_transposed
from generators.ops.gradient import needs_gradient
from generators.ops.layout import layout_of
from generators.ops.modulate import resize_style
from generators.ops.upfirdn2d import Filter, upfirdn2d

if TYPE_CHECKING:
    import triton.language as tl  # type: ignore[import-untyped, import-not-found]

EPS = 1e-8
FEW_WEIGHTS = 16
"""Weights an input channel up to which their gradient costs less than scaling features: those of colours."""
BLOCK = 1024
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
    route = _triton.choose("modulated_conv2d", impl, x)
    s = styles[:, :, None, None] if styles.ndim == 2 else resize_style(styles, x.shape[2], x.shape[3])
    if demodulate and x.dtype == torch.float16:
        # Keeps float16 from overflowing; demodulation cancels both scales.
        weight = weight / (weight[0].numel() ** 0.5 * weight.abs().amax((1, 2, 3), keepdim=True))
        s = s / s.abs().amax((1, 2, 3), keepdim=True)
    if route != "reference" and s.shape[2:] == (1, 1) and _folding_pays(x, weight, s, up, down):
        return _fold_into_weights(x, weight, s, demodulate, up, down, padding, resample_filter, route, impl)
    y = conv2d_resample(x * s.to(x.dtype), weight.to(x.dtype), resample_filter, up, down, padding, impl=impl)
    if not demodulate:
        return y
    variance = resize_style(_variance(weight, s, up), y.shape[2], y.shape[3])
    if route == "triton":
        return _Demodulate.apply(y, variance)
    scale = variance.add(EPS).rsqrt().to(y.dtype)
    return y * scale if needs_gradient(y, scale) else y.mul_(scale)


def _folding_pays(x: Tensor, weight: Tensor, s: Tensor, up: int, down: int) -> bool:
    """Tell whether it takes less to scale the weights of every sample than its features, before and after."""
    if needs_gradient(s) and not weight.requires_grad and weight[:, 0].numel() > FEW_WEIGHTS:
        return False
    if x.shape[0] > 1 and not x.is_cuda:
        return False
    in_size = x.shape[2:].numel()
    return weight.numel() < weight.shape[1] * in_size + weight.shape[0] * in_size * up**2 // down**2


def _fold_into_weights(
    x: Tensor,
    weight: Tensor,
    s: Tensor,
    demodulate: bool,
    up: int,
    down: int,
    padding: int,
    resample_filter: Tensor | None,
    route: str,
    impl: str,
) -> Tensor:
    """Scale the weights (Eqs. 1 and 3), and convolve every sample with its own: samples become groups."""
    batch, out_channels = x.shape[0], weight.shape[0]
    if route == "triton":
        own = _ModulateWeights.apply(weight, s[:, :, 0, 0].to(weight.dtype), demodulate)
    else:
        scale = s[:, None].to(weight.dtype)
        if demodulate:
            scale = scale * _variance(weight, s, up).add(EPS).rsqrt()[:, :, None]
        own = weight * scale
    own = own.reshape(-1, *weight.shape[1:]).to(x.dtype)
    if batch == 1:
        # Without reshaping, which would hide from PyTorch that channels lie side by side.
        return conv2d_resample(x, own, resample_filter, up, down, padding, impl=impl)
    y = conv2d_resample(x.reshape(1, -1, *x.shape[2:]), own, resample_filter, up, down, padding, groups=batch, impl=impl)
    return y.reshape(batch, out_channels, *y.shape[2:])


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
    weight: Float[Tensor, "out_c group_c k k"],
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
            return convolve(upfirdn2d(x, f, 1, down, pads, impl=impl), weight, groups=groups)
        return convolve(upfirdn2d(x, f, 1, 1, pads, impl=impl), weight, stride=down, groups=groups)
    if up == 1:
        return convolve(x, weight, padding=padding, groups=groups)
    # What the transposed convolution adds on either side is taken off again: k - 1 before, k - up behind.
    pads = [(taps_x + up - 1) // 2, (taps_x - up) // 2, (taps_y + up - 1) // 2, (taps_y - up) // 2]
    if k == 1:
        pads = [pad + padding for pad in pads]
        return upfirdn2d(convolve(x, weight, groups=groups), f, up, 1, pads, gain=float(up**2), impl=impl)
    pads = [pad + padding - crop for pad, crop in zip(pads, (k - 1, k - up) * 2, strict=True)]
    per_group = weight.shape[0] // groups
    transposed = weight.reshape(groups, per_group, *weight.shape[1:]).transpose(1, 2).reshape(-1, per_group, k, k)
    y = convolve_transposed(x, transposed, stride=up, groups=groups)
    return upfirdn2d(y, f, 1, 1, pads, gain=float(up**2), impl=impl)


class _ModulateWeights(torch.autograd.Function):
    """Scale weights by a style, and to unit norm: ``w s / |w s|``, in one pass over them."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, s: Tensor, demodulate: bool) -> Tensor:
        ctx.save_for_backward(weight, s)
        ctx.demodulate = demodulate
        (batch, _), (out_channels, in_channels, taps_y, taps_x) = s.shape, weight.shape
        own = weight.new_empty(batch, *weight.shape)
        accumulator = torch.promote_types(weight.dtype, torch.float32)
        _triton.launch(
            *(_modulate_kernel, batch * out_channels),
            *(weight.contiguous(), s.contiguous(), own, out_channels, in_channels, taps_y * taps_x),
            *(demodulate, EPS, _triton.language_type(accumulator), BLOCK),
        )
        return own

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        # Plain PyTorch throughout, so that gradients of these gradients come for free.
        weight, s = ctx.saved_tensors
        scale = s[:, None, :, None, None]
        modulated = weight * scale
        if ctx.demodulate:
            # d(p |p|^-1) = |p|^-1 dp - p |p|^-3 (p dp)
            inverse = modulated.square().sum((2, 3, 4), keepdim=True).add(EPS).rsqrt()
            along = (grad * modulated).sum((2, 3, 4), keepdim=True)
            grad = grad * inverse - modulated * (along * inverse**3)
        return (grad * scale).sum(0), (grad * weight).sum((1, 3, 4)), None


class _Demodulate(torch.autograd.Function):
    """Divide features by a standard deviation in one pass."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, variance: Tensor) -> Tensor:
        ctx.save_for_backward(y, variance)
        layout = layout_of(y)
        y = y.contiguous(memory_format=layout)
        per_pixel = variance.shape[2:] != (1, 1)
        variance = variance.contiguous(memory_format=layout if per_pixel else torch.contiguous_format)
        result = torch.empty_like(y)
        accumulator = torch.promote_types(y.dtype, torch.float32)
        _triton.launch(
            *(_demodulate_kernel, -(-y.numel() // BLOCK)),
            *(y, variance, result, y.numel(), y.shape[1:].numel(), y.shape[1], y.stride(1)),
            *(per_pixel, EPS, _triton.language_type(accumulator), BLOCK),
        )
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        y, variance = ctx.saved_tensors
        inverse = variance.add(EPS).rsqrt()
        grad_variance = (grad * y).to(variance.dtype).sum_to_size(variance.shape) * inverse**3 * -0.5
        return grad * inverse.to(grad.dtype), grad_variance


@no_type_check
def _modulate_kernel(
    weight: tl.tensor,
    s: tl.tensor,
    own: tl.tensor,
    out_channels: tl.tensor,
    in_channels: tl.tensor,
    taps: tl.tensor,
    DEMODULATE: tl.constexpr,
    EPS: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Compute the weights of one sample and one output channel."""
    row = tl.program_id(0).to(tl.int64)
    length = in_channels * taps
    w = weight + (row % out_channels) * length
    style = s + (row // out_channels) * in_channels
    scale = 1.0
    # What tl.zeros and tl.sum stand for: those two cannot be interpreted where Triton was imported before it was told to.
    if DEMODULATE:
        squares = tl.full((BLOCK,), 0.0, dtype=ACCUMULATOR)
        for start in range(0, length, BLOCK):
            index = start + tl.arange(0, BLOCK)
            fits = index < length
            p = tl.load(w + index, mask=fits, other=0.0).to(ACCUMULATOR)
            p *= tl.load(style + index // taps, mask=fits, other=0.0).to(ACCUMULATOR)
            squares += p * p
        scale = 1 / tl.sqrt(tl.reduce(squares, 0, tl.standard._sum_combine) + EPS)
    for start in range(0, length, BLOCK):
        index = start + tl.arange(0, BLOCK)
        fits = index < length
        p = tl.load(w + index, mask=fits, other=0.0).to(ACCUMULATOR)
        p *= tl.load(style + index // taps, mask=fits, other=0.0).to(ACCUMULATOR)
        tl.store(own + row * length + index, (p * scale).to(own.dtype.element_ty), mask=fits)


@no_type_check
def _demodulate_kernel(
    y: tl.tensor,
    variance: tl.tensor,
    result: tl.tensor,
    size: tl.tensor,
    sample: tl.tensor,
    channels: tl.tensor,
    step: tl.tensor,
    PER_PIXEL: tl.constexpr,
    EPS: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Compute one block, in the order of memory; a sample has ``sample`` numbers, a channel's lie ``step`` apart."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    fits = index < size
    at = index if PER_PIXEL else (index // sample) * channels + (index % sample) // step % channels
    v = tl.load(variance + at, mask=fits, other=1.0).to(ACCUMULATOR)
    v = tl.load(y + index, mask=fits, other=0.0).to(ACCUMULATOR) / tl.sqrt(v + EPS)
    tl.store(result + index, v.to(result.dtype.element_ty), mask=fits)
