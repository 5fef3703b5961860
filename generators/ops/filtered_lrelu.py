"""How does StyleGAN3 bend a signal without aliasing? It does so at a higher sampling rate, and filters before and after.

On a GPU one kernel does it all, so that the features at the higher rate never reach memory: of a tile of them it keeps, for
the gradient, one byte each, whether the slope was that below 0, above 0, or of a clamped value. Filtering along an axis is a
product with a banded matrix there, which the tensor cores take.

Reference: Karras et al. 2021, arXiv:2106.12423, section 3.2 and appendix D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from generators.ops import _triton
from generators.ops.bias_act import bias_act
from generators.ops.gradient import needs_gradient
from generators.ops.layout import empty_in_layout_of
from generators.ops.upfirdn2d import Image, Resampled, Resampling, upfirdn2d

if TYPE_CHECKING:
    import triton.language as tl  # type: ignore[import-untyped, import-not-found]

BENT = 64
"""Side of a tile at the higher rate, unless the filter behind it is longer than that allows."""
SMALLEST = 16
"""Side of a matrix that the tensor cores take."""


def filtered_lrelu(
    x: Image,
    fu: Float[Tensor, " up_taps"] | Float[Tensor, "up_taps_y up_taps_x"] | None = None,
    fd: Float[Tensor, " down_taps"] | Float[Tensor, "down_taps_y down_taps_x"] | None = None,
    b: Float[Tensor, " c"] | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    gain: float = 2**0.5,
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "auto",
) -> Resampled:
    """Add a bias, up-sample, apply a leaky ReLU with gain and clamp, and down-sample; gradients of any order.

    Args:
        x: features.
        fu: filter of the up-sampling, from ``setup_filter``; None filters nothing.
        fd: filter of the down-sampling.
        b: added before all else, since filters keep constants: a number for every channel.
        up: factor.
        down: factor.
        padding: in pixels of the up-sampled features: all sides, (x, y), or (left, right, top, bottom); negative crops.
        gain: applied after the leaky ReLU.
        slope: of the leaky ReLU below 0.
        clamp: bound of the scaled result's absolute value, before down-sampling; None clamps nothing.
        flip_filter: correlate with both filters instead of convolving.
        impl: ``"auto"`` goes by device; ``"reference"``; ``"triton"``, whose one kernel takes one-dimensional filters; with
            others (StyleGAN3-R's) every step runs a kernel of its own.

    Raises:
        ValueError: factors, padding, filters, bias or clamp do not fit.
        ImplUnavailable: ``impl="triton"`` where kernels cannot run.
    """
    is_separable = (fu is None or fu.ndim == 1) and (fd is None or fd.ndim == 1)
    if not is_separable or _triton.choose("filtered_lrelu", impl, x) != "triton":
        x = bias_act(x, b, impl=impl) if b is not None else x
        x = upfirdn2d(x, fu, up, 1, padding, flip_filter, float(up**2), impl)
        x = bias_act(x, act="lrelu", alpha=slope, gain=gain, clamp=clamp, impl=impl, inplace=True)
        return upfirdn2d(x, fd, 1, down, 0, flip_filter, impl=impl)
    if (clamp is not None and clamp < 0) or (b is not None and b.shape != x.shape[1:2]):
        raise ValueError(
            f"expected a clamp of at least 0 and a bias of {x.shape[1]} numbers, got clamp={clamp} and a bias of shape"
            f" {None if b is None else tuple(b.shape)}"
        )
    fu, fd = (x.new_ones(1) if f is None else f for f in (fu, fd))
    if fu.requires_grad or fd.requires_grad:
        raise ValueError("filtered_lrelu has no gradient for its filters: give f.detach()")
    before = Resampling.of(x, fu, up, 1, padding)
    after = Resampling.of(x.new_empty(1, 1, *before.out_size, device="meta"), fd, 1, down, 0)
    fu = fu * float(up) if flip_filter else fu.flip(0) * float(up)
    stages = _Stage(before, fu), _Stage(after, fd if flip_filter else fd.flip(0))
    bend = _Bend(float(gain), float(slope), None if clamp is None else float(clamp))
    if needs_gradient(x, b):
        return _FilteredLeakyReLU.apply(x, b, stages, bend)
    return _launch(x, b, stages, bend, None)


class _Bend(NamedTuple):
    gain: float
    slope: float
    clamp: float | None


class _Stage(NamedTuple):
    """A resampling, and the taps that it correlates with along both axes."""

    shape: Resampling
    f: Tensor

    def transposed(self) -> _Stage:
        """Return what carries gradients back."""
        return _Stage(self.shape.transposed(), self.f.flip(0))


class _FilteredLeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor | None, stages: tuple[_Stage, _Stage], bend: _Bend) -> Tensor:
        slopes = torch.zeros((*x.shape[:2], *stages[0].shape.out_size), dtype=torch.int8, device=x.device)
        ctx.stages, ctx.bend, ctx.bias_type = stages, bend, None if b is None else b.dtype
        ctx.save_for_backward(slopes)
        return _launch(x, b, stages, bend, slopes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        before, after = ctx.stages
        grad_x = _WithSlopes.apply(grad, *ctx.saved_tensors, (after.transposed(), before.transposed()), ctx.bend)
        grad_b = None if ctx.bias_type is None else grad_x.sum((0, 2, 3)).to(ctx.bias_type)
        return grad_x, grad_b, None, None


class _WithSlopes(torch.autograd.Function):
    """Resample, multiply with slopes that are known, and resample: linear, and so its own gradient's kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor, stages: tuple[_Stage, _Stage], bend: _Bend) -> Tensor:
        ctx.stages, ctx.bend = stages, bend
        ctx.save_for_backward(slopes)
        return _launch(x, None, stages, bend, slopes, reads_slopes=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        before, after = ctx.stages
        stages = (after.transposed(), before.transposed())
        return _WithSlopes.apply(grad, *ctx.saved_tensors, stages, ctx.bend), None, None, None


def _launch(
    x: Tensor,
    b: Tensor | None,
    stages: tuple[_Stage, _Stage],
    bend: _Bend,
    slopes: Tensor | None,
    reads_slopes: bool = False,
) -> Tensor:
    """Run the kernel; it writes ``slopes``, or reads them, where there are any."""
    (before, fu), (after, fd) = stages
    (out_h, out_w), up, down = after.out_size, before.up[0], after.down[0]
    y = empty_in_layout_of(x, (*x.shape[:2], out_h, out_w))
    accumulator = torch.promote_types(x.dtype, torch.float32)
    # Three rounds of TensorFloat-32 are as good as float32, and one as good as half precision.
    precision = {torch.float64: "ieee", torch.float32: "tf32x3"}.get(x.dtype, "tf32")
    block_bent = max(BENT, _triton.power_of_2(len(fd) + 3 * down))
    tile = (block_bent - len(fd)) // down + 1
    block_in = max(SMALLEST, _triton.power_of_2((block_bent + len(fu) - 2) // up + 1))
    tiles_y, tiles_x = -(-out_h // tile), -(-out_w // tile)
    _triton.launch(
        *(_kernel, tiles_x * tiles_y * x.shape[0] * x.shape[1]),
        *(x, x if b is None else b.contiguous(), fu.to(x.device, accumulator).contiguous()),
        *(fd.to(x.device, accumulator).contiguous(), x if slopes is None else slopes, y, *x.stride(), *y.stride()),
        *(x.shape[1], *before.in_size, *before.out_size, out_h, out_w, tiles_x, tiles_y),
        *(before.pads[0], before.pads[2], after.pads[0], after.pads[2]),
        *(up, down, len(fu), len(fd), b is not None, slopes is not None, reads_slopes, *bend),
        *(block_in, block_bent, max(SMALLEST, _triton.power_of_2(tile)), tile),
        *(precision, _triton.language_type(accumulator)),
    )
    return y


@no_type_check
def _kernel(
    x: tl.tensor,
    b: tl.tensor,
    fu: tl.tensor,
    fd: tl.tensor,
    slopes: tl.tensor,
    y: tl.tensor,
    x_n: tl.tensor,
    x_c: tl.tensor,
    x_h: tl.tensor,
    x_w: tl.tensor,
    y_n: tl.tensor,
    y_c: tl.tensor,
    y_h: tl.tensor,
    y_w: tl.tensor,
    channels: tl.tensor,
    in_h: tl.tensor,
    in_w: tl.tensor,
    bent_h: tl.tensor,
    bent_w: tl.tensor,
    out_h: tl.tensor,
    out_w: tl.tensor,
    tiles_x: tl.tensor,
    tiles_y: tl.tensor,
    left: tl.tensor,
    top: tl.tensor,
    left_after: tl.tensor,
    top_after: tl.tensor,
    UP: tl.constexpr,
    DOWN: tl.constexpr,
    UP_TAPS: tl.constexpr,
    DOWN_TAPS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    READS_SLOPES: tl.constexpr,
    GAIN: tl.constexpr,
    SLOPE: tl.constexpr,
    CLAMP: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_BENT: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    TILE: tl.constexpr,
    PRECISION: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
) -> None:
    """Compute TILE x TILE pixels of one channel: B (A x A') B', where A and B are the filters as banded matrices."""
    program = tl.program_id(0)
    tile_x = program % tiles_x
    tile_y = (program // tiles_x) % tiles_y
    plane = (program // (tiles_x * tiles_y)).to(tl.int64)
    n = plane // channels
    c = plane % channels
    # The first pixel at the higher rate that the tile's outputs look at, and the first input that those look at. Divided as
    # positive numbers, where a quotient may be rounded to 0.
    bent_local = tl.arange(0, BLOCK_BENT)
    bent_y = tile_y * TILE * DOWN - top_after + bent_local
    bent_x = tile_x * TILE * DOWN - left_after + bent_local
    first_y = (tile_y * TILE * DOWN - top_after - top + UP * 65536 + UP - 1) // UP - 65536
    first_x = (tile_x * TILE * DOWN - left_after - left + UP * 65536 + UP - 1) // UP - 65536
    in_y = first_y + tl.arange(0, BLOCK_IN)
    in_x = first_x + tl.arange(0, BLOCK_IN)
    fits = ((in_y >= 0) & (in_y < in_h))[:, None] & ((in_x >= 0) & (in_x < in_w))[None, :]
    u = tl.load(x + n * x_n + c * x_c + in_y[:, None] * x_h + in_x[None, :] * x_w, mask=fits, other=0.0).to(ACCUMULATOR)
    if HAS_BIAS:
        u += tl.where(fits, tl.load(b + c).to(ACCUMULATOR), 0.0)
    tap = in_y[None, :] * UP + top - bent_y[:, None]
    along_y = tl.load(fu + tap, mask=(tap >= 0) & (tap < UP_TAPS), other=0.0)
    tap = in_x[:, None] * UP + left - bent_x[None, :]
    along_x = tl.load(fu + tap, mask=(tap >= 0) & (tap < UP_TAPS), other=0.0)
    u = tl.dot(along_y, u, input_precision=PRECISION, out_dtype=ACCUMULATOR)
    u = tl.dot(u, along_x, input_precision=PRECISION, out_dtype=ACCUMULATOR)
    fits = ((bent_y >= 0) & (bent_y < bent_h))[:, None] & ((bent_x >= 0) & (bent_x < bent_w))[None, :]
    at = slopes + (plane * bent_h + bent_y[:, None]) * bent_w + bent_x[None, :]
    if READS_SLOPES:
        kind = tl.load(at, mask=fits, other=2)
        v = u * tl.where(kind == 2, 0.0, tl.where(kind == 1, GAIN, GAIN * SLOPE))
    else:
        v = tl.where(u > 0, u, u * SLOPE) * GAIN
        kind = tl.where(u > 0, 1, 0)
        if CLAMP is not None:
            kind = tl.where(tl.abs(v) > CLAMP, 2, kind)
            v = tl.where(v > CLAMP, CLAMP, tl.where(v < -CLAMP, -CLAMP, v))
        if HAS_SLOPES:
            # Tiles overlap: each writes what no other begins with, and the last all that is left.
            own_y = bent_local < tl.where(tile_y == tiles_y - 1, BLOCK_BENT, TILE * DOWN)
            own_x = bent_local < tl.where(tile_x == tiles_x - 1, BLOCK_BENT, TILE * DOWN)
            tl.store(at, kind.to(tl.int8), mask=fits & own_y[:, None] & own_x[None, :])
    v = tl.where(fits, v, 0.0).to(ACCUMULATOR)
    out_local = tl.arange(0, BLOCK_OUT)
    tap = bent_local[None, :] - out_local[:, None] * DOWN
    along_y = tl.load(fd + tap, mask=(tap >= 0) & (tap < DOWN_TAPS), other=0.0)
    tap = bent_local[:, None] - out_local[None, :] * DOWN
    along_x = tl.load(fd + tap, mask=(tap >= 0) & (tap < DOWN_TAPS), other=0.0)
    v = tl.dot(along_y, v, input_precision=PRECISION, out_dtype=ACCUMULATOR)
    v = tl.dot(v, along_x, input_precision=PRECISION, out_dtype=ACCUMULATOR)
    out_y = tile_y * TILE + out_local
    out_x = tile_x * TILE + out_local
    fits = ((out_y < out_h) & (out_local < TILE))[:, None] & ((out_x < out_w) & (out_local < TILE))[None, :]
    target = y + n * y_n + c * y_c + out_y[:, None] * y_h + out_x[None, :] * y_w
    tl.store(target, v.to(y.dtype.element_ty), mask=fits)
