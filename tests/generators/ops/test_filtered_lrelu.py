"""Is the filtered nonlinearity what its steps are, in every implementation, with gradients?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from generators.errors import ImplUnavailable
from generators.ops import filtered_lrelu, setup_filter, upfirdn2d

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLS = ("reference", "auto", "triton")
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


FILTERS = {
    "separable": ([1, 2, 4, 6, 6, 4, 2, 1], [1, 3, 3, 1]),
    "not separable": ([[0, 1, 0], [1, 3, 1], [0, 1, 0]], [1, 3, 3, 1]),
}


def draw(size=4, dtype=torch.float32, filters="separable"):
    """Return features, a bias, and two filters."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, size, size, dtype=dtype, generator=random).to(DEVICE)
    b = torch.randn(2, dtype=dtype, generator=random).to(DEVICE)
    is_separable = filters == "separable"
    return x, b, *(setup_filter(taps, separable=is_separable).to(DEVICE) for taps in FILTERS[filters])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("clamp", [None, 0.3])
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize(("up", "down", "padding"), [(2, 2, 4), (4, 2, (7, 5, 6, 8)), (1, 1, 6)])
def test_it_follows_its_steps(impl, clamp, filters, up, down, padding):
    x, b, fu, fd = draw(filters=filters)
    y = filtered_lrelu(x, fu, fd, b, up, down, padding, gain=1.2, slope=0.1, clamp=clamp, impl=impl)
    expected = upfirdn2d(x + b[:, None, None], fu, up, 1, padding, gain=float(up**2), impl="reference")
    expected = F.leaky_relu(expected, 0.1) * 1.2
    expected = expected if clamp is None else expected.clamp(-clamp, clamp)
    expected = upfirdn2d(expected, fd, 1, down, impl="reference")
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_without_filters_it_is_a_leaky_relu(impl):
    x, b, _, _ = draw()
    y = filtered_lrelu(x, b=b, impl=impl)
    torch.testing.assert_close(y, F.leaky_relu(x + b[:, None, None], 0.2) * 2**0.5)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("clamp", [None, 0.3])
@pytest.mark.parametrize(
    ("separable", "up", "down", "padding"),
    # Kernels of the steps, which filters that are not separable take, have tests of their own: the interpreter is slow.
    [(True, 2, 2, (2, 1, 3, 2)), (True, 1, 2, 2), (True, 4, 1, (-1, 0, 2, 3)), (False, 1, 1, 2)],
)
def test_it_has_first_and_second_gradients(impl, clamp, separable, up, down, padding):
    x, b, _, _ = draw(2, torch.float64)
    inputs = (x[:, :1].requires_grad_(), b[:1].requires_grad_())
    f = setup_filter([1, 2, 4], separable=separable).to(DEVICE)

    def bend(x, b):
        return filtered_lrelu(x, f, f, b, up, down, padding, clamp=clamp, impl=impl).square()

    assert torch.autograd.gradcheck(bend, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(bend, inputs, fast_mode=True)


@pytest.mark.parametrize("impl", ["auto", "triton"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("filters", FILTERS)
def test_it_matches_the_reference_in_every_precision(impl, dtype, filters):
    x, b, fu, fd = draw(filters=filters)
    outcomes = []
    for chosen, precision in (("reference", torch.float32), (impl, dtype)):
        leaves = [t.detach().to(dtype).to(precision).requires_grad_() for t in (x, b)]
        y = filtered_lrelu(leaves[0], fu, fd, leaves[1], 2, 2, 4, impl=chosen)
        first = torch.autograd.grad(y.float().square().mean(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(grad.float().square().sum() for grad in first), leaves)
        assert {t.dtype for t in (y, *first, *second)} == {precision}
        outcomes.append([t.float() for t in (y, *first, *second)])
    for expected, actual in zip(*outcomes, strict=True):
        torch.testing.assert_close(
            actual, expected, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype] * expected.abs().max().item()
        )


@pytest.mark.parametrize("impl", ["auto", "triton"])
@settings(max_examples=12)
@given(
    size=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 40), st.integers(1, 40)),
    up_taps=st.integers(1, 24),
    down_taps=st.integers(1, 24),
    up=st.integers(1, 4),
    down=st.integers(1, 4),
    padding=st.tuples(*[st.integers(-3, 20)] * 4),
    flip=st.booleans(),
    clamp=st.one_of(st.none(), st.floats(0.1, 2)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_sizes_match_the_reference(impl, size, up_taps, down_taps, up, down, padding, flip, clamp, seed):
    random = torch.Generator().manual_seed(seed)
    x, b = (torch.randn(shape, generator=random).to(DEVICE) for shape in (size, size[1:2]))
    fu, fd = (torch.randn(taps, generator=random).to(DEVICE) / taps for taps in (up_taps, down_taps))
    left, right, top, bottom = padding
    smallest = min(size[2] * up + top + bottom, size[3] * up + left + right)
    assume(smallest - up_taps + 1 >= down_taps)
    assume(min(size[2] * up + min(top, bottom, 0), size[3] * up + min(left, right, 0)) > 0)
    outcomes = []
    for chosen in ("reference", impl):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, b)]
        y = filtered_lrelu(leaves[0], fu, fd, leaves[1], up, down, padding, 1.3, 0.1, clamp, flip, chosen)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
        outcomes.append((y, *torch.autograd.grad((y * weights).sum(), leaves)))
    for name, expected, actual in zip(("y", "x", "b"), *outcomes, strict=True):
        scale = max(1e-3, expected.abs().max().item())
        # Rounding decides on which side of the bend a value lies: gradients differ where one lies on it.
        off = (actual - expected).abs() > 1e-4 * scale
        assert not off.any() if name == "y" else off.float().mean() < 0.02, name


def test_mistakes_are_named():
    x, _, fu, fd = draw()
    with pytest.raises(ValueError, match=r"clamp=-1\.0"):
        filtered_lrelu(x, fu, fd, None, 2, 2, 8, clamp=-1.0, impl="triton")
    with pytest.raises(ValueError, match=r"f\.detach"):
        filtered_lrelu(x, fu.requires_grad_(), fd, None, 2, 2, 8, impl="triton")
    with pytest.raises(ValueError, match="nothing is left of an image of 4x4"):
        filtered_lrelu(x, fu.detach(), fd, impl="triton")


def test_an_unavailable_kernel_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ImplUnavailable, match="impl='triton'"):
        filtered_lrelu(torch.zeros(1, 1, 4, 4), impl="triton")
