from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generators.base import Identity
from generators.errors import LatentMismatch, UnknownName
from generators.latent import space_of
from invert.inverters import invert, load_inverter, method_names


@pytest.fixture
def image():
    return torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_an_encoder_from_a_file_inverts_any_size(tiny_generator, encoder_file, image):
    inversion = invert(image, tiny_generator, str(encoder_file))
    assert space_of(inversion.latent) == "stylemap"
    assert inversion.image.shape == (1, 3, 256, 256)
    assert inversion.history == []


def test_refinement_starts_from_the_encoders_code(tiny_generator, encoder_file, image, cheap_distance):
    inverter = load_inverter(str(encoder_file), tiny_generator, refine=3, perceptual=cheap_distance)
    inversion = inverter(image)
    plain = invert(image, tiny_generator, str(encoder_file))
    assert space_of(inversion.latent) == "stylemap"
    assert len(inversion.history) == 4
    assert (plain.latent[0] - inversion.latent[0]).abs().max() < 1


def test_the_projector_is_a_method(tiny_generator, image, cheap_distance):
    inversion = load_inverter("projector", tiny_generator, steps=2, perceptual=cheap_distance)(image)
    assert space_of(inversion.latent) == "w_plus"


def test_an_unknown_method_names_close_ones(tiny_generator):
    with pytest.raises(UnknownName, match="did you mean projector"):
        load_inverter("projektor", tiny_generator)


def test_the_projector_is_always_among_the_methods():
    assert "projector" in method_names()


def test_an_encoder_of_another_generator_is_refused(tiny_generator, tiny_encoder, tmp_path):
    from pretrained.loading import save_encoder

    save_encoder(tmp_path / "other.safetensors", tiny_encoder, replace(Identity(), name="other", sha256="f" * 64))
    with pytest.raises(LatentMismatch, match=r"other.*tiny"):
        load_inverter(str(tmp_path / "other.safetensors"), tiny_generator)
