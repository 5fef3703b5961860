from __future__ import annotations

from pathlib import Path

import pytest
import torch

from invert.inversion import Inversion
from invert.inverters import load_inverter
from invert.pipeline import FACES_AT_ONCE, Recipe, Tools, invert_in_parts, process_photo, unique_stems


@pytest.fixture
def tools(tiny_generator, encoder_file, cheap_distance):
    return Tools(tiny_generator, load_inverter(str(encoder_file), tiny_generator), cheap_distance)


def test_many_faces_are_inverted_a_few_at_a_time(tools):
    sizes = []

    def watched(images):
        sizes.append(len(images))
        return tools.inverter(images)

    images = torch.rand(FACES_AT_ONCE + 1, 3, 256, 256) * 2 - 1
    together = invert_in_parts(images, watched)
    assert sizes == [FACES_AT_ONCE, 1]
    alone = tools.inverter(images[-1:])
    torch.testing.assert_close(together.latent[0][-1:], alone.latent[0])
    assert together.image.shape[0] == len(images)


def test_an_interruption_of_one_part_marks_the_whole(tiny_generator):
    def stopped(images):
        n = len(images)
        return Inversion(torch.zeros(n, 2, 3), images, [{"loss": 1.0}], interrupted=n == 1)

    whole = invert_in_parts(torch.zeros(FACES_AT_ONCE + 1, 3, 8, 8), stopped)
    assert whole.interrupted
    assert len(whole.history) == 2


def test_names_of_results_never_collide():
    stems = unique_stems([Path(p) for p in ("a/me.jpg", "b/me.png", "me_2.jpg", "c/me.jpg", "-")])
    assert len(set(stems)) == 5
    assert stems[0] == "me"
    assert stems[-1] == "stdin"


def test_a_new_run_leaves_no_edited_picture_of_the_old_one(tools, tmp_path):
    from invert.photo import demo_photo

    (tmp_path / "astronaut").mkdir()
    (tmp_path / "astronaut/edited.png").write_bytes(b"old")
    process_photo(demo_photo(), tmp_path, tools, Recipe())
    assert not (tmp_path / "astronaut/edited.png").exists()
