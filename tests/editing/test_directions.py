"""Does a direction do what an edit must: nothing at 0, additive, alike on vectors and maps, refusing what does not fit?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editing.directions import Direction, rms_norm
from editing.errors import EditError
from generators.base import Identity
from generators.errors import LatentMismatch
from generators.latent import as_stylemaps

relaxed = settings(max_examples=40, deadline=None)  # The first example also pays for imports.

GENERATOR = Identity("toy", "a" * 64)
NUM_WS, W_DIM = 4, 6

strengths = st.floats(-8, 8, allow_nan=False)
seeds = st.integers(0, 2**16)
layer_choices = st.none() | st.sets(st.integers(0, NUM_WS - 1), min_size=1).map(lambda chosen: tuple(sorted(chosen)))


def random_direction(seed: int, layers: tuple[int, ...] | None = None, per_layer: bool = False) -> Direction:
    rng = torch.Generator().manual_seed(seed)
    vector = torch.randn(NUM_WS, W_DIM, generator=rng) if per_layer else torch.randn(W_DIM, generator=rng)
    return Direction.of("test", vector, GENERATOR, layers=layers, unit=1.7)


def random_w_plus(seed: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, NUM_WS, W_DIM, generator=torch.Generator().manual_seed(seed + 1))


def random_stylemaps(seed: int, batch: int = 2) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(seed + 1)
    return tuple(torch.randn(batch, W_DIM, size, size + 1, generator=rng) for size in (1, 2, 4, 3))


@relaxed
@given(seeds, layer_choices, st.booleans())
def test_strength_zero_is_the_exact_identity(seed, layers, per_layer):
    direction = random_direction(seed, layers, per_layer)
    w_plus, maps = random_w_plus(seed), random_stylemaps(seed)
    assert torch.equal(direction(w_plus, 0), w_plus)
    assert all(torch.equal(a, b) for a, b in zip(direction(maps, 0.0), maps, strict=True))


@relaxed
@given(seeds, strengths, strengths, layer_choices)
def test_strengths_add_up(seed, a, b, layers):
    direction, w_plus = random_direction(seed, layers), random_w_plus(seed)
    torch.testing.assert_close(direction(direction(w_plus, a), b), direction(w_plus, a + b), atol=1e-4, rtol=1e-5)


@relaxed
@given(seeds, strengths, layer_choices, st.booleans())
def test_w_plus_and_stylemaps_of_one_pixel_agree(seed, strength, layers, per_layer):
    direction, w_plus = random_direction(seed, layers, per_layer), random_w_plus(seed)
    maps = direction(as_stylemaps(w_plus), strength)
    assert torch.equal(torch.stack([style_map[:, :, 0, 0] for style_map in maps], 1), direction(w_plus, strength))


@relaxed
@given(seeds, strengths)
def test_every_pixel_of_a_map_moves_alike(seed, strength):
    direction, maps = random_direction(seed), random_stylemaps(seed)
    for before, after in zip(maps, direction(maps, strength), strict=True):
        expected = (strength * 1.7 * direction.vector)[None, :, None, None].expand_as(before)
        torch.testing.assert_close(after - before, expected, atol=1e-4, rtol=1e-4)


def test_one_unit_of_strength_moves_by_the_unit():
    direction, w_plus = random_direction(0), random_w_plus(0)
    moved = (direction(w_plus, 1) - w_plus).norm(dim=-1)
    torch.testing.assert_close(moved, torch.full_like(moved, 1.7))


def test_only_the_chosen_layers_move():
    w_plus = random_w_plus(0)
    moved = (random_direction(0, layers=(1, 3))(w_plus, 2) != w_plus).any(-1)
    assert moved.tolist() == [[False, True, False, True]] * 2


def test_a_batch_takes_one_strength_per_code():
    direction, w_plus, maps = random_direction(0), random_w_plus(0), random_stylemaps(0)
    both = torch.tensor([0.0, -3.0])
    torch.testing.assert_close(direction(w_plus, both)[1], direction(w_plus, -3)[1])
    assert torch.equal(direction(w_plus, both)[0], w_plus[0])
    assert torch.equal(direction(maps, both)[2][0], maps[2][0])


def test_the_latent_given_is_left_as_it_was():
    w_plus = random_w_plus(0)
    before = w_plus.clone()
    random_direction(0)(w_plus, 3)
    assert torch.equal(w_plus, before)


def test_dtype_is_kept_and_gradients_flow():
    w_plus = random_w_plus(0).double().requires_grad_()
    strength = torch.tensor(1.0, requires_grad=True)
    edited = random_direction(0)(w_plus, strength)
    edited.sum().backward()
    assert edited.dtype == torch.float64
    assert w_plus.grad is not None
    assert strength.grad is not None


@pytest.mark.parametrize("strength", [math.nan, math.inf, torch.tensor([0.0, math.nan])])
def test_a_strength_that_is_no_number_is_refused(strength):
    with pytest.raises(EditError, match="expected a finite number"):
        random_direction(0)(random_w_plus(0), strength)


def test_another_width_is_refused():
    with pytest.raises(LatentMismatch, match=r"6 wide.* 5"):
        random_direction(0)(torch.zeros(1, NUM_WS, 5), 1)


def test_another_number_of_layers_is_refused():
    with pytest.raises(LatentMismatch, match=r"4 layers.* 3"):
        random_direction(0, per_layer=True)(torch.zeros(1, 3, W_DIM), 1)
    with pytest.raises(LatentMismatch, match=r"moves layer 3.* 2 layers"):
        random_direction(0, layers=(3,))(torch.zeros(1, 2, W_DIM), 1)


def test_a_generator_of_other_layers_or_width_is_refused_before_there_is_a_latent():
    random_direction(0, per_layer=True).check_shape(NUM_WS, W_DIM)
    with pytest.raises(LatentMismatch, match="6 wide"):
        random_direction(0).check_shape(NUM_WS, 512)
    with pytest.raises(LatentMismatch, match="4 layers"):
        random_direction(0, per_layer=True).check_shape(18, W_DIM)


def test_another_generator_is_refused_and_both_are_named():
    direction = random_direction(0)
    direction.check_generator(GENERATOR)
    with pytest.raises(LatentMismatch, match=r"toy \(aaaa.*other \(bbbb"):
        direction.check_generator(Identity("other", "b" * 64))


def test_any_vector_becomes_a_unit_vector_with_its_length_as_unit():
    direction = Direction.of("test", torch.tensor([3.0, 4.0]), GENERATOR)
    assert direction.unit == pytest.approx(5)
    assert rms_norm(direction.vector) == pytest.approx(1)


def test_equal_rows_become_one_vector():
    direction = Direction.of("test", torch.tensor([[3.0, 4.0]] * 18), GENERATOR)
    assert (direction.space, direction.unit) == ("w", pytest.approx(5))
    assert direction.vector.shape == (2,)


@pytest.mark.parametrize("vector", [torch.zeros(3), torch.tensor([math.nan, 1.0])])
def test_a_vector_that_points_nowhere_is_refused(vector):
    with pytest.raises(ValueError, match="points nowhere"):
        Direction.of("test", vector, GENERATOR)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vector": torch.tensor([3.0, 4.0])}, "norm is 5"),
        ({"vector": torch.eye(2)}, "does not suit"),
        ({"unit": math.nan}, "unit"),
        ({"layers": ()}, "layers"),
        ({"layers": (-1,)}, "layers"),
        ({"vector": torch.eye(2), "space": "w_plus", "layers": (2,)}, "layer 2 of 2"),
    ],
)
def test_a_direction_that_contradicts_itself_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Direction(**({"name": "test", "vector": torch.tensor([0.6, 0.8]), "generator": GENERATOR} | fields))
