"""Has the game between encoder and discriminator e4e's losses, a pool that invents nothing, and a state that resumes?"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from encoders.training.discriminator import (
    LatentAdversary,
    LatentCodesDiscriminator,
    LatentCodesPool,
    discriminator_loss,
    encoder_loss,
    r1_penalty,
    style_vectors,
)
from generators.latent import as_stylemaps

W_DIM = 8


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def codes(count, seed=0):
    return torch.randn(count, W_DIM, generator=seeded(seed))


@pytest.fixture
def discriminator():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LatentCodesDiscriminator(W_DIM)


@pytest.fixture
def adversary():
    def build(**settings):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return LatentAdversary(W_DIM, **settings)

    return build


def test_the_published_tensors_fit(shared_folder):
    rows = (shared_folder / "reference/shapes/e4e_LatentCodesDiscriminator.tsv").read_text().splitlines()
    published = {name: shape for name, _, shape in (row.split("\t") for row in rows if not row.startswith("#"))}
    assert {name: str(list(value.shape)) for name, value in LatentCodesDiscriminator().state_dict().items()} == published


def test_every_layer_and_every_pixel_is_one_style_vector():
    w_plus = torch.randn(2, 5, W_DIM, generator=seeded())
    vectors = style_vectors(w_plus)
    assert vectors.shape == (10, W_DIM)
    assert torch.equal(vectors[2:4], w_plus[:, 1])
    maps = (torch.randn(2, W_DIM, 2, 3), torch.randn(2, W_DIM, 1, 1))
    vectors = style_vectors(maps)
    assert vectors.shape == (2 * 6 + 2, W_DIM)
    assert torch.equal(vectors[6], maps[0][1, :, 0, 0])
    assert torch.equal(vectors[5], maps[0][0, :, 1, 2])


def test_a_w_plus_and_its_1x1_maps_have_the_same_loss(discriminator):
    w_plus = torch.randn(2, 5, W_DIM, generator=seeded())
    maps = as_stylemaps(w_plus)
    torch.testing.assert_close(encoder_loss(discriminator, w_plus), encoder_loss(discriminator, maps))
    enlarged = tuple(F.interpolate(m, (3, 3)) for m in maps[:1]) + maps[1:]
    torch.testing.assert_close(encoder_loss(discriminator, enlarged), encoder_loss(discriminator, maps))


def test_logits_that_know_nothing_cost_2_log_2():
    assert discriminator_loss(torch.zeros(3), torch.zeros(5)).item() == pytest.approx(2 * math.log(2))
    assert discriminator_loss(torch.full((3,), 50.0), torch.full((3,), -50.0)) < 1e-6


def test_r1_of_a_linear_discriminator_is_its_squared_weight():
    linear = LatentCodesDiscriminator(W_DIM, num_layers=1)
    penalty = r1_penalty(linear, codes(6))
    torch.testing.assert_close(penalty, linear.mlp[0].weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(linear.mlp[0].weight.grad, 2 * linear.mlp[0].weight.detach())


def test_the_encoders_loss_moves_the_codes_and_not_the_discriminator(adversary):
    adversary = adversary()
    latent = torch.randn(2, 5, W_DIM, generator=seeded()).requires_grad_(True)
    adversary.encoder_loss(latent).backward()
    assert latent.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in adversary.discriminator.parameters())


def test_the_discriminator_learns_to_tell_two_clouds_apart_and_the_encoder_to_leave_its_own(adversary):
    adversary, random = adversary(learning_rate=1e-2), seeded()
    latent = torch.full((4, 1, W_DIM), -1.0, requires_grad=True)
    for step in range(60):
        terms = adversary.step(codes(32, step) + 1, codes(32, step + 100) - 1, random)
    assert terms["real"] > 0.5
    assert terms["fake"] < -0.5
    before = adversary.encoder_loss(latent)
    before.backward()
    assert adversary.encoder_loss(latent - latent.grad / latent.grad.norm()) < before


def test_r1_is_taken_at_every_so_manieth_step(adversary):
    adversary, random = adversary(r1_every=3), seeded()
    taken = ["r1" in adversary.step(codes(4), codes(4, 1), random) for _ in range(7)]
    assert taken == [True, False, False, True, False, False, True]


@given(size=st.integers(0, 9), batches=st.lists(st.integers(0, 7), max_size=8), seed=st.integers(0, 99))
def test_a_pool_returns_as_many_vectors_as_it_is_given_and_invents_none(size, batches, seed):
    pool, random, total = LatentCodesPool(size), seeded(seed), 0
    given_so_far = []
    for count in batches:
        new = torch.arange(total, total + count, dtype=torch.float32)[:, None].repeat(1, W_DIM)
        total += count
        given_so_far += new[:, 0].tolist()
        out = pool.query(new, random)
        assert out.shape == new.shape
        assert set(out[:, 0].tolist()) <= set(given_so_far)
        if size:
            assert pool.codes.shape == (min(size, total), W_DIM)
            assert set(pool.codes[:, 0].tolist()) <= set(given_so_far)


def test_a_full_pool_exchanges_about_half_for_former_codes():
    pool, random = LatentCodesPool(100), seeded()
    pool.query(torch.zeros(100, 1), random)
    share = pool.query(torch.ones(100, 1), random).mean().item()
    assert 0.5 < share < 0.75, "half are handed through, and some former ones are new ones of the same batch"


def test_an_empty_pool_hands_everything_through_without_gradients():
    given_codes = codes(5).requires_grad_(True)
    out = LatentCodesPool(0).query(given_codes, seeded())
    assert torch.equal(out, given_codes)
    assert not out.requires_grad


def test_a_resumed_game_goes_on_exactly(adversary, tmp_path):
    def play(player, random, first, last):
        return [player.step(codes(7, n) + 0.3, codes(9, n + 50), random) for n in range(first, last)]

    whole, random = adversary(pool_size=10), seeded()
    expected = play(whole, random, 0, 8)
    stopped, random = adversary(pool_size=10), seeded()
    begun = play(stopped, random, 0, 5)
    torch.save({"game": stopped.state_dict(), "random": random.get_state()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed, random = LatentAdversary(W_DIM, pool_size=10), torch.Generator()
    resumed.load_state_dict(state["game"])
    random.set_state(state["random"])
    assert begun + play(resumed, random, 5, 8) == expected
