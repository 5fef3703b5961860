"""Shared by the tests of the user's side: a cheap distance, a photo with a face, and networks as files."""

from __future__ import annotations

import pytest


@pytest.fixture
def cheap_distance():
    """Stands in for LPIPS, which cannot be had without its weights."""
    from invert.perceptual import Perceptual

    return Perceptual("mean absolute difference", lambda a, b: (a - b).abs().mean((1, 2, 3)))


@pytest.fixture
def set_launcher_variables(monkeypatch):
    """Let a test find those variables of torchrun that it gives, and no others."""

    def set_variables(given):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.fixture(scope="session")
def astronaut():
    """A public-domain photo with one face, inside the scikit-image package."""
    from invert.photo import demo_photo, read_photo

    return read_photo(demo_photo())


@pytest.fixture
def generator_file(tiny_generator, tmp_path):
    """The tiny generator as a file."""
    from pretrained import safetensors

    path = tmp_path / "tiny.safetensors"
    safetensors.save(path, tiny_generator.state_dict(), {"name": "tiny", "source_sha256": "0" * 64})
    return path


@pytest.fixture
def encoder_file(tiny_encoder, tiny_generator, tmp_path):
    """The tiny encoder as a file, as training writes it."""
    from pretrained.loading import save_encoder

    path = tmp_path / "tiny-encoder.safetensors"
    save_encoder(path, tiny_encoder, tiny_generator.identity)
    return path


@pytest.fixture
def wider(tiny_generator, tmp_path):
    """The file of a direction that adds 2 to the second entry of each style."""
    import torch

    from editing.directions import Direction
    from pretrained.directions import save_direction

    vector = torch.zeros(tiny_generator.w_dim)
    vector[1] = 2
    save_direction(tmp_path / "wider.safetensors", Direction.of("wider", vector, tiny_generator.identity))
    return str(tmp_path / "wider.safetensors")
