"""Is LEC the figure of the papers? Closed forms on a linear generator, and the forms of stylemaps by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from editing.directions import Direction
from editing.errors import EditError
from editing.lec import LEC, latent_distance
from generators.base import Identity
from generators.errors import LatentMismatch

NUM_WS, W_DIM = 3, 4
GREY = torch.zeros(2, 3, 8, 8)


class LinearWorld:
    """A generator that is one matrix, and its pseudo-inverse as encoder, which may err by a known amount."""

    def __init__(self, error=None):
        random = torch.Generator().manual_seed(0)
        self.matrix = torch.randn(3 * 8 * 8, NUM_WS * W_DIM, generator=random, dtype=torch.float64)
        self.error, self.calls = error or (lambda codes, call: codes), 0

    def generate(self, latent):
        return (latent.flatten(1).double() @ self.matrix.T).reshape(-1, 3, 8, 8)

    def encode(self, image):
        self.calls += 1
        codes = image.double().flatten(1) @ torch.linalg.pinv(self.matrix).T
        return self.error(codes.reshape(-1, NUM_WS, W_DIM), self.calls)


@pytest.fixture
def faces():
    return LinearWorld().generate(torch.randn(5, NUM_WS, W_DIM, generator=torch.Generator().manual_seed(1)))


@pytest.fixture
def older():
    return Direction.of("older", torch.tensor([1.0, -2.0, 0.5, 3.0]), Identity("linear"))


@pytest.mark.parametrize("strength", [-3.0, 0.0, 3.0])
def test_a_perfect_encoder_is_consistent(faces, older, strength):
    world = LinearWorld()
    values = LEC(world.encode, world.generate)(faces, older, strength)
    for form in values:
        torch.testing.assert_close(form, torch.zeros(5), atol=1e-5, rtol=0)


def test_an_error_of_the_second_encoding_is_the_value(faces, older):
    shift = torch.full((NUM_WS, W_DIM), 0.5, dtype=torch.float64)
    world = LinearWorld(lambda codes, call: codes + shift if call == 2 else codes)
    values = LEC(world.encode, world.generate)(faces, older, 3.0)
    for form in values:
        torch.testing.assert_close(form, torch.full((5,), math.sqrt(NUM_WS * W_DIM * 0.25)))


def test_an_encoder_that_forgets_edits_has_the_edits_length(faces, older):
    """It answers w_avg to everything, so the inverse edit is all that is left: strength x unit x root of the layers."""
    world = LinearWorld(lambda codes, call: torch.zeros_like(codes))
    values = LEC(world.encode, world.generate)(faces, older, -2.0)
    torch.testing.assert_close(values.avg, torch.full((5,), 2.0 * older.unit * math.sqrt(NUM_WS)))


def test_a_shrinking_encoder_has_a_known_value(faces, older):
    """E halves codes: back = (w / 2 + s d) / 2 - s d for the first code w / 2; their difference is w / 4 + s d / 2."""
    world = LinearWorld(lambda codes, call: codes / 2)
    w = LinearWorld().encode(faces)
    expected = (w / 4 + 3.0 * older.unit * older.vector / 2).flatten(1).norm(dim=1)
    torch.testing.assert_close(LEC(world.encode, world.generate)(faces, older, 3.0).max, expected.float())


def test_several_edits_share_the_first_encoding(faces, older):
    world = LinearWorld()
    lec = LEC(world.encode, world.generate)
    codes = lec.encode(faces)
    for strength in (1.0, -1.0):
        lec.codes(codes, older, strength)
    assert world.calls == 3


def test_an_edit_that_is_not_linear_brings_its_inverse(faces):
    world = LinearWorld()

    def scale(latent, strength):
        return latent * strength

    values = LEC(world.encode, world.generate)(faces, scale, 4.0, inverse=lambda latent, strength: latent / strength)
    torch.testing.assert_close(values.avg, torch.zeros(5), atol=1e-5, rtol=0)


def test_a_strength_that_is_no_number_is_refused(faces, older):
    world = LinearWorld()
    with pytest.raises(EditError, match="finite"):
        LEC(world.encode, world.generate)(faces, older, math.nan)


def test_the_forms_of_a_stylemap_are_honda_et_als():
    # One layer of 1x2 pixels with squared differences 1 + 4 and 0 + 9, one of one pixel with 16.
    a = (torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 1))
    b = (torch.tensor([[[[1.0, 0.0]], [[2.0, 3.0]]]]), torch.tensor([[[[4.0]], [[0.0]]]]))
    distance = latent_distance(a, b)
    assert distance.avg.item() == pytest.approx(math.sqrt(7 + 16))
    assert distance.min.item() == pytest.approx(math.sqrt(5 + 16))
    assert distance.max.item() == pytest.approx(math.sqrt(9 + 16))


def test_codes_of_float64_that_lie_close_together_are_not_equal():
    codes = torch.full((1, NUM_WS, W_DIM), 1000.0, dtype=torch.float64)
    expected = torch.tensor([1e-5 * math.sqrt(NUM_WS * W_DIM)])
    for form in latent_distance(codes, codes + 1e-5):
        torch.testing.assert_close(form, expected)
    for form in latent_distance(torch.full((1, 2, 2), 300.0).half(), torch.zeros(1, 2, 2).half()):
        torch.testing.assert_close(form, torch.tensor([600.0]))  # Whose squares no half type holds.


@given(st.integers(0, 1000), st.integers(1, 3))
def test_all_forms_of_a_w_plus_are_its_vector_form(seed, batch):
    random = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(batch, 5, 7, generator=random) for _ in "ab")
    maps: list[tuple[Tensor, ...]] = [tuple(w[:, :, None, None] for w in code.unbind(1)) for code in (a, b)]
    expected = (a - b).flatten(1).norm(dim=1)
    for values in (*latent_distance(a, b), *latent_distance(*maps)):
        torch.testing.assert_close(values, expected)


@given(st.integers(0, 1000))
def test_the_forms_of_a_stylemap_are_in_order_and_do_not_depend_on_the_batch(seed):
    random = torch.Generator().manual_seed(seed)
    a, b = (tuple(torch.randn(3, 4, size, size, generator=random) for size in (2, 4, 1)) for _ in "ab")
    distance = latent_distance(a, b)
    assert (distance.min <= distance.avg).all()
    assert (distance.avg <= distance.max).all()
    alone = latent_distance(tuple(x[1:2] for x in a), tuple(x[1:2] for x in b))
    for one, many in zip(alone, distance, strict=True):
        torch.testing.assert_close(one[0], many[1])


@pytest.mark.parametrize(
    "other",
    [
        torch.zeros(2, NUM_WS, W_DIM + 1),
        torch.zeros(2, NUM_WS + 1, W_DIM),
        torch.zeros(1, NUM_WS, W_DIM),
        tuple(torch.zeros(2, W_DIM, 2, 2) for _ in range(NUM_WS)),
    ],
)
def test_codes_that_cannot_be_compared_are_refused(other):
    with pytest.raises(LatentMismatch, match="same batch, layers and sizes"):
        latent_distance(torch.zeros(2, NUM_WS, W_DIM), other)
