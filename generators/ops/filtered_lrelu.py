"""How does StyleGAN3 bend a signal without aliasing? It does so at a higher sampling rate, and filters before and after.

Reference: Karras et al. 2021, arXiv:2106.12423, section 3.2 and appendix D.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from generators.ops.bias_act import bias_act
from generators.ops.upfirdn2d import Image, Resampled, upfirdn2d


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
    """Add a bias, up-sample, apply a leaky ReLU with gain and clamp, and down-sample.

    Every step is an op with kernels of its own and gradients of any order.

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
        impl: ``"auto"`` goes by device; ``"reference"``; ``"triton"``.

    Raises:
        ValueError: factors, padding, filters, bias or clamp do not fit.
        ImplUnavailable: ``impl="triton"`` where kernels cannot run.
    """
    x = bias_act(x, b, impl=impl) if b is not None else x
    x = upfirdn2d(x, fu, up, 1, padding, flip_filter, float(up**2), impl)
    x = bias_act(x, act="lrelu", alpha=slope, gain=gain, clamp=clamp, impl=impl)
    return upfirdn2d(x, fd, 1, down, 0, flip_filter, impl=impl)
