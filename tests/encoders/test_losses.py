"""Do the terms on codes say what they mean?"""

from __future__ import annotations

import pytest
import torch

from encoders.training.losses import code_error, delta_norm, edit_error, roughness


def maps(*sizes, batch=2, w_dim=3):
    random = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, w_dim, size, size, generator=random) for size in sizes)


def test_the_code_error_is_the_mean_square_over_layers():
    a, b = torch.zeros(2, 4, 3), torch.zeros(2, 4, 3)
    b[1, 0] = 2
    torch.testing.assert_close(code_error(a, b), torch.tensor([0.0, 1.0]))


def test_a_w_plus_is_the_target_of_every_pixel():
    codes = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(1))
    latent = tuple(codes[:, layer, :, None, None].expand(-1, -1, 4, 4) for layer in range(2))
    assert code_error(latent, codes).max() == 0
    latent = (latent[0] + 1, latent[1])
    torch.testing.assert_close(code_error(latent, codes), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(("ours", "theirs"), [(2, 8), (4, 4), (8, 2)])
def test_maps_of_other_sizes_are_compared_at_ours(ours, theirs):
    flat = tuple(m.mean((2, 3), keepdim=True).expand(-1, -1, theirs, theirs) for m in maps(1, 1))
    latent = tuple(m.mean((2, 3), keepdim=True).expand(-1, -1, ours, ours) for m in flat)
    assert code_error(latent, flat).max() < 1e-10


def test_an_edit_that_is_missed_by_its_whole_length_has_an_error_of_1():
    edits = torch.zeros(2, 4, 3)
    edits[0, :, 0], edits[1, 1:3, 1] = 2.0, 5.0  # At right angles; the second is for two layers alone.
    codes = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(2))
    moved = torch.stack([codes[0] + edits[0], codes[1] - 0.5 * edits[1]])
    torch.testing.assert_close(edit_error(moved, codes, edits), torch.tensor([0.5, 0.125]))
    elsewhere = codes + torch.tensor([0.0, 0.0, 7.0])
    assert edit_error(elsewhere, codes, edits).max() < 1e-8, "what no edit moves does not count"


def test_an_edit_of_a_stylemap_is_told_by_its_mean_styles():
    latent, edits = maps(4, 2), torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(4))
    moved = tuple(m + edits[1, k][:, None, None] for k, m in enumerate(latent))
    vectors = torch.stack([m.mean((2, 3)) for m in latent], 1)
    torch.testing.assert_close(edit_error(moved, latent, edits), edit_error(vectors + edits[1], vectors, edits))
    assert edit_error(moved, latent, edits).min() > 0.3


def test_the_delta_norm_is_0_for_one_style_and_sees_only_means():
    one = maps(4)[0]
    assert delta_norm((one, one.flip(3), one.mean((2, 3), keepdim=True))).max() < 1e-10
    torch.testing.assert_close(delta_norm((one, one + 2)), torch.tensor([4.0, 4.0]))


def test_the_delta_norm_squares_what_the_paper_sums_the_lengths_of():
    styles = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(5))
    lengths = (styles[:, 1:] - styles[:, :1]).norm(dim=2)  # The paper's term is their sum over layers.
    torch.testing.assert_close(delta_norm(styles), lengths.square().mean(1) / 3)
    one, d = torch.zeros(2, 9, 3), torch.tensor([2.0, 1.0, 2.0])
    one[:, 1:] = d
    torch.testing.assert_close(delta_norm(one), d.norm().square().expand(2) / 3)
    torch.testing.assert_close(delta_norm(one[:, :2]), delta_norm(one), msg="for any number of layers")
    torch.testing.assert_close(delta_norm(2 * one), 4 * delta_norm(one))


def test_roughness_is_the_variance_inside_the_maps():
    assert roughness(maps(1, 1)).max() == 0
    m = maps(6)[0]
    torch.testing.assert_close(roughness((m,)), m.var((2, 3), unbiased=False).mean(1))
    torch.testing.assert_close(roughness((m + 5,)), roughness((m,)), rtol=1e-4, atol=1e-5)


def test_no_faces_give_no_values():
    empty = torch.zeros(0, 4, 3)
    assert edit_error(empty, empty, torch.ones(1, 4, 3)).shape == (0,)
    assert code_error(empty, empty).shape == delta_norm(empty).shape == roughness(empty).shape == (0,)
