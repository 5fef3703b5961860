"""Does the projector's optimiser move numbers as far as its formula says, each style by itself?"""

from __future__ import annotations

import pytest
import torch

from invert.padam import Padam


def step_along(gradient, **options):
    variable = torch.zeros_like(gradient, requires_grad=True)
    variable.grad = gradient
    Padam([variable], lr=0.1, **options).step()
    return variable.detach()


def test_the_first_step_is_divided_by_the_geometric_mean_of_a_numbers_size_and_its_styles():
    gradient = torch.tensor([[3.0, -4.0, 0.0, 0.0]])
    rms = (25 / 4) ** 0.5
    expected = -0.1 * torch.tensor([[3 / (3 * rms) ** 0.5, -4 / (4 * rms) ** 0.5, 0.0, 0.0]])
    torch.testing.assert_close(step_along(gradient), expected)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_steps_do_not_depend_on_the_size_of_the_loss(scale):
    gradient = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(step_along(scale * gradient), step_along(gradient), rtol=1e-3, atol=1e-5)


def test_each_style_of_a_batch_moves_as_if_alone():
    gradient = torch.tensor([[1.0, 2.0], [300.0, -100.0]])
    torch.testing.assert_close(step_along(gradient)[1:], step_along(gradient[1:]))


def test_what_is_no_gradient_but_a_rounding_error_moves_nothing():
    assert step_along(torch.full((1, 4), 1e-30)).abs().max() < 1e-12
    assert not step_along(torch.zeros(1, 4)).any()


def test_variables_without_a_gradient_stay():
    variable = torch.ones(2, 4, requires_grad=True)
    Padam([variable], lr=1.0).step()
    assert torch.equal(variable, torch.ones(2, 4))


def test_a_closure_is_refused():
    with pytest.raises(ValueError, match="closure"):
        Padam([torch.zeros(1, requires_grad=True)], lr=1.0).step(lambda: 0.0)


def test_a_narrow_valley_is_walked_to_its_end():
    """As steep as W is wide: two orders of magnitude between its axes."""
    curvature = torch.logspace(0, -2, 32)
    variable = torch.ones(1, 32, requires_grad=True)
    optimizer = Padam([variable], lr=0.1)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        (curvature * variable.square()).sum().backward()
        optimizer.step()
    assert variable.abs().max() < 0.02
