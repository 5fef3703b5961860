"""Do photos, saved latents and seeds all become codes, and is what is none of these refused in words?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from generators.base import Identity
from generators.errors import LatentMismatch
from generators.latent import as_stylemaps
from invert.errors import NoFaceFound, PhotoError
from invert.inverters import EncoderInverter
from invert.latents import save_latent
from invert.photo import demo_photo
from invert.sources import SourceError, read_sources, sample, seeds_of


@pytest.fixture
def read(tiny_generator, tiny_encoder):
    def call(*texts, **options):
        return read_sources(texts, tiny_generator, lambda: EncoderInverter(tiny_encoder, tiny_generator), **options)

    return call


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("seed:42", [42]), ("seed:1,2,5", [1, 2, 5]), ("seed:1-4", [1, 2, 3, 4]), ("seed: 0 , 7-8", [0, 7, 8])],
)
def test_seeds_are_read_as_typed(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["seed:", "seed:a", "seed:-1", "seed:1.5", "seed:4-1", "seed:0-999999", "seed:1,,2"])
def test_what_is_no_seed_is_refused(text):
    with pytest.raises(SourceError, match="seed"):
        seeds_of(text)


def test_a_seed_gives_the_face_that_nvidias_scripts_give(tiny_generator):
    z = torch.from_numpy(np.random.RandomState(5).randn(1, 32)).float()
    source = sample(tiny_generator, 5, truncation_psi=1.0)
    assert torch.equal(source.z, z)
    assert torch.equal(source.latent, tiny_generator.mapping(z))


def test_faces_come_in_the_order_given(read):
    assert [source.name for source in read("seed:3,1", str(demo_photo()), "seed:2")] == [
        "seed 3",
        "seed 1",
        "astronaut",
        "seed 2",
    ]


def test_a_folder_gives_its_photos(read, tmp_path, astronaut):
    for name in ("b.png", "a.png"):
        Image.fromarray(astronaut).save(tmp_path / name)
    assert [source.name for source in read(str(tmp_path))] == ["a", "b"]


def test_a_saved_latent_comes_back_and_is_named_by_its_folder(read, tiny_generator, tmp_path):
    code = sample(tiny_generator, 1).latent
    save_latent(tmp_path / "anna" / "latent.safetensors", code, tiny_generator.identity)
    (source,) = read(str(tmp_path / "anna" / "latent.safetensors"))
    assert source.name == "anna"
    assert torch.equal(source.latent, code)


def test_a_file_of_several_codes_gives_as_many_faces(read, tiny_generator, tmp_path):
    maps = as_stylemaps(torch.cat([sample(tiny_generator, seed).latent for seed in (1, 2)]))
    save_latent(tmp_path / "two.safetensors", maps, tiny_generator.identity)
    assert [source.name for source in read(str(tmp_path / "two.safetensors"))] == ["two 0", "two 1"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_codes_that_others_have_found_are_faces_each(read, tiny_generator, tmp_path, suffix):
    w_plus = torch.cat([sample(tiny_generator, seed).latent for seed in (1, 2)])
    for name, codes in (("plus", w_plus), ("w", w_plus[:, 0])):
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".pt":
            torch.save(codes, path)
        else:
            np.save(path, codes.numpy()) if suffix == ".npy" else np.savez(path, w=codes.numpy())
        sources = read(str(path))
        assert [source.name for source in sources] == [f"{name} 0", f"{name} 1"]
        assert torch.equal(torch.cat([source.latent for source in sources]), w_plus)


def test_a_projection_is_named_by_its_folder(read, tiny_generator, tmp_path):
    (tmp_path / "ben").mkdir()
    np.savez(tmp_path / "ben/projected_w.npz", w=sample(tiny_generator, 1).latent.numpy())
    assert [source.name for source in read(str(tmp_path / "ben/projected_w.npz"))] == ["ben"]


def test_a_latent_of_another_generator_is_refused_and_both_are_named(read, tiny_generator, tmp_path):
    save_latent(tmp_path / "latent.safetensors", sample(tiny_generator, 1).latent, Identity("other", "f" * 64))
    with pytest.raises(LatentMismatch, match=r"other .*tiny"):
        read(str(tmp_path / "latent.safetensors"))


@pytest.mark.parametrize("rows", [8, 14, 18])
def test_rows_of_styles_that_may_be_one_code_of_another_generator_are_no_faces(read, tmp_path, rows):
    np.save(tmp_path / "code.npy", np.zeros((rows, 32), np.float32))
    with pytest.raises(LatentMismatch, match=rf"of W\+, of a generator of {rows} layers, .* \(1, {rows}, 32\)"):
        read(str(tmp_path / "code.npy"))
    np.save(tmp_path / "faces.npy", np.zeros((9, 32), np.float32))
    assert len(read(str(tmp_path / "faces.npy"))) == 9


def test_a_missing_file_is_named(read, tmp_path):
    for name in ("latent.safetensors", "w.npz", "photo.jpg"):
        with pytest.raises(PhotoError, match=rf"{name}: no such file"):
            read(str(tmp_path / name))


def test_a_photo_without_a_face_is_refused_unless_it_is_said_to_be_one(read, tmp_path):
    Image.new("RGB", (200, 200), "gray").save(tmp_path / "wall.png")
    with pytest.raises(NoFaceFound):
        read(str(tmp_path / "wall.png"))
    assert read(str(tmp_path / "wall.png"), is_aligned=True)[0].name == "wall"


def test_no_inverter_is_loaded_where_there_is_no_photo(tiny_generator):
    def refuse():
        pytest.fail("nothing to invert")

    assert len(read_sources(["seed:1-3"], tiny_generator, refuse)) == 3
