"""Does the mapping network map and truncate as StyleGAN's does?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generators.mapping import MappingNetwork


@pytest.fixture(scope="module")
def mapping():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MappingNetwork(z_dim=7, w_dim=5, num_ws=4, num_layers=2)
        network.w_avg.normal_()
    return network.requires_grad_(False)


@pytest.fixture
def z():
    return torch.randn(3, 7, generator=torch.Generator().manual_seed(1))


def test_w_is_what_its_definition_says(mapping, z):
    x = z / (z**2).mean(1, keepdim=True).add(1e-8).sqrt()
    for layer in mapping.layers:
        x = x @ layer.weight.T + layer.bias
        x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
    torch.testing.assert_close(mapping.w(z), x)


def test_every_layer_gets_the_same_w(mapping, z):
    w_plus = mapping(z)
    assert w_plus.shape == (3, 4, 5)
    assert torch.equal(w_plus, mapping.w(z)[:, None].expand(-1, 4, -1))


@given(scale=st.floats(1e-2, 1e2))
def test_only_the_direction_of_z_matters(mapping, scale):
    z = torch.randn(2, 7, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(mapping.w(z * scale), mapping.w(z), rtol=1e-4, atol=1e-4)


def test_truncation_psi_1_changes_nothing(mapping, z):
    assert torch.equal(mapping(z, truncation_psi=1.0), mapping(z))
    assert torch.equal(mapping(z, 1.0, 2), mapping(z))


def test_truncation_psi_0_gives_w_avg(mapping, z):
    assert torch.equal(mapping(z, truncation_psi=0.0), mapping.w_avg.expand(3, 4, 5))


def test_truncation_psi_is_the_share_of_the_distance_that_stays(mapping, z):
    expected = mapping.w_avg + 0.7 * (mapping(z) - mapping.w_avg)
    torch.testing.assert_close(mapping(z, truncation_psi=0.7), expected)


@pytest.mark.parametrize("cutoff", range(6))
def test_truncation_stops_at_the_cutoff(mapping, z, cutoff):
    truncated = mapping(z, 0.5, cutoff)
    assert truncated.shape == (3, 4, 5)
    torch.testing.assert_close(truncated[:, :cutoff], mapping(z, 0.5)[:, :cutoff])
    assert torch.equal(truncated[:, cutoff:], mapping(z)[:, cutoff:])


def test_w_avg_moves_and_is_saved_with_the_network(mapping):
    assert "w_avg" in mapping.state_dict()
    assert "w_avg" not in dict(mapping.named_parameters())
