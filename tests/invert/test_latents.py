from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.base import Identity
from generators.errors import LatentMismatch
from invert.latents import load_latent, read_latents, save_latent
from pretrained import safetensors
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


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors"])
@pytest.mark.parametrize("per_layer", [False, True])
def test_latents_are_read_from_any_kind_of_file(tiny_generator, tmp_path, suffix, per_layer):
    shape = (7, tiny_generator.num_ws, tiny_generator.w_dim) if per_layer else (7, tiny_generator.w_dim)
    codes, path = torch.randn(shape), tmp_path / f"codes{suffix}"
    if suffix == ".npy":
        np.save(path, codes.numpy())
    elif suffix == ".npz":
        np.savez(path, codes=codes.numpy())
    elif suffix == ".pt":
        torch.save(codes, path)
    else:
        safetensors.save(path, {"codes": codes}, {})
    assert torch.equal(read_latents(path, tiny_generator), codes)


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        (np.ones((7, 5)), LatentMismatch, r"styles 5 wide: .* takes \(n, 32\) or"),
        (np.ones((7, 18, 32)), LatentMismatch, "made for a generator of 18 layers: .*; add --generator"),
        (np.ones(32), BrokenFile, "expected latents of shape"),
        (np.ones((0, 32)), BrokenFile, "expected latents of shape"),
        (np.ones((12, 32)), LatentMismatch, r"one code of W\+ or 12 of W: save code\[None\]"),
        (np.full((7, 32), np.nan), BrokenFile, "not finite"),
        (np.ones((7, 32), int), BrokenFile, "floating-point"),
    ],
)
def test_latents_that_do_not_fit_are_refused(tiny_generator, tmp_path, codes, error, message):
    np.save(tmp_path / "codes.npy", codes)
    with pytest.raises(error, match=message):
        read_latents(tmp_path / "codes.npy", tiny_generator)


def test_a_missing_file_of_latents_is_named(tiny_generator, tmp_path):
    with pytest.raises(BrokenFile, match=r"codes\.npy"):
        read_latents(tmp_path / "codes.npy", tiny_generator)


def test_of_several_arrays_the_projectors_is_read(tiny_generator, tmp_path):
    code = np.random.default_rng(0).normal(size=(1, tiny_generator.num_ws, tiny_generator.w_dim)).astype(np.float32)
    np.savez(tmp_path / "projected_w.npz", w=code, loss=np.ones(3))
    assert np.array_equal(read_latents(tmp_path / "projected_w.npz", tiny_generator).numpy(), code)
    torch.save({"g_ema": {}, "g": {}}, tmp_path / "generator.pt")
    with pytest.raises(BrokenFile, match="a file of g_ema, g, expected one array or tensor, or one that is named w"):
        read_latents(tmp_path / "generator.pt", tiny_generator)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_code_in_a_file_of_latents_never_runs(tiny_generator, tmp_path, suffix):
    path, objects = tmp_path / f"codes{suffix}", np.array([_Bomb(tmp_path / "exploded")], dtype=object)
    if suffix == ".pt":
        torch.save(objects, path)
    else:
        (np.save if suffix == ".npy" else np.savez)(path, objects)
    with pytest.raises(BrokenFile, match="codes"):
        read_latents(path, tiny_generator)
    assert not (tmp_path / "exploded").exists()


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
