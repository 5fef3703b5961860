"""Does every activation bend, scale and clamp as it should, in every implementation, with gradients?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.errors import ImplUnavailable, UnknownName
from generators.ops import bias_act

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLS = ("reference", "auto", "triton")
TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def sigmoid(u: float) -> float:
    return 1 / (1 + math.exp(-u))


# The scalar definition and StyleGAN's default gain.
DEFINITIONS = {
    "linear": (lambda u: u, 1),
    "relu": (lambda u: max(u, 0), math.sqrt(2)),
    "lrelu": (lambda u: u if u > 0 else 0.2 * u, math.sqrt(2)),
    "tanh": (math.tanh, 1),
    "sigmoid": (sigmoid, 1),
    "elu": (lambda u: u if u > 0 else math.expm1(u), 1),
    "selu": (lambda u: 1.0507009873554805 * (u if u > 0 else 1.6732632423543772 * math.expm1(u)), 1),
    "softplus": (lambda u: math.log1p(math.exp(u)), 1),
    "swish": (lambda u: u * sigmoid(u), math.sqrt(2)),
}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("act", DEFINITIONS)
@settings(max_examples=10)
@given(values=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=8), bias=st.floats(-3, 3, width=32))
def test_an_activation_is_what_its_definition_says(impl, act, values, bias):
    function, gain = DEFINITIONS[act]
    x = torch.tensor(values, device=DEVICE)[:, None]
    y = bias_act(x, torch.tensor([bias], device=DEVICE), act=act, impl=impl)[:, 0].tolist()
    expected = [gain * function(value) for value in (x[:, 0] + bias).tolist()]
    assert y == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize("act", DEFINITIONS)
def test_bias_act_has_first_and_second_gradients(impl, act, clamp):
    random = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(2, 3, 2, dtype=torch.float64, generator=random)).to(DEVICE).requires_grad_()
    b = torch.randn(3, dtype=torch.float64, generator=random).to(DEVICE).requires_grad_()

    def bend(x, b):
        return bias_act(x, b, act=act, clamp=clamp, impl=impl)

    assert torch.autograd.gradcheck(bend, (x, b), fast_mode=True)
    assert torch.autograd.gradgradcheck(bend, (x, b), fast_mode=True)


@pytest.mark.parametrize("act", ["swish", "tanh", "softplus"])
def test_the_kernel_has_third_gradients(act):
    x = torch.randn(1, 2, 2, dtype=torch.float64, device=DEVICE, requires_grad=True)

    def slope(x):
        y = bias_act(x, act=act, impl="triton")
        return torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slope, x)


@pytest.mark.parametrize("act", DEFINITIONS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("impl", ["auto", "triton"])
def test_bias_act_matches_the_reference_in_every_precision(impl, dtype, act):
    random = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(2, 3, 4, 5, generator=random)).to(DEVICE, dtype)
    b = torch.randn(3, generator=random).to(DEVICE, dtype)
    outcomes = []
    for chosen, precision in (("reference", torch.float32), (impl, dtype)):
        leaf, bias = x.detach().to(precision).requires_grad_(), b.detach().to(precision).requires_grad_()
        y = bias_act(leaf, bias, act=act, clamp=20.0, impl=chosen)
        first = torch.autograd.grad(y.float().square().mean(), (leaf, bias), create_graph=True)
        second = torch.autograd.grad(sum(grad.float().square().sum() for grad in first), (leaf, bias))
        assert {tensor.dtype for tensor in (y, *first, *second)} == {precision}
        outcomes.append([tensor.float() for tensor in (y, *first, *second)])
    for expected, actual in zip(*outcomes, strict=True):
        scale = max(1e-3, expected.abs().max().item())
        torch.testing.assert_close(actual, expected, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype] * scale)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_bias_act_leaves_its_input_alone(impl, requires_grad):
    x = torch.randn(2, 3, 4, device=DEVICE)
    before = x.clone()
    for b in (None, torch.zeros(3, device=DEVICE), torch.ones(3, device=DEVICE)):
        for act in DEFINITIONS:
            with torch.set_grad_enabled(requires_grad):
                bias_act(x, b, act=act, gain=0.5, clamp=0.1, impl=impl)
            assert torch.equal(x, before), act


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("act", DEFINITIONS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_working_in_place_changes_no_result(impl, act, dtype):
    x, b = torch.randn(2, 3, 4, 5, device=DEVICE).to(dtype), torch.randn(3, device=DEVICE)
    expected = bias_act(x, b, act=act, gain=0.5, clamp=0.4, impl=impl)
    torch.testing.assert_close(bias_act(x.clone(), b, act=act, gain=0.5, clamp=0.4, impl=impl, inplace=True), expected)
    leaf = x.clone().requires_grad_()
    bias_act(leaf * 1, b, act=act, impl=impl, inplace=True).sum().backward()
    other = x.clone().requires_grad_()
    bias_act(other, b, act=act, impl=impl).sum().backward()
    assert torch.equal(leaf.grad, other.grad)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_bias_belongs_to_any_dimension_of_any_layout(impl, dim, layout):
    x = torch.randn(2, 3, 4, 5, device=DEVICE).contiguous(memory_format=layout).requires_grad_()
    b = torch.randn(x.shape[dim], device=DEVICE)
    expected = torch.nn.functional.leaky_relu((x.movedim(dim, -1) + b).movedim(-1, dim), 0.1) * 3
    actual = bias_act(x, b, dim, "lrelu", alpha=0.1, gain=3.0, impl=impl)
    torch.testing.assert_close(actual, expected)
    weights = torch.randn(2, 3, 4, 5, device=DEVICE)
    grads = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (actual, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("impl", IMPLS)
def test_nan_is_not_hidden(impl):
    x = torch.full((1, 1), math.nan, device=DEVICE)
    for act in DEFINITIONS:
        assert bias_act(x, act=act, clamp=1.0, impl=impl).isnan().all(), act


@pytest.mark.parametrize("impl", IMPLS)
def test_a_negative_slope_or_gain_still_has_its_gradient(impl):
    x = torch.randn(1, 2, 3, dtype=torch.float64, device=DEVICE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: bias_act(x, act="lrelu", alpha=-0.5, impl=impl), x)
    assert torch.autograd.gradcheck(lambda x: bias_act(x, act="lrelu", gain=-0.5, clamp=0.4, impl=impl), x)


def test_mistakes_are_named():
    x = torch.zeros(1, 2, 3)
    with pytest.raises(UnknownName, match="did you mean lrelu"):
        bias_act(x, act="lrelo")
    with pytest.raises(ValueError, match=r"bias of shape \(3,\)"):
        bias_act(x, torch.zeros(3))
    with pytest.raises(ValueError, match="dim=3"):
        bias_act(x, dim=3)
    with pytest.raises(ValueError, match=r"clamp=-1\.0"):
        bias_act(x, clamp=-1.0)


def test_an_unavailable_kernel_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ImplUnavailable, match="bias_act: impl='triton'"):
        bias_act(torch.zeros(1, 1), impl="triton")
