"""The building blocks of the generators, one file per op."""

from generators.ops._triton import in_use
from generators.ops.bias_act import bias_act
from generators.ops.filtered_lrelu import filtered_lrelu
from generators.ops.gradient import needs_gradient
from generators.ops.haar import haar, inverse_haar
from generators.ops.layout import fast_layout
from generators.ops.modulate import modulate, resize_style
from generators.ops.modulated_conv2d import conv2d_resample, modulated_conv2d
from generators.ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__all__ = [
    "bias_act",
    "conv2d_resample",
    "downsample2d",
    "fast_layout",
    "filter2d",
    "filtered_lrelu",
    "haar",
    "in_use",
    "inverse_haar",
    "modulate",
    "modulated_conv2d",
    "needs_gradient",
    "resize_style",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
