"""How is a convolution differentiated whose weights stay? Without keeping what it read.

PyTorch keeps the features that every convolution reads, for the gradient of its weights, whether that is wanted or not.
While a code is searched for the weights are fixed, and they alone are enough.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.ops.gradient import needs_gradient

Features: TypeAlias = Float[Tensor, "batch in_c height width"]
Result: TypeAlias = Float[Tensor, "batch out_c out_height out_width"]


def convolve(
    x: Features, weight: Float[Tensor, "out_c group_c k k"], stride: int = 1, padding: int = 0, groups: int = 1
) -> Result:
    """Do what ``F.conv2d`` does; where only the features need a gradient, keep only the weights for it."""
    if needs_gradient(x) and not needs_gradient(weight):
        return _Convolution.apply(x, weight, stride, padding, groups)
    return F.conv2d(x, weight, stride=stride, padding=padding, groups=groups)


def convolve_transposed(x: Features, weight: Float[Tensor, "in_c group_c k k"], stride: int = 1, groups: int = 1) -> Result:
    """Do what ``F.conv_transpose2d`` does, with the same frugality."""
    if needs_gradient(x) and not needs_gradient(weight):
        return _TransposedConvolution.apply(x, weight, stride, groups)
    return F.conv_transpose2d(x, weight, stride=stride, groups=groups)


class _Convolution(torch.autograd.Function):
    """A convolution with fixed weights. Its gradient is made of differentiable ops, so it can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, groups: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.stride, ctx.padding, ctx.groups = x.shape, stride, padding, groups
        return F.conv2d(x, weight, stride=stride, padding=padding, groups=groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        weight = ctx.saved_tensors[0].to(grad.dtype)  # Under autocast the result is of another type than what it came from.
        k = weight.shape[2]
        if ctx.stride == 1 and ctx.groups == 1 and ctx.padding < k:
            # As a plain convolution, which is the fastest of the kernels.
            return convolve(grad, weight.flip([2, 3]).transpose(0, 1), padding=k - 1 - ctx.padding), None, None, None, None
        reached = [(size - 1) * ctx.stride - 2 * ctx.padding + k for size in grad.shape[2:]]
        rest = [size - end for size, end in zip(ctx.shape[2:], reached, strict=True)]
        back = F.conv_transpose2d(grad, weight, None, ctx.stride, ctx.padding, rest, ctx.groups)
        return back, None, None, None, None


class _TransposedConvolution(torch.autograd.Function):
    """A transposed convolution with fixed weights; its gradient is an ordinary one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.groups = stride, groups
        return F.conv_transpose2d(x, weight, stride=stride, groups=groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        weight = ctx.saved_tensors[0].to(grad.dtype)
        return convolve(grad, weight, stride=ctx.stride, groups=ctx.groups), None, None, None
