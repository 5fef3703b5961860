from __future__ import annotations

import pytest
import torch

from generators.errors import LatentMismatch, UnknownName
from generators.latent import as_stylemaps
from invert.projector import LEARNING_RATES, Projector


def faces(generator, count=2):
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return generator.synthesis(generator.mapping(z)).clamp(-1, 1)


@pytest.mark.parametrize("space", ["w", "w_plus"])
def test_projection_comes_closer_to_the_image(tiny_generator, cheap_distance, space):
    inversion = Projector(tiny_generator, cheap_distance, space, steps=40, learning_rate=0.05)(faces(tiny_generator))
    assert inversion.latent.shape == (2, tiny_generator.num_ws, tiny_generator.w_dim)
    assert min(row["loss"] for row in inversion.history) < 0.8 * inversion.history[0]["loss"]


def test_projection_into_w_repeats_one_vector(tiny_generator, cheap_distance):
    latent = Projector(tiny_generator, cheap_distance, "w", steps=3)(faces(tiny_generator)).latent
    assert torch.equal(latent, latent[:, :1].expand_as(latent))


def test_more_steps_never_give_a_worse_result_than_the_start(tiny_generator, cheap_distance):
    target = faces(tiny_generator)
    # A rate at which the optimiser only runs away: what is kept must be the start itself.
    inversion = Projector(tiny_generator, cheap_distance, steps=5, learning_rate=100.0)(target)
    start = tiny_generator.w_avg.expand_as(inversion.latent)
    drawn = [tiny_generator.synthesis(latent) for latent in (inversion.latent, start)]
    kept, begun = ((image - target).square().mean() + 0.8 * (image - target).abs().mean() for image in drawn)
    assert kept <= begun + 1e-3


def test_each_face_of_a_batch_is_projected_as_if_alone(tiny_generator, cheap_distance):
    target = faces(tiny_generator)
    together = Projector(tiny_generator, cheap_distance, steps=4)(target)
    alone = Projector(tiny_generator, cheap_distance, steps=4)(target[1:])
    torch.testing.assert_close(together.latent[1:], alone.latent, rtol=1e-3, atol=1e-3)


def test_a_start_with_maps_stays_a_stylemap(tiny_generator, tiny_encoder, cheap_distance):
    target = faces(tiny_generator)
    with torch.no_grad():
        start = tiny_encoder(target)
    inversion = Projector(tiny_generator, cheap_distance, "stylemap", steps=3)(target, start=start)
    assert [style.shape for style in inversion.latent] == [style.shape for style in start]
    assert any(not torch.equal(a, b) for a, b in zip(inversion.latent, start, strict=True))


def test_no_steps_keep_the_start(tiny_generator, cheap_distance):
    target = faces(tiny_generator)
    start = tiny_generator.w_avg.repeat(2, tiny_generator.num_ws, 1) + 0.1
    assert torch.equal(Projector(tiny_generator, cheap_distance, steps=0)(target, start=start).latent, start)


def test_ctrl_c_keeps_the_best_code_so_far(tiny_generator, cheap_distance):
    def stop_at_three(step, terms):
        if step == 3:
            raise KeyboardInterrupt

    inversion = Projector(tiny_generator, cheap_distance, steps=50, on_step=stop_at_three)(faces(tiny_generator))
    assert inversion.interrupted
    assert len(inversion.history) == 4
    assert not torch.equal(inversion.latent, tiny_generator.w_avg.expand_as(inversion.latent))


@pytest.mark.parametrize("space", ["w", "w_plus"])
def test_the_pull_to_the_mean_keeps_codes_nearer(space, tiny_generator, cheap_distance):
    free, held = (
        Projector(tiny_generator, cheap_distance, space, steps=15, w_avg_weight=weight)(faces(tiny_generator)).latent
        for weight in (0.0, 10.0)
    )
    assert (held - tiny_generator.w_avg).norm() < (free - tiny_generator.w_avg).norm()


def test_the_history_names_every_term(tiny_generator, cheap_distance):
    rows = []
    inversion = Projector(tiny_generator, cheap_distance, steps=2, on_step=lambda step, row: rows.append((step, row)))(
        faces(tiny_generator)
    )
    assert [step for step, _ in rows] == [0, 1, 2]
    assert inversion.history == [row for _, row in rows]
    assert set(rows[0][1]) == {"loss", "mse", "perceptual", "w_avg"}


def test_an_unknown_space_names_the_known_ones(tiny_generator, cheap_distance):
    with pytest.raises(UnknownName, match="did you mean w_plus"):
        Projector(tiny_generator, cheap_distance, "wplus")


def test_maps_without_a_start_are_refused(tiny_generator, cheap_distance):
    with pytest.raises(LatentMismatch, match="start"):
        Projector(tiny_generator, cheap_distance, "stylemap", steps=1)(faces(tiny_generator))


def test_maps_move_more_slowly_than_vectors():
    assert 2 * LEARNING_RATES["stylemap"] < min(LEARNING_RATES["w"], LEARNING_RATES["w_plus"])


def test_steps_are_as_long_as_w_is_wide(tiny_generator, cheap_distance):
    spread, axes = tiny_generator.w_axes()
    latent = Projector(tiny_generator, cheap_distance, "w", steps=1)(faces(tiny_generator, 1)).latent
    along = (latent[0, 0] - tiny_generator.w_avg) @ axes.T / spread
    assert 0 < along.abs().max() < 10 * LEARNING_RATES["w"]


def test_the_input_codes_are_left_alone(tiny_generator, cheap_distance):
    start = tiny_generator.w_avg.repeat(2, tiny_generator.num_ws, 1)
    before = start.clone()
    Projector(tiny_generator, cheap_distance, steps=2)(faces(tiny_generator), start=start)
    assert torch.equal(start, before)
    assert not any(style.requires_grad for style in as_stylemaps(start))


def test_fine_layers_move_less_than_coarse_ones(tiny_generator, cheap_distance):
    target = faces(tiny_generator)
    moved = Projector(tiny_generator, cheap_distance, steps=3, fine_rate=0.1)(target).latent - tiny_generator.w_avg
    lengths = moved.norm(dim=2).mean(0)
    assert lengths[9:].max() < 0.1 * lengths[:7].min()


def test_the_variance_of_w_is_measured_once_for_many_calls(tiny_generator, cheap_distance, monkeypatch):
    calls, measure = [], type(tiny_generator).w_variance
    monkeypatch.setattr(type(tiny_generator), "w_variance", lambda self: calls.append(1) or measure(self))
    projector = Projector(tiny_generator, cheap_distance, steps=1)
    for _ in range(3):
        projector(faces(tiny_generator, 1))
    assert len(calls) == 1
