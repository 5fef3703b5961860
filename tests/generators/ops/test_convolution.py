"""Do convolutions with fixed weights give PyTorch's values and gradients, twice, and keep less?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generators.ops.convolution import convolve, convolve_transposed

SETTINGS = [
    {"k": 3, "stride": 1, "padding": 1, "groups": 1},
    {"k": 3, "stride": 1, "padding": 0, "groups": 2},
    {"k": 3, "stride": 2, "padding": 0, "groups": 1},
    {"k": 3, "stride": 2, "padding": 1, "groups": 2},
    {"k": 1, "stride": 1, "padding": 0, "groups": 1},
    {"k": 1, "stride": 1, "padding": 2, "groups": 1},
    {"k": 2, "stride": 3, "padding": 1, "groups": 1},
]


def tensors(*shapes):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("size", [(6, 6), (7, 9)])
def test_values_and_gradients_are_those_of_pytorch(setting, size):
    k, groups = setting["k"], setting["groups"]
    x, weight = tensors((2, 4, *size), (6, 4 // groups, k, k))
    x.requires_grad_()
    rest = {key: value for key, value in setting.items() if key != "k"}
    ours, theirs = convolve(x, weight, **rest), F.conv2d(x, weight, **rest)
    torch.testing.assert_close(ours, theirs)
    (grad,) = tensors(ours.shape)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, grad)[0] for y in (ours, theirs)))
    assert torch.autograd.gradgradcheck(lambda t: convolve(t, weight, **rest).square(), (x,), atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_ones_too(stride, groups):
    x, weight = tensors((2, 4, 5, 6), (4, 6 // groups, 3, 3))
    x.requires_grad_()
    ours, theirs = (f(x, weight, stride=stride, groups=groups) for f in (convolve_transposed, F.conv_transpose2d))
    torch.testing.assert_close(ours, theirs)
    (grad,) = tensors(ours.shape)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, grad)[0] for y in (ours, theirs)))
    assert torch.autograd.gradgradcheck(
        lambda t: convolve_transposed(t, weight, stride=stride, groups=groups).square(), (x,), atol=1e-4
    )


@pytest.mark.parametrize("function", [convolve, convolve_transposed])
def test_features_are_not_kept_while_weights_are_fixed_and_are_where_they_learn(function):
    x, weight = tensors((1, 4, 8, 8), (4, 4, 3, 3))

    def kept(w):
        shapes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t, lambda t: t):
            function(x.clone().requires_grad_(), w)
        return shapes

    assert x.shape not in kept(weight)
    assert x.shape in kept(weight.clone().requires_grad_())
