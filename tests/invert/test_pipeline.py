from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from editing.composition import parse_edits
from invert.inversion import Inversion
from invert.inverters import load_inverter
from invert.pipeline import (
    FACES_AT_ONCE,
    Recipe,
    earlier_reports,
    folder_names,
    invert_faces,
    process_photo,
    unique_stems,
)
from invert.tools import Tools
from invert.tuning import TunedInverter, Tuner
from pretrained.directions import load_direction


@pytest.fixture
def tools(tiny_generator, encoder_file, cheap_distance):
    return Tools(tiny_generator, load_inverter(str(encoder_file), tiny_generator), cheap_distance)


def test_many_faces_are_inverted_a_few_at_a_time(tools):
    sizes = []

    def watched(images):
        sizes.append(len(images))
        return tools.inverter(images)

    images = torch.rand(FACES_AT_ONCE + 1, 3, 256, 256) * 2 - 1
    found = invert_faces(images, watched)
    assert sizes == [FACES_AT_ONCE, 1]
    assert len(found) == len(images)
    for face, image in zip(found, images, strict=True):
        torch.testing.assert_close(face.latent[0], tools.inverter(image[None]).latent[0], rtol=1e-4, atol=1e-4)
        assert face.image.shape[0] == 1


def test_each_face_keeps_its_own_history_and_whether_it_was_interrupted(tiny_generator):
    def stopped(images):
        n = len(images)
        return Inversion(torch.zeros(n, 2, 3), images, [{"loss": float(n)}], interrupted=n == 1)

    found = invert_faces(torch.zeros(FACES_AT_ONCE + 1, 3, 8, 8), stopped)
    assert [face.interrupted for face in found] == [False] * FACES_AT_ONCE + [True]
    assert found[0].history == [{"loss": float(FACES_AT_ONCE)}]


def test_a_tuned_generator_is_written_beside_its_face_and_draws_it_again(tools, tiny_generator, tmp_path, wider):
    from invert.latents import load_latent
    from invert.photo import demo_photo, read_photo, to_uint8
    from pretrained.loading import load_generator

    tuned = replace(
        tools,
        inverter=TunedInverter(tools.inverter, Tuner(tiny_generator, tools.perceptual, steps=3, learning_rate=3e-3)),
        directions={wider: load_direction(wider)},
    )
    (report,) = process_photo(demo_photo(), tmp_path, tuned, Recipe(edits=tuple(parse_edits([f"{wider}=2"]))))
    folder = Path(report["folder"])
    again = load_generator(folder / "generator.safetensors")
    assert again.identity == tiny_generator.identity, "codes and directions stay good for it"
    latent = load_latent(folder / "latent.safetensors", again).latent
    drawn = to_uint8(again.synthesis(latent)[0])
    shown = read_photo(folder / "inverted.png")
    assert np.abs(drawn.astype(int) - shown.astype(int)).max() <= 3, "but for float16"
    assert np.abs(to_uint8(tiny_generator.synthesis(latent)[0]).astype(int) - shown.astype(int)).max() > 3
    edited = to_uint8(again.synthesis(tuple(style + 2 * unit(style) for style in latent))[0])
    assert np.abs(edited.astype(int) - read_photo(folder / "edited.png").astype(int)).max() <= 3
    process_photo(demo_photo(), tmp_path, tools, Recipe())
    assert not (folder / "generator.safetensors").exists(), "the new result was drawn by the generator that it was"


def unit(style):
    """Return the direction ``wider`` at strength 1, for one map."""
    vector = torch.zeros(style.shape[1])
    vector[1] = 2
    return vector[:, None, None]


STEMS = st.from_regex(r"[aA](-[01]|-01|_2|_2-1){0,2}", fullmatch=True)


@given(st.lists(st.tuples(STEMS, st.integers(1, 3))))
def test_no_two_faces_share_a_folder(photos):
    stems = unique_stems([stem for stem, _ in photos], several_faces=True)
    faces = [name.lower() for stem, (_, count) in zip(stems, photos, strict=True) for name in folder_names(stem, count)]
    assert len(set(faces)) == len(faces)


@given(st.lists(STEMS, unique_by=str.lower))
def test_photos_of_different_names_keep_them_where_each_has_one_face(stems):
    assert unique_stems(stems) == stems


def test_photos_of_one_name_are_numbered():
    assert unique_stems(["me", "Me", "me_2", "me", "you"]) == ["me", "Me_2", "me_2_2", "me_3", "you"]


def test_a_new_run_leaves_no_edited_picture_of_the_old_one(tools, tmp_path):
    from invert.photo import demo_photo

    (tmp_path / "astronaut").mkdir()
    (tmp_path / "astronaut/edited.png").write_bytes(b"old")
    process_photo(demo_photo(), tmp_path, tools, Recipe())
    assert not (tmp_path / "astronaut/edited.png").exists()


def test_what_was_done_is_found_by_the_same_arguments_paths_or_text(tools, tmp_path):
    from invert.photo import demo_photo

    reports = process_photo(str(demo_photo()), str(tmp_path), tools, Recipe())
    assert earlier_reports(str(demo_photo()), str(tmp_path), tools, Recipe()) == reports
    assert earlier_reports(demo_photo(), tmp_path, tools, Recipe()) == reports
    assert earlier_reports("-", str(tmp_path), tools, Recipe(), "astronaut") == []
