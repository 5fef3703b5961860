"""Is the filtered nonlinearity what its steps are, in every implementation, with gradients?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generators.errors import ImplUnavailable
from generators.ops import filtered_lrelu, setup_filter, upfirdn2d

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLS = ("reference", "auto", "triton")
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def draw(size=4, dtype=torch.float32):
    """Return features, a bias, and filters that are one-dimensional and two-dimensional."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, size, size, dtype=dtype, generator=random).to(DEVICE)
    b = torch.randn(2, dtype=dtype, generator=random).to(DEVICE)
    return x, b, setup_filter([1, 2, 4, 6, 6, 4, 2, 1]).to(DEVICE), setup_filter([1, 3, 3, 1]).to(DEVICE)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("clamp", [None, 0.3])
@pytest.mark.parametrize(("up", "down", "padding"), [(2, 2, 4), (4, 2, (7, 5, 6, 8)), (1, 1, 6)])
def test_it_follows_its_steps(impl, clamp, up, down, padding):
    x, b, fu, fd = draw()
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
def test_it_has_first_and_second_gradients(impl, clamp):
    x, b, _, _ = draw(2, torch.float64)
    inputs = (x[:, :1].requires_grad_(), b[:1].requires_grad_())
    f = setup_filter([1, 2, 1]).to(DEVICE)

    def bend(x, b):
        return filtered_lrelu(x, f, f, b, 2, 2, 2, clamp=clamp, impl=impl).square()

    assert torch.autograd.gradcheck(bend, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(bend, inputs, fast_mode=True)


@pytest.mark.parametrize("impl", ["auto", "triton"])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_it_matches_the_reference_in_every_precision(impl, dtype):
    x, b, fu, fd = draw()
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


def test_an_unavailable_kernel_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ImplUnavailable, match="impl='triton'"):
        filtered_lrelu(torch.zeros(1, 1, 4, 4), impl="triton")
