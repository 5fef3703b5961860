from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.base import Identity
from generators.errors import LatentMismatch
from invert.latents import load_latent, save_latent
from pretrained.errors import BrokenFile

IDENTITY = Identity("tiny", "0" * 64)


def test_a_w_plus_comes_back_as_it_was(tmp_path, tiny_generator):
    latent = torch.randn(1, tiny_generator.num_ws, tiny_generator.w_dim)
    save_latent(tmp_path / "latent.safetensors", latent, IDENTITY, photo_sha256="ab", crop_from_photo=np.eye(3).tolist())
    saved = load_latent(tmp_path / "latent.safetensors", tiny_generator)
    assert torch.equal(saved.latent, latent)
    assert saved.card["space"] == "w_plus"
    assert saved.card["photo_sha256"] == "ab"
    assert np.array_equal(saved.crop_from_photo, np.eye(3))


def test_paths_may_be_texts_and_the_generator_stands_for_its_identity(tmp_path, tiny_generator):
    path, latent = str(tmp_path / "latent.safetensors"), torch.zeros(1, tiny_generator.num_ws, tiny_generator.w_dim)
    save_latent(path, latent, tiny_generator)
    assert load_latent(path, tiny_generator).generator == tiny_generator.identity


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=12, max_size=12))
def test_a_stylemap_comes_back_in_the_order_of_its_layers(tmp_path_factory, sizes):
    path = tmp_path_factory.mktemp("latent") / "latent.safetensors"
    maps = tuple(torch.full((1, 4, size, size), float(layer)) for layer, size in enumerate(sizes))
    save_latent(path, maps, IDENTITY)
    loaded = load_latent(path)
    assert loaded.card["space"] == "stylemap"
    assert all(torch.equal(a, b) for a, b in zip(loaded.latent, maps, strict=True))


def test_another_generators_latent_is_refused_and_both_are_named(tmp_path, tiny_generator):
    latent = torch.zeros(1, tiny_generator.num_ws, tiny_generator.w_dim)
    save_latent(tmp_path / "latent.safetensors", latent, Identity("other", "f" * 64))
    with pytest.raises(LatentMismatch, match=r"other.*tiny"):
        load_latent(tmp_path / "latent.safetensors", tiny_generator)


def test_a_latent_of_the_wrong_shape_is_refused(tmp_path, tiny_generator):
    save_latent(tmp_path / "latent.safetensors", torch.zeros(1, 3, tiny_generator.w_dim), IDENTITY)
    with pytest.raises(LatentMismatch, match="has 3"):
        load_latent(tmp_path / "latent.safetensors", tiny_generator)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    save_latent(tmp_path / "latent.safetensors", torch.full((1, 2, 4), float("nan")), IDENTITY)
    with pytest.raises(BrokenFile, match="not finite"):
        load_latent(tmp_path / "latent.safetensors")


def test_a_generators_file_is_no_latent(generator_file):
    with pytest.raises(BrokenFile, match="no latent"):
        load_latent(generator_file)
