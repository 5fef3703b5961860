"""Are planted components found, and edits along them those of GANSpace? Does SeFa see the weights of every generator?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editing.errors import EditError, TrainingDataError
from editing.unsupervised import ComponentEdit, Components, ganspace, sefa, style_weights
from generators.base import Identity
from generators.errors import LatentMismatch
from generators.latent import as_stylemaps
from generators.stylegan1 import StyleGAN1
from generators.stylegan2 import StyleGAN2
from generators.stylegan3 import StyleGAN3

GENERATOR = Identity("toy", "a" * 64)
SIGMAS = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.1])


def some_codes(seed: int = 0, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes that vary by SIGMAS along the rows of an orthogonal matrix."""
    random = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=random))
    return torch.randn(count, 6, generator=random) * SIGMAS @ basis + 2.0, basis


def some_components(seed: int = 0) -> Components:
    return ganspace(some_codes(seed)[0], GENERATOR, 4)


def test_the_directions_that_codes_vary_in_are_found_in_order_with_their_sigmas():
    codes, basis = some_codes()
    components = ganspace(codes, GENERATOR, 6)
    assert (components.vectors @ basis.T).abs().diagonal().min() > 0.99
    torch.testing.assert_close(components.deviations, SIGMAS, rtol=0.05, atol=0.01)
    torch.testing.assert_close(components.vectors @ components.vectors.T, torch.eye(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(components.mean, codes.mean(0))


def test_components_have_one_sign_wherever_they_are_computed():
    vectors = some_components().vectors
    assert (vectors.gather(1, vectors.abs().argmax(1, keepdim=True)) > 0).all()


def test_a_component_is_a_direction_of_one_sigma():
    components = some_components()
    direction = components.direction(1, layers=(0, 2))
    w_plus = some_codes(3, 2)[0][:, None].repeat(1, 3, 1)
    moved = components.coordinates(direction(w_plus, 2.0)[:, 0]) - components.coordinates(w_plus[:, 0])
    torch.testing.assert_close(moved, torch.tensor([[0.0, 2.0, 0.0, 0.0]] * 2), rtol=0, atol=1e-4)
    assert (direction.name, direction.layers, direction.generator) == ("component1", (0, 2), GENERATOR)
    assert "4000 codes" in direction.learnt


@settings(max_examples=30)
@given(st.integers(0, 3), st.integers(0, 2), st.floats(-30, 30), st.booleans())
def test_an_edit_of_ganspace_moves_its_layers_to_the_place_that_it_names(index, start, strength, as_maps):
    components = some_components()
    w_plus = some_codes(5, 3)[0][:, None].repeat(1, 4, 1)
    latent = as_stylemaps(w_plus) if as_maps else w_plus
    moved = components.move_to(latent, [(index, start, start + 2, strength)])
    moved = torch.stack([style_map[:, :, 0, 0] for style_map in moved], 1) if as_maps else moved
    places = components.coordinates(moved.flatten(0, 1)).view(3, 4, 4)
    inside = torch.tensor([start <= layer < start + 2 for layer in range(4)])
    torch.testing.assert_close(places[:, inside, index], torch.full((3, 2), strength), rtol=1e-3, atol=1e-3)
    assert torch.equal(moved[:, ~inside], w_plus[:, ~inside])


def test_edits_of_one_layer_add_up_and_are_measured_on_what_was_given():
    components, w_plus = some_components(), some_codes(5, 2)[0][:, None].repeat(1, 4, 1)
    both = components.move_to(w_plus, [ComponentEdit(0, 0, 2, 1.0), ComponentEdit(1, 1, 3, -2.0)])
    one, other = (components.move_to(w_plus, [edit]) for edit in ((0, 0, 2, 1.0), (1, 1, 3, -2.0)))
    torch.testing.assert_close(both - w_plus, (one - w_plus) + (other - w_plus))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ((9, 0, 1, 1.0), "there are 4, numbered 0 to 3"),
        ((-1, 0, 1, 1.0), "numbered 0 to 3"),
        ((0, 2, 2, 1.0), "below the end"),
        ((0, 0, 5, 1.0), "at most 4"),
        ((0, 0, 1, math.nan), "finite"),
    ],
)
def test_edits_that_cannot_be_are_refused(edit, message):
    with pytest.raises(EditError, match=message):
        some_components().move_to(torch.zeros(1, 4, 6), [edit])


def test_a_latent_of_another_width_is_refused():
    with pytest.raises(LatentMismatch, match="6 wide, the latent 5"):
        some_components().move_to(torch.zeros(1, 4, 5), [(0, 0, 1, 1.0)])


@pytest.mark.parametrize(
    ("codes", "count", "message"),
    [
        (torch.zeros(50, 6), 2, "the same"),
        (torch.full((50, 6), math.nan), 2, "NaN"),
        (torch.randn(3, 6), 5, "expected 1 to 2"),
        (torch.randn(50, 6), 0, "expected 1 to 6"),
    ],
)
def test_codes_that_have_no_components_are_refused(codes, count, message):
    with pytest.raises(TrainingDataError, match=message):
        ganspace(codes, GENERATOR, count)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": torch.full((2, 6), math.nan)}, "NaN"),
        ({"vectors": torch.zeros(2, 6)}, "point somewhere"),
        ({"deviations": torch.tensor([1.0, -1.0])}, "not negative"),
        ({"deviations": torch.ones(3)}, "do not go with"),
        ({"mean": torch.zeros(5)}, "do not go with"),
    ],
)
def test_components_that_contradict_themselves_are_refused(change, message):
    sound = {"vectors": torch.eye(2, 6), "deviations": torch.ones(2), "mean": torch.zeros(6), "generator": GENERATOR}
    with pytest.raises(TrainingDataError, match=message):
        Components(**(sound | change))


def test_sefa_finds_what_the_weights_amplify():
    codes, basis = some_codes()
    weight = torch.cat(
        [basis[2:3].repeat(9, 1) * 7, basis[4:5].repeat(4, 1)]
    )  # Nine channels listen to one, four to another.
    components = sefa([weight], codes, GENERATOR, 2, (1,))
    assert abs(float(components.vectors[0] @ basis[2])) == pytest.approx(1, abs=1e-5)
    assert abs(float(components.vectors[1] @ basis[4])) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(components.deviations, torch.tensor([2.0, 0.5]), rtol=0.05, atol=0)
    assert components.layers == (1,)


@pytest.mark.parametrize("weights", [[], [torch.full((3, 6), math.nan)]])
def test_weights_that_say_nothing_are_refused(weights):
    with pytest.raises(TrainingDataError):
        sefa(weights, some_codes()[0], GENERATOR, 2)


def test_the_default_kind_of_generator_has_one_modulation_for_each_use_of_a_layer(tiny_generator):
    weights = style_weights(tiny_generator)
    synthesis = tiny_generator.synthesis
    assert len(weights) == tiny_generator.num_ws
    assert torch.equal(weights[0][0], synthesis.conv1.modulation.weight)
    block = synthesis.blocks[1]
    assert [w.shape for w in weights[3]] == [block.up_modulation.weight.shape, block.conv1.modulation.weight.shape]
    assert torch.equal(weights[-1][0], synthesis.to_image.modulation.weight)


@pytest.mark.parametrize(
    "generator",
    [
        lambda: StyleGAN2(32, z_dim=16, w_dim=16, channel_base=128, channel_max=16),
        lambda: StyleGAN1(32, z_dim=16, w_dim=16, channel_base=128, channel_max=16),
        lambda: StyleGAN3(32, z_dim=16, w_dim=16, channel_base=128, channel_max=16),
    ],
    ids=["StyleGAN2", "StyleGAN1", "StyleGAN3"],
)
def test_every_layer_of_every_generator_has_weights(generator):
    network = generator().eval().requires_grad_(False)
    weights = style_weights(network)
    assert len(weights) == network.num_ws
    assert all(layer and all(w.shape[1] == 16 for w in layer) for layer in weights)
