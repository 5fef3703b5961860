from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encoders.compact import compact_encoder
from encoders.feedback import look_again
from encoders.psp import IRSEEncoder
from encoders.resize import resize
from encoders.restyle import ResNetEncoder, restyle
from encoders.stylemap import StyleMapEncoder
from generators.base import Identity
from generators.errors import LatentMismatch, ToolkitError, UnknownName
from generators.latent import space_of
from generators.stylegan2 import StyleGAN2
from invert.errors import ImageError
from invert.inverters import best_method, choose_method, encoder_beside, invert, load_inverter, method_names
from invert.presets import PRESETS
from invert.tuning import TunedInverter
from pretrained.errors import BrokenFile, ForeignFile
from pretrained.loading import load_encoder, load_generator, save_encoder
from pretrained.psp import ENCODERS
from pretrained.rosinality import generator_to_rosinality


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: (image + 1) * 127.5, r"values from .* to 25.*: expected \[-1, 1\]: to_tensor\(photo\) converts"),
        (lambda image: (image + 1).mul(127.5).to(torch.uint8), "to 25.: expected"),
        (lambda image: image * torch.nan, "from nan to nan"),
        (lambda image: image[0], r"\(3, 300, 300\): expected a batch \(n, 3, h, w\): face.image\[None\]"),
        (lambda image: image.movedim(1, -1), r"\(1, 300, 300, 3\): expected a batch \(n, 3, h, w\)"),
    ],
)
@pytest.mark.parametrize("method", ["encoder", "projector"])
@pytest.mark.usefixtures("no_shape_checks")
def test_what_is_no_batch_in_range_is_refused(tiny_generator, encoder_file, image, cheap_distance, method, change, words):
    name = str(encoder_file) if method == "encoder" else method
    with pytest.raises(ImageError, match=words):
        invert(change(image), tiny_generator, name, steps=1, perceptual=cheap_distance)


def test_a_drawn_face_with_highlights_beyond_the_range_is_inverted(tiny_generator, encoder_file, image):
    image[:, :, :20, :20] = 2.9
    assert invert(image, tiny_generator, str(encoder_file)).image.shape == (1, 3, 256, 256)


def test_the_projector_is_a_method(tiny_generator, image, cheap_distance):
    inversion = load_inverter("projector", tiny_generator, steps=2, perceptual=cheap_distance)(image)
    assert space_of(inversion.latent) == "w_plus"


def test_an_unknown_method_names_close_ones(tiny_generator):
    with pytest.raises(UnknownName, match="did you mean projector"):
        load_inverter("projektor", tiny_generator)


def test_looks_are_for_encoders_and_not_without_end(tiny_generator):
    with pytest.raises(ToolkitError, match="the projector has no encoder: name another method, or leave out the 3 looks"):
        load_inverter("projector", tiny_generator, looks=3)
    for looks in (0, 17):
        with pytest.raises(ToolkitError, match=f"{looks} looks at a face: expected 1 to 16"):
            load_inverter("stylemap", tiny_generator, looks=looks)


def test_the_projector_is_always_among_the_methods():
    assert "projector" in method_names()


def test_an_encoder_of_another_generator_is_refused(tiny_generator, tiny_encoder, tmp_path):
    save_encoder(tmp_path / "other.safetensors", tiny_encoder, replace(Identity(), name="other", sha256="f" * 64))
    with pytest.raises(LatentMismatch, match=r"other.*tiny"):
        load_inverter(str(tmp_path / "other.safetensors"), tiny_generator)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A writer of files as pSp, e4e and ReStyle publish them, for a 16 px generator."""
    for backbone in (IRSEEncoder, ResNetEncoder):
        monkeypatch.setattr(backbone, "units", (1, 1, 1, 1))

    def write(name="GradualStyleEncoder", file="model.pt", num_ws=6, seed=0, opts=True, **arguments):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            generator = StyleGAN2(16, z_dim=16, w_dim=16, mapping_layers=2, channel_base=128, channel_max=16)
            encoder = ENCODERS[name](num_ws, 16, **arguments)
            mean = generator.mapping.w(torch.randn(4096, 16)).mean(0)
        state = {f"decoder.{k}": v for k, v in generator_to_rosinality(generator.state_dict()).items()}
        state |= {f"encoder.{k}": v for k, v in encoder.state_dict().items() if k != "w_avg"}
        entries = {"latent_avg": mean.repeat(num_ws, 1)}
        entries |= {"opts": {"encoder_type": name, "output_size": 16}} if opts else {}
        torch.save({"state_dict": state} | entries, tmp_path / file)
        return tmp_path / file

    return write


def test_a_method_means_the_encoder_in_the_generators_own_file(published, image):
    path = published("Encoder4Editing")
    generator = load_generator(path)
    assert encoder_beside("e4e", generator) == path
    assert encoder_beside(str(path), generator) is None
    inversion = load_inverter("e4e", generator)(image)
    expected = load_encoder(path)(resize(image, 256))
    assert torch.equal(inversion.latent, expected)
    assert torch.equal(inversion.image, generator.synthesis(expected))
    with pytest.raises(ForeignFile, match="Encoder4Editing, which is not one of psp: use the method e4e"):
        load_inverter("psp", generator)


def test_an_encoder_is_given_by_its_file_alone_or_beside_a_method(published, image):
    path = published()
    generator = load_generator(path)
    expected = load_inverter("psp", generator).encode(image)
    assert torch.equal(load_inverter(str(path), generator).encode(image), expected)
    assert torch.equal(load_inverter("psp", generator, encoder=path).encode(image), expected)


def test_auto_takes_the_encoder_that_is_named_and_the_presets_steps(
    tiny_generator, encoder_file, cheap_distance, monkeypatch
):
    monkeypatch.setitem(PRESETS, "best", replace(PRESETS["best"], refine=2, tune=1))
    inverter = load_inverter("auto", tiny_generator, encoder=encoder_file, preset="best", perceptual=cheap_distance)
    assert isinstance(inverter, TunedInverter)
    assert inverter.tuner.steps == 1
    assert (type(inverter.inverter.encoder), inverter.inverter.refiner.steps) == (StyleMapEncoder, 2)


@pytest.mark.parametrize(
    ("name", "method"),
    [("GradualStyleEncoder", "psp"), ("Encoder4Editing", "e4e"), ("ProgressiveBackboneEncoder", "restyle")],
)
def test_auto_takes_the_encoder_in_the_generators_own_file(published, name, method):
    assert best_method(load_generator(published(name))) == method


def test_psps_network_that_also_sees_what_was_drawn_is_restyles_and_looks_five_times(published, image, cheap_distance):
    generator = load_generator(published("GradualStyleEncoder", in_channels=6))
    assert best_method(generator) == "restyle"
    inverter = load_inverter("auto", generator, preset="fast", perceptual=cheap_distance)
    assert load_inverter("psp", generator).encoder.looks == inverter.encoder.looks == 5
    with torch.no_grad():
        expected = list(restyle(inverter.encoder, generator, resize(image, 256), 5))[-1][0]
    assert torch.equal(inverter.encode(image), expected)


@pytest.mark.parametrize("channels", [1, 19])
def test_auto_takes_the_projector_where_the_files_encoder_looks_at_no_photos(published, channels):
    told = []
    generator = load_generator(published(in_channels=channels))
    assert best_method(generator, told.append) == "projector"
    assert told == [
        f"{generator.source}: its encoder looks at sketches or segmentation maps of {channels} channels, not at photos;"
        " the projector takes its place"
    ]


def test_auto_takes_the_projector_where_the_files_encoder_is_an_unknown_one(published, tmp_path):
    file = torch.load(published())
    file["state_dict"] = {name.replace("encoder.", "encoder.new."): value for name, value in file["state_dict"].items()}
    torch.save(file, tmp_path / "new.pt")
    told = []
    assert choose_method(load_generator(tmp_path / "new.pt"), None, told.append) == "projector"
    assert told == [f"{tmp_path / 'new.pt'}: an unknown encoder; the projector takes its place"]


@pytest.mark.parametrize(
    ("name", "methods"), [("GradualStyleEncoder", "psp or e4e"), ("BackboneEncoder", "restyle-psp or restyle-e4e")]
)
def test_auto_does_not_guess_between_encoders_that_are_alike(published, name, methods):
    generator = load_generator(published(name, opts=False))
    with pytest.raises(ForeignFile, match=rf"model\.pt: nothing in it tells .*: use the method {methods}"):
        load_inverter("auto", generator)


@pytest.mark.parametrize("name", ["BackboneEncoder", "ResNetBackboneEncoder"])
def test_restyle_looks_several_times_and_draws_once_a_look(name, published, image):
    generator = load_generator(published(name))
    inverter = load_inverter("restyle", generator, looks=3)
    inversion = inverter(image)
    with torch.no_grad():
        latent, drawn = list(restyle(inverter.encoder, generator, resize(image, 256), 3))[-1]
    assert torch.equal(inversion.latent, latent)
    assert torch.equal(inversion.image, drawn)
    assert not torch.equal(load_inverter("restyle-psp", generator, looks=1).encode(image), latent)


def test_an_encoder_looks_as_often_as_it_is_meant_to_or_as_it_is_told(tiny_generator, tmp_path, image):
    encoder = compact_encoder("stylemap-e", tiny_generator.num_ws, 32, pyramid_channels=(8, 8, 8), width=8, sizes=(2, 4, 1))
    encoder.w_avg.copy_(tiny_generator.w_avg)
    save_encoder(tmp_path / "e.safetensors", encoder, tiny_generator.identity)
    face = resize(image, 256)
    for looks, expected in ((None, 3), (1, 1), (2, 2)):
        inverter = load_inverter(str(tmp_path / "e.safetensors"), tiny_generator, looks=looks)
        seen = list(look_again(inverter.encoder, tiny_generator, face, expected))
        inversion = inverter(image)
        torch.testing.assert_close(inversion.image, seen[-1][1])
        for latent, of_look in ((inversion.latent, -1), (inverter.encode(image), -1 if looks else 0)):
            assert all(torch.equal(a, b) for a, b in zip(latent, seen[of_look][0], strict=True))


def test_a_compact_restyle_encoder_inverts_too(tiny_generator, tmp_path, image):
    encoder = compact_encoder("restyle", tiny_generator.num_ws, 32, pyramid_channels=(8, 8, 8), width=8)
    save_encoder(tmp_path / "r.safetensors", encoder, tiny_generator.identity)
    inversion = load_inverter(str(tmp_path / "r.safetensors"), tiny_generator)(image)
    assert inversion.latent.shape == (1, tiny_generator.num_ws, 32)


def test_an_encoder_serves_its_generator_in_another_format(published, tmp_path, image):
    path = published()
    generator = load_generator(path)
    torch.save({"g_ema": generator_to_rosinality(generator.state_dict())}, tmp_path / "g.pt")  # Its mean of W is drawn anew.
    other = load_generator(tmp_path / "g.pt")
    assert torch.equal(
        load_inverter("psp", other, encoder=path).encode(image), load_inverter("psp", generator).encode(image)
    )


def test_an_encoder_of_another_w_is_refused(published):
    first, second = published(file="a.pt"), published(file="b.pt", seed=1)
    with pytest.raises(LatentMismatch, match=r"was trained for the generator b .*, not for a "):
        load_inverter("psp", load_generator(first), encoder=second)


def test_an_encoder_with_other_layers_is_refused_in_words(published, tiny_generator):
    path = published()
    with pytest.raises(LatentMismatch, match=r"gives 6 styles of 16, and the generator tiny .* takes 12 of 32"):
        load_inverter("psp", tiny_generator, encoder=path)


def test_an_encoder_of_sketches_is_refused(published):
    path = published(in_channels=1)
    with pytest.raises(LatentMismatch, match="sketches or segmentation maps of 1 channels"):
        load_inverter("psp", load_generator(path))


def test_a_method_without_an_encoder_asks_for_its_file(tiny_generator, monkeypatch):
    monkeypatch.setattr("invert.inverters.encoder_names", dict)
    with pytest.raises(ToolkitError, match="no encoder for the method e4e ships: give the file of one with --encoder"):
        load_inverter("e4e", tiny_generator)


def test_the_projector_takes_no_encoder(tiny_generator, encoder_file):
    with pytest.raises(ToolkitError, match="the projector has no encoder"):
        load_inverter("projector", tiny_generator, encoder=encoder_file)


def test_a_file_without_an_encoder_is_refused(tiny_generator, published, tmp_path):
    torch.save({"g_ema": {"to_rgb1.conv.weight": torch.zeros(1)}}, tmp_path / "g.pt")
    with pytest.raises(BrokenFile, match="no encoder in it, but g_ema"):
        load_inverter(str(tmp_path / "g.pt"), tiny_generator)
