"""How is an image resampled? Up-sampling, FIR filtering and down-sampling in one op, with gradients of any order.

Conventions of the published StyleGAN files: zeros are inserted after every pixel, then the image is padded (or cropped,
where padding is negative), then filtered, then every ``down``-th pixel is kept, from the first on. The filter is applied as
a true convolution unless ``flip_filter`` is set.

Reference: Karras et al. 2020, arXiv:1912.04958, appendix B, on how StyleGAN2 filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.ops import _triton
from generators.ops.layout import empty_in_layout_of

if TYPE_CHECKING:
    import triton.language as tl  # type: ignore[import-untyped, import-not-found]

Image: TypeAlias = Float[Tensor, "batch c height width"]
Resampled: TypeAlias = Float[Tensor, "batch c out_height out_width"]
Filter: TypeAlias = Float[Tensor, " taps"] | Float[Tensor, "taps_y taps_x"]
"""One dimension: the same filter along both axes. Two: the rows of a filter that need not be separable."""

SEPARABLE_FROM = 8
"""Filters of at least this many taps stay one-dimensional: two passes are then cheaper than one of taps x taps."""


def setup_filter(
    taps: Sequence[Any] | Tensor | None,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> Filter:
    """Make a filter for :func:`upfirdn2d`.

    Args:
        taps: numbers along one axis, or rows of them; None is the filter that changes nothing.
        normalize: scale the taps to a sum of 1.
        flip_filter: reverse the taps.
        gain: of the filter as a whole, along both axes together.
        separable: keep one-dimensional taps as they are instead of multiplying them out; None: from 8 taps on.

    Raises:
        ValueError: the taps are not one or two dimensions of numbers, or cannot be normalised or separated.
    """
    f = torch.as_tensor(1.0 if taps is None else taps, dtype=torch.float32)
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(f"expected taps along one axis or two, got the shape {tuple(f.shape)}")
    f = f.reshape(1) if f.ndim == 0 else f
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= SEPARABLE_FROM
    if separable and f.ndim == 2:
        raise ValueError("separable=True takes taps along one axis, got two axes")
    if f.ndim == 1 and not separable:
        f = f.outer(f)
    if normalize:
        if f.sum() == 0:
            raise ValueError("taps that sum to 0 cannot be normalised: give normalize=False")
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    return f * gain ** (f.ndim / 2)


def upfirdn2d(
    x: Image,
    f: Filter | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Resampled:
    """Up-sample, pad or crop, filter and down-sample a batch of images.

    The image's gradients, of any order, are resamplings themselves; the filter has none.

    Args:
        x: images.
        f: made by :func:`setup_filter`; None filters nothing.
        up: factor, or (x, y); zeros are inserted.
        down: factor, or (x, y).
        padding: in pixels of the up-sampled image: all sides, (x, y), or (left, right, top, bottom); negative crops.
        flip_filter: correlate instead of convolving.
        gain: of the whole op; ``up**2`` keeps the brightness when up-sampling.
        impl: ``"auto"`` goes by device; ``"reference"``; ``"triton"``.

    Raises:
        ValueError: factors, padding or filter do not fit, or nothing would be left of the image.
        ImplUnavailable: ``impl="triton"`` where kernels cannot run.
    """
    shape = Resampling.of(x, f, up, down, padding)
    if f is None:
        f = x.new_ones(1, 1, dtype=torch.float32)
    if f.requires_grad:
        raise ValueError("upfirdn2d has no gradient for its filter: give f.detach()")
    return _UpFirDn2d.apply(x, f, shape, flip_filter, float(gain), _triton.choose("upfirdn2d", impl, x))


def filter2d(
    x: Image, f: Filter, padding: int | Sequence[int] = 0, flip_filter: bool = False, gain: float = 1.0, impl: str = "auto"
) -> Image:
    """Filter images without changing their size; ``padding`` beyond that is cut off or added."""
    left, right, top, bottom = parse_padding(padding)
    taps_y, taps_x = f.shape[0], f.shape[-1]
    pads = (left + taps_x // 2, right + (taps_x - 1) // 2, top + taps_y // 2, bottom + (taps_y - 1) // 2)
    return upfirdn2d(x, f, 1, 1, pads, flip_filter, gain, impl)


def upsample2d(
    x: Image,
    f: Filter,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Resampled:
    """Up-sample images to exactly ``up`` times their size, at the same brightness; ``padding`` is added to that."""
    (up_x, up_y), (left, right, top, bottom) = parse_factors("up", up), parse_padding(padding)
    taps_y, taps_x = f.shape[0], f.shape[-1]
    pads = (
        left + (taps_x + up_x - 1) // 2,
        right + (taps_x - up_x) // 2,
        top + (taps_y + up_y - 1) // 2,
        bottom + (taps_y - up_y) // 2,
    )
    return upfirdn2d(x, f, up, 1, pads, flip_filter, gain * up_x * up_y, impl)


def downsample2d(
    x: Image,
    f: Filter,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Resampled:
    """Down-sample images to their size divided by ``down``; ``padding`` is added to the image first."""
    (down_x, down_y), (left, right, top, bottom) = parse_factors("down", down), parse_padding(padding)
    taps_y, taps_x = f.shape[0], f.shape[-1]
    pads = (
        left + (taps_x - down_x + 1) // 2,
        right + (taps_x - down_x) // 2,
        top + (taps_y - down_y + 1) // 2,
        bottom + (taps_y - down_y) // 2,
    )
    return upfirdn2d(x, f, 1, down, pads, flip_filter, gain, impl)


def parse_factors(name: str, factors: int | Sequence[int]) -> tuple[int, int]:
    """Return the factors along x and y.

    Raises:
        ValueError: not one or two positive numbers.
    """
    pair = (factors, factors) if isinstance(factors, int) else tuple(factors)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name}={factors!r}: expected a positive factor, or two for x and y")
    return pair[0], pair[1]


def parse_padding(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """Return the padding on the left, right, top and bottom.

    Raises:
        ValueError: not one, two or four numbers.
    """
    match (padding,) if isinstance(padding, int) else tuple(padding):
        case (all_sides,):
            return all_sides, all_sides, all_sides, all_sides
        case (x, y):
            return x, x, y, y
        case (left, right, top, bottom):
            return left, right, top, bottom
    raise ValueError(f"padding={padding!r}: expected one number, (x, y) or (left, right, top, bottom)")


class Resampling(NamedTuple):
    """Sizes and factors of one resampling."""

    up: tuple[int, int]
    """x, y."""
    down: tuple[int, int]
    pads: tuple[int, int, int, int]
    in_size: tuple[int, int]
    """Height, width."""
    taps: tuple[int, int]
    """y, x."""

    @classmethod
    def of(
        cls, x: Tensor, f: Tensor | None, up: int | Sequence[int], down: int | Sequence[int], padding: int | Sequence[int]
    ) -> Resampling:
        """Check that a resampling of an image leaves something of it.

        Raises:
            ValueError: factors or padding do not fit, or nothing would be left.
        """
        taps = (1, 1) if f is None else (f.shape[0], f.shape[-1])
        shape = cls(
            parse_factors("up", up), parse_factors("down", down), parse_padding(padding), (x.shape[2], x.shape[3]), taps
        )
        if min(shape.padded_size) < 1 or min(shape.out_size) < 1:
            raise ValueError(
                f"nothing is left of an image of {x.shape[2]}x{x.shape[3]} px: up={shape.up}, padding={shape.pads} and a "
                f"filter of {taps[0]}x{taps[1]} taps need more pixels or padding"
            )
        return shape

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width that the filter sees."""
        height, width = self.in_size
        left, right, top, bottom = self.pads
        return height * self.up[1] + top + bottom, width * self.up[0] + left + right

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the result."""
        height, width = self.padded_size
        return (height - self.taps[0]) // self.down[1] + 1, (width - self.taps[1]) // self.down[0] + 1

    def transposed(self) -> Resampling:
        """Return the resampling that carries gradients of the result back to the image."""
        (in_h, in_w), (out_h, out_w) = self.in_size, self.out_size
        left, _, top, _ = self.pads
        pads = (
            self.taps[1] - left - 1,
            in_w * self.up[0] - out_w * self.down[0] + left - self.up[0] + 1,
            self.taps[0] - top - 1,
            in_h * self.up[1] - out_h * self.down[1] + top - self.up[1] + 1,
        )
        return Resampling(self.down, self.up, pads, self.out_size, self.taps)


class _UpFirDn2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor, shape: Resampling, flip_filter: bool, gain: float, route: str) -> Tensor:
        ctx.save_for_backward(f)
        ctx.shape, ctx.flip_filter, ctx.gain, ctx.route = shape, flip_filter, gain, route
        return _ROUTES[route](x, f, shape, flip_filter, gain)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        (f,) = ctx.saved_tensors
        # The transpose of zero-insert, pad, convolve, decimate is zero-insert by the old ``down``, pad, correlate, decimate.
        grad_x = _UpFirDn2d.apply(grad, f, ctx.shape.transposed(), not ctx.flip_filter, ctx.gain, ctx.route)
        return grad_x, None, None, None, None, None


def _reference(x: Tensor, f: Tensor, shape: Resampling, flip_filter: bool, gain: float) -> Tensor:
    """Follow the definition step by step."""
    (up_x, up_y), (height, width) = shape.up, shape.in_size
    batch, channels = x.shape[:2]
    x = x.reshape(batch, channels, height, 1, width, 1)
    x = F.pad(x, [0, up_x - 1, 0, 0, 0, up_y - 1]).reshape(batch, channels, height * up_y, width * up_x)
    x = _pad_or_crop(x, shape.pads)
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    f = f if flip_filter else f.flip(list(range(f.ndim)))
    for kernel in (f,) if f.ndim == 2 else (f[None, :], f[:, None]):
        x = F.conv2d(x, kernel.repeat(channels, 1, 1, 1), groups=channels)
    return x[:, :, :: shape.down[1], :: shape.down[0]]


def _pad_or_crop(x: Tensor, pads: tuple[int, int, int, int]) -> Tensor:
    """Pad first, so that more may be cropped on one side than there was before."""
    if any(pads):
        x = F.pad(x, [max(pad, 0) for pad in pads])
        left, right, top, bottom = (max(-pad, 0) for pad in pads)
        x = x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]
    return x


def _fast(x: Tensor, f: Tensor, shape: Resampling, flip_filter: bool, gain: float) -> Tensor:
    """Multiply no inserted zeros and compute no dropped pixels."""
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    if shape.taps == (1, 1) and shape.up == shape.down == (1, 1) and shape.pads == (0, 0, 0, 0):
        return x * f.square().prod() if f.ndim == 1 else x * f.prod()
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    if x.device.type == "cpu" and x.shape[1] % 8 and not channels_last:
        # PyTorch's depthwise convolutions run at a tenth of their speed otherwise: 61 ms against 4 ms for RGB of 512 px.
        x = x.contiguous(memory_format=torch.channels_last)
    (up_x, up_y), (down_x, down_y), (left, right, top, bottom) = shape.up, shape.down, shape.pads
    if f.ndim == 2:
        y = _fast_pass(x, f, shape.up, shape.down, shape.pads, flip_filter)
    else:
        y = _fast_pass(x, f[None, :], (up_x, 1), (down_x, 1), (left, right, 0, 0), flip_filter)
        y = _fast_pass(y, f[:, None], (1, up_y), (1, down_y), (0, 0, top, bottom), flip_filter)
    return y if channels_last else y.contiguous()


def _fast_pass(
    x: Tensor, f: Tensor, up: tuple[int, int], down: tuple[int, int], pads: tuple[int, int, int, int], flip_filter: bool
) -> Tensor:
    """Resample with a filter of two dimensions."""
    channels, (taps_y, taps_x) = x.shape[1], f.shape
    if up == (1, 1):
        kernel = (f if flip_filter else f.flip([0, 1])).repeat(channels, 1, 1, 1)
        left, right, top, bottom = pads
        if left == right >= 0 and top == bottom >= 0:
            return F.conv2d(x, kernel, stride=(down[1], down[0]), padding=(top, left), groups=channels)
        return F.conv2d(_pad_or_crop(x, pads), kernel, stride=(down[1], down[0]), groups=channels)
    # A transposed convolution spreads every pixel over the taps, and goes beyond the image by what is cropped here.
    kernel = (f.flip([0, 1]) if flip_filter else f).repeat(channels, 1, 1, 1)
    crops = (taps_x - 1 - pads[0], taps_x - up[0] - pads[1], taps_y - 1 - pads[2], taps_y - up[1] - pads[3])
    crop_x, crop_y = (max(min(crops[axis], crops[axis + 1], f.shape[1 - axis // 2] - 1), 0) for axis in (0, 2))
    y = F.conv_transpose2d(x, kernel, stride=(up[1], up[0]), padding=(crop_y, crop_x), groups=channels)
    y = _pad_or_crop(y, (crop_x - crops[0], crop_x - crops[1], crop_y - crops[2], crop_y - crops[3]))
    return y if down == (1, 1) else y[:, :, :: down[1], :: down[0]]


def _on_triton(x: Tensor, f: Tensor, shape: Resampling, flip_filter: bool, gain: float) -> Tensor:
    """Run the kernel: once, or along one axis after the other."""
    f = f * gain ** (f.ndim / 2) if flip_filter else f.flip(list(range(f.ndim))) * gain ** (f.ndim / 2)
    if f.ndim == 2:
        return _launch(x, f, shape)
    (up_x, up_y), (down_x, down_y), (left, right, top, bottom) = shape.up, shape.down, shape.pads
    along_x = Resampling((up_x, 1), (down_x, 1), (left, right, 0, 0), shape.in_size, (1, f.shape[0]))
    along_y = Resampling((1, up_y), (1, down_y), (0, 0, top, bottom), along_x.out_size, (f.shape[0], 1))
    return _launch(_launch(x, f[None, :], along_x), f[:, None], along_y)


def _launch(x: Tensor, f: Tensor, shape: Resampling) -> Tensor:
    (out_h, out_w), (up_x, up_y), (left, _, top, _) = shape.out_size, shape.up, shape.pads
    y = empty_in_layout_of(x, (*x.shape[:2], out_h, out_w))
    accumulator = torch.promote_types(x.dtype, torch.float32)
    f = f.to(x.device, accumulator).contiguous()
    block_x = min(128, _triton.power_of_2(out_w))
    block_y = min(1024 // block_x, _triton.power_of_2(out_h))
    tiles_x, tiles_y = -(-out_w // block_x), -(-out_h // block_y)
    _triton.launch(
        *(_kernel, tiles_x * tiles_y * x.shape[0] * x.shape[1]),
        *(x, f, y, *x.stride(), *y.stride(), x.shape[1], *shape.in_size, out_h, out_w, tiles_x, tiles_y),
        # Kept positive in the kernel, where a remainder may have the sign of what was divided.
        *(-left % up_x, -left // up_x, -top % up_y, -top // up_y),
        *(up_x, up_y, *shape.down, *shape.taps, block_x, block_y, _triton.language_type(accumulator)),
    )
    return y


@no_type_check
def _kernel(
    x: tl.tensor,
    f: tl.tensor,
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
    out_h: tl.tensor,
    out_w: tl.tensor,
    tiles_x: tl.tensor,
    tiles_y: tl.tensor,
    phase_x: tl.tensor,
    first_x: tl.tensor,
    phase_y: tl.tensor,
    first_y: tl.tensor,
    UP_X: tl.constexpr,
    UP_Y: tl.constexpr,
    DOWN_X: tl.constexpr,
    DOWN_Y: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
) -> None:
    """Compute one tile of one channel, from the pixels that the taps meet; inserted zeros are never touched."""
    program = tl.program_id(0)
    tile_x = program % tiles_x
    tile_y = (program // tiles_x) % tiles_y
    plane = (program // (tiles_x * tiles_y)).to(tl.int64)
    n = plane // channels
    c = plane % channels
    out_y = tile_y * BLOCK_Y + tl.arange(0, BLOCK_Y)
    out_x = tile_x * BLOCK_X + tl.arange(0, BLOCK_X)
    # Where the first tap lies in the up-sampled image, how far it is to the next pixel, and which pixel that is.
    at_y = out_y * DOWN_Y + phase_y
    at_x = out_x * DOWN_X + phase_x
    tap_y = (UP_Y - at_y % UP_Y) % UP_Y
    tap_x = (UP_X - at_x % UP_X) % UP_X
    in_y = (at_y + tap_y) // UP_Y + first_y
    in_x = (at_x + tap_x) // UP_X + first_x
    source = x + n * x_n + c * x_c
    total = tl.full((BLOCK_Y, BLOCK_X), 0.0, dtype=ACCUMULATOR)
    for j in tl.static_range(0, TAPS_Y, UP_Y):
        row = in_y + j // UP_Y
        row_fits = (row >= 0) & (row < in_h) & (tap_y + j < TAPS_Y)
        for i in tl.static_range(0, TAPS_X, UP_X):
            column = in_x + i // UP_X
            fits = row_fits[:, None] & ((column >= 0) & (column < in_w) & (tap_x + i < TAPS_X))[None, :]
            pixel = tl.load(source + row[:, None] * x_h + column[None, :] * x_w, mask=fits, other=0.0)
            tap = tl.load(f + (tap_y + j)[:, None] * TAPS_X + (tap_x + i)[None, :], mask=fits, other=0.0)
            total += pixel.to(ACCUMULATOR) * tap
    fits = (out_y < out_h)[:, None] & (out_x < out_w)[None, :]
    target = y + n * y_n + c * y_c + out_y[:, None] * y_h + out_x[None, :] * y_w
    tl.store(target, total.to(y.dtype.element_ty), mask=fits)


_ROUTES = {"reference": _reference, "fast": _fast, "triton": _on_triton}
