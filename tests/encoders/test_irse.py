"""Is the backbone the published one, unit by unit?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from encoders import irse


@pytest.fixture
def unit(recipe_state):
    def build(in_channels, out_channels, stride, squeeze):
        unit = irse.ResidualUnit(in_channels, out_channels, stride, squeeze).eval().requires_grad_(False)
        unit.load_state_dict(recipe_state(unit.state_dict()))
        return unit

    return build


def norm(x, state, name):
    mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    scale = weight / (var + 1e-5).sqrt()
    return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out_channels", [16, 32])
@pytest.mark.parametrize("squeeze", [True, False])
def test_a_unit_computes_what_its_definition_says(unit, recipe, stride, out_channels, squeeze):
    network, x = unit(16, out_channels, stride, squeeze), recipe("x", (2, 16, 6, 6))
    state = network.state_dict()
    y = F.conv2d(norm(x, state, "res_layer.0"), state["res_layer.1.weight"], padding=1)
    y = torch.where(y >= 0, y, y * state["res_layer.2.weight"][:, None, None])
    y = norm(F.conv2d(y, state["res_layer.3.weight"], stride=stride, padding=1), state, "res_layer.4")
    if squeeze:
        hidden = (state["res_layer.5.fc1.weight"][:, :, 0, 0] @ y.mean((2, 3)).T).clamp(min=0)
        y = y * torch.sigmoid(state["res_layer.5.fc2.weight"][:, :, 0, 0] @ hidden).T[:, :, None, None]
    shortcut = x[:, :, ::stride, ::stride]
    if out_channels != 16:
        shortcut = norm(F.conv2d(shortcut, state["shortcut_layer.0.weight"]), state, "shortcut_layer.1")
    torch.testing.assert_close(network(x), y + shortcut, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("units", [irse.IR_50, irse.IR_101, (1, 1, 1, 1)])
def test_the_pyramid_has_the_last_features_of_the_last_three_groups(units):
    with torch.device("meta"):
        body = irse.body(units)
        shapes = [tuple(x.shape) for x in irse.pyramid_features(body, torch.zeros(1, 64, 256, 256), units)]
    assert len(body) == sum(units)
    assert shapes == [(1, 128, 64, 64), (1, 256, 32, 32), (1, 512, 16, 16)]


def test_the_taps_are_the_same_numbers_as_the_body_itself(recipe):
    units = (1, 2, 1, 1)
    body = irse.body(units).eval().requires_grad_(False)
    x = recipe("x", (1, 64, 32, 32))
    c1, c2, c3 = irse.pyramid_features(body, x, units)
    torch.testing.assert_close(c3, body(x))
    torch.testing.assert_close(c1, body[:3](x))
    torch.testing.assert_close(c2, body[:4](x))
