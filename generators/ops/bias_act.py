"""How does a layer end? Bias, activation, gain and clamp in one op, with gradients of any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.errors import UnknownName
from generators.ops import _triton
from generators.ops.gradient import needs_gradient

if TYPE_CHECKING:
    import triton.language as tl  # type: ignore[import-untyped, import-not-found]

BLOCK = 1024


class Activation(NamedTuple):
    """An activation and StyleGAN's defaults for it."""

    function: Callable[[Tensor, float], Tensor]
    """Of the biased input and alpha."""
    alpha: float = 0.0
    """Slope below 0, where there is one."""
    gain: float = 1.0
    """What keeps a unit-variance input at unit variance, roughly."""


ACTIVATIONS = {
    "linear": Activation(lambda u, alpha: u),
    "relu": Activation(lambda u, alpha: F.relu(u), gain=2**0.5),
    "lrelu": Activation(lambda u, alpha: F.leaky_relu(u, alpha), alpha=0.2, gain=2**0.5),
    "tanh": Activation(lambda u, alpha: torch.tanh(u)),
    "sigmoid": Activation(lambda u, alpha: torch.sigmoid(u)),
    "elu": Activation(lambda u, alpha: F.elu(u)),
    "selu": Activation(lambda u, alpha: F.selu(u)),
    "softplus": Activation(lambda u, alpha: F.softplus(u)),
    "swish": Activation(lambda u, alpha: torch.sigmoid(u) * u, gain=2**0.5),
}


def bias_act(
    x: Float[Tensor, "*shape"],
    b: Float[Tensor, " c"] | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
    inplace: bool = False,
) -> Float[Tensor, "*shape"]:
    """Add a bias, bend, scale and clamp.

    Args:
        x: of any shape.
        b: one number for every index of dimension ``dim``; None adds nothing.
        dim: the dimension of the channels.
        act: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus or swish.
        alpha: slope of lrelu below 0; None: 0.2.
        gain: applied after the activation; None: sqrt(2) for relu, lrelu and swish, else 1.
        clamp: bound of the scaled result's absolute value; None clamps nothing.
        impl: ``"auto"`` goes by device; ``"reference"``; ``"triton"``.
        inplace: let x be overwritten where no gradient needs it; it is lost then.

    Raises:
        UnknownName: no such activation or implementation.
        ValueError: the bias does not fit, or the clamp is negative.
        ImplUnavailable: ``impl="triton"`` where kernels cannot run.
    """
    if act not in ACTIVATIONS:
        raise UnknownName("activation", act, ACTIVATIONS)
    if not -x.ndim <= dim < x.ndim or (b is not None and b.shape != (x.shape[dim],)):
        got = "" if b is None else f", with a bias of shape {tuple(b.shape)}"
        raise ValueError(f"expected a dimension of {tuple(x.shape)} and a bias that fits it, got dim={dim}{got}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp={clamp}: expected a bound of at least 0, or None")
    default = ACTIVATIONS[act]
    recipe = _Recipe(
        act,
        dim % x.ndim,
        default.alpha if alpha is None else float(alpha),
        default.gain if gain is None else float(gain),
        None if clamp is None else float(clamp),
    )
    route = _triton.choose("bias_act", impl, x)
    if route == "reference":
        return _reference(x, b, recipe)
    if not needs_gradient(x, b):
        return _ROUTES[route](0, x, b, recipe, inplace=inplace)
    return _BiasAct.apply(x, b, recipe, route) if route == "triton" or recipe.shows_in_output else _reference(x, b, recipe)


class _Recipe(NamedTuple):
    act: str
    dim: int
    alpha: float
    gain: float
    clamp: float | None

    @property
    def slope_below(self) -> float:
        """Slope below 0 of the activations that are straight on both sides."""
        return {"linear": 1.0, "relu": 0.0}.get(self.act, self.alpha)

    @property
    def shows_in_output(self) -> bool:
        """Tell whether the output alone decides the slope, so that the input need not be kept for the backward pass."""
        return self.act in ("linear", "relu", "lrelu") and self.alpha >= 0 and self.gain > 0


def _biased(x: Tensor, b: Tensor | None, dim: int) -> Tensor:
    if b is None:
        return x
    return x + b.to(x.dtype).reshape(_along(dim, x.ndim))


def _along(dim: int, ndim: int) -> list[int]:
    """Return the shape that broadcasts numbers along one dimension."""
    return [-1 if axis == dim else 1 for axis in range(ndim)]


def _reference(x: Tensor, b: Tensor | None, recipe: _Recipe) -> Tensor:
    """Follow the definition step by step."""
    x = ACTIVATIONS[recipe.act].function(_biased(x, b, recipe.dim), recipe.alpha)
    x = x * recipe.gain if recipe.gain != 1 else x
    return x if recipe.clamp is None else x.clamp(-recipe.clamp, recipe.clamp)


def _fast(order: int, x: Tensor, b: Tensor | None, recipe: _Recipe, *grads: Tensor, inplace: bool = False) -> Tensor:
    """Compute the op (order 0), or its slope times a gradient (order 1; x is the output then), and allocate one result."""
    if order:
        y = torch.ops.aten.leaky_relu_backward(grads[0], x, recipe.slope_below, True).mul_(recipe.gain)
        return y if recipe.clamp is None else y.masked_fill_(x.abs() >= recipe.clamp, 0)
    if inplace and b is not None:
        y = x.add_(b.to(x.dtype).reshape(_along(recipe.dim, x.ndim)))
    else:
        y = _biased(x, b, recipe.dim)
        y = y.clone() if y is x and not inplace else y
    if recipe.act == "lrelu":
        y = F.leaky_relu_(y, recipe.alpha)
    elif recipe.act != "linear":
        y = ACTIVATIONS[recipe.act].function(y, recipe.alpha)
    y = y.mul_(recipe.gain) if recipe.gain != 1 else y
    return y if recipe.clamp is None else y.clamp_(-recipe.clamp, recipe.clamp)


class _BiasAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor | None, recipe: _Recipe, route: str) -> Tensor:
        y = _ROUTES[route](0, x, b, recipe)
        ctx.recipe, ctx.route = recipe, route
        ctx.save_for_backward(*((y, None) if recipe.shows_in_output else (x, b)))
        ctx.bias_type = None if b is None else b.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        grad_x = _Slope.apply(grad, *ctx.saved_tensors, ctx.recipe, ctx.route)
        grad_b = _bias_gradient(grad_x, ctx.recipe.dim, ctx.bias_type) if ctx.needs_input_grad[1] else None
        return grad_x, grad_b, None, None


class _Slope(torch.autograd.Function):
    """Multiply with the slope of the op: its gradient."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, b: Tensor | None, recipe: _Recipe, route: str) -> Tensor:
        ctx.recipe, ctx.route = recipe, route
        ctx.save_for_backward(grad, x, b)
        return _ROUTES[route](1, x, b, recipe, grad)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:  # type: ignore[override]
        grad, x, b = ctx.saved_tensors
        grad_grad = _Slope.apply(outer, x, b, ctx.recipe, ctx.route) if ctx.needs_input_grad[0] else None
        if ctx.recipe.shows_in_output or not any(ctx.needs_input_grad[1:3]):
            return grad_grad, None, None, None, None
        if torch.is_grad_enabled():
            # Third derivatives and beyond are too rare for a kernel.
            u = _biased(x, b, ctx.recipe.dim)
            (slope,) = torch.autograd.grad(_reference(u, None, ctx.recipe), u, grad, create_graph=True)
            (grad_x,) = torch.autograd.grad(slope, u, outer, create_graph=True)
        else:
            grad_x = _ROUTES[ctx.route](2, x, b, ctx.recipe, grad, outer)
        return grad_grad, grad_x, _bias_gradient(grad_x, ctx.recipe.dim, None if b is None else b.dtype), None, None


def _bias_gradient(grad: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor | None:
    return None if dtype is None else grad.sum([axis for axis in range(grad.ndim) if axis != dim]).to(dtype)


def _launch(order: int, x: Tensor, b: Tensor | None, recipe: _Recipe, *grads: Tensor, inplace: bool = False) -> Tensor:
    """Compute the op (order 0), or its first or second derivative times one or two gradients."""
    # All tensors are walked in the order of x's memory, whatever its layout.
    if not (x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))):
        x = x.contiguous()
    y = x if inplace else torch.empty_like(x)
    grads = tuple(grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad) for grad in grads)
    accumulator = torch.promote_types(x.dtype, torch.float32)
    _triton.launch(
        *(_kernel, -(-x.numel() // BLOCK)),
        *(x, x if b is None else b.contiguous(), *(*grads, x, x)[:2], y, x.numel()),
        *(x.stride(recipe.dim), x.shape[recipe.dim], order, b is not None, recipe.shows_in_output),
        *(recipe.act, recipe.alpha, recipe.gain, recipe.clamp, _triton.language_type(accumulator), BLOCK),
    )
    return y


@no_type_check
def _kernel(
    x: tl.tensor,
    b: tl.tensor,
    grad: tl.tensor,
    outer: tl.tensor,
    y: tl.tensor,
    size: tl.tensor,
    step: tl.tensor,
    channels: tl.tensor,
    ORDER: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SHOWS_IN_OUTPUT: tl.constexpr,
    ACT: tl.constexpr,
    ALPHA: tl.constexpr,
    GAIN: tl.constexpr,
    CLAMP: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Compute one block; with SHOWS_IN_OUTPUT, ``x`` holds the op's output when ORDER is not 0."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    fits = index < size
    u = tl.load(x + index, mask=fits, other=0.0).to(ACCUMULATOR)
    if HAS_BIAS:
        u += tl.load(b + (index // step) % channels, mask=fits, other=0.0).to(ACCUMULATOR)
    # a, da, dda: the activation and its derivatives at u. Comparisons are such that no NaN is lost.
    if ACT == "linear":
        a = u
        da = u * 0 + 1
        dda = u * 0
    elif ACT == "relu":
        a = tl.where(u <= 0, 0.0, u)
        da = tl.where(u > 0, 1.0, 0.0)
        dda = u * 0
    elif ACT == "lrelu":
        a = tl.where(u > 0, u, u * ALPHA)
        da = tl.where(u > 0, 1.0, u * 0 + ALPHA)
        dda = u * 0
    elif ACT == "tanh":
        e = tl.exp(-2 * tl.abs(u))
        a = tl.where(u < 0, -1.0, 1.0) * (1 - e) / (1 + e)
        da = 1 - a * a
        dda = -2 * a * da
    elif ACT == "sigmoid":
        a = 1 / (1 + tl.exp(-u))
        da = a * (1 - a)
        dda = da * (1 - 2 * a)
    elif ACT == "elu":
        e = tl.exp(tl.where(u > 0, 0.0, u))
        a = tl.where(u > 0, u, e - 1)
        da = e
        dda = tl.where(u > 0, 0.0, e)
    elif ACT == "selu":
        # The constants of Klambauer et al. 2017, arXiv:1706.02515, appendix A4.
        e = 1.7580993408473768 * tl.exp(tl.where(u > 0, 0.0, u))
        a = tl.where(u > 0, 1.0507009873554805 * u, e - 1.7580993408473768)
        da = tl.where(u > 0, 1.0507009873554805, e)
        dda = tl.where(u > 0, 0.0, e)
    elif ACT == "softplus":
        s = 1 / (1 + tl.exp(-u))
        a = tl.where(u <= 0, 0.0, u) + tl.log(1 + tl.exp(-tl.abs(u)))
        da = s
        dda = s * (1 - s)
    else:
        s = 1 / (1 + tl.exp(-u))
        a = s * u
        da = s + u * s * (1 - s)
        dda = s * (1 - s) * (2 + u * (1 - 2 * s))
    if ORDER == 0:
        v = a * GAIN
        if CLAMP is not None:
            v = tl.where(v > CLAMP, CLAMP, tl.where(v < -CLAMP, -CLAMP, v))
    else:
        v = tl.load(grad + index, mask=fits, other=0.0).to(ACCUMULATOR) * GAIN
        v *= da if ORDER == 1 else dda
        if ORDER == 2:
            v *= tl.load(outer + index, mask=fits, other=0.0).to(ACCUMULATOR)
        if CLAMP is not None:
            clamped = tl.abs(u) >= CLAMP if SHOWS_IN_OUTPUT else tl.abs(a * GAIN) > CLAMP
            v = tl.where(clamped, 0.0, v)
    tl.store(y + index, v.to(y.dtype.element_ty), mask=fits)


_ROUTES = {"fast": _fast, "triton": _launch}
