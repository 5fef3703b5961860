"""Is what was drawn and scored kept, gone on with, and never taken for something else?"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import invert.samples
from editing.errors import TrainingDataError
from generators.base import Identity
from generators.errors import ToolkitError
from generators.stylegan1 import StyleGAN1
from generators.stylegan2 import StyleGAN2
from generators.stylegan3 import StyleGAN3
from invert.attributes import VERSION
from invert.errors import NoFaceFound, OutputError
from invert.samples import Samples, face_file, read_face, sample_codes, sample_folder, sample_w_plus
from pretrained.errors import BrokenFile

COUNT = 12


def brightness(reading) -> float:
    return float(reading.face.mean())


def test_a_folder_that_cannot_be_written_is_told_in_words(tiny_generator, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written: .*; choose another folder"):
        sample_folder(tmp_path / "file/samples", tiny_generator, COUNT, scorers=None)


def test_a_second_call_draws_and_scores_nothing(tiny_generator, tmp_path):
    first = sample_folder(tmp_path, tiny_generator, COUNT, scorers={"brightness": brightness})

    def never(*_):
        pytest.fail("drawn or scored again")

    second = sample_folder(tmp_path, tiny_generator, COUNT, scorers={"brightness": never}, draw=never)
    assert torch.equal(first.codes, second.codes)
    torch.testing.assert_close(first.scores["brightness"], second.scores["brightness"])
    assert first.codes.shape == (COUNT, tiny_generator.num_ws, tiny_generator.w_dim)


def test_a_call_that_was_stopped_goes_on(tiny_generator, tmp_path, monkeypatch):
    monkeypatch.setattr(invert.samples, "_SCORES_AT_ONCE", 2)
    whole = sample_folder(tmp_path / "whole", tiny_generator, COUNT, scorers={"brightness": brightness})
    left = 5

    def stops(reading):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return brightness(reading)

    with pytest.raises(KeyboardInterrupt):
        sample_folder(tmp_path / "part", tiny_generator, COUNT, scorers={"brightness": stops})
    face_file(tmp_path / "part", 3).unlink()
    seen = []
    went_on = sample_folder(
        tmp_path / "part",
        tiny_generator,
        COUNT,
        scorers={"brightness": brightness},
        progress=lambda *said: seen.append(said),
    )
    torch.testing.assert_close(went_on.scores["brightness"], whole.scores["brightness"])
    assert seen == [("drawing faces", COUNT, COUNT)] + [("scoring faces", k, COUNT) for k in range(5, COUNT + 1)]


def test_faces_that_were_not_found_stay_unknown(tiny_generator, tmp_path):
    def no_face(reading):
        raise NoFaceFound("none")

    for _ in range(2):
        scores = sample_folder(tmp_path, tiny_generator, 4, scorers={"smile": no_face}).scores["smile"]
        assert scores.isnan().all()


def test_scores_of_other_attributes_or_older_scorers_are_made_anew(tiny_generator, tmp_path, monkeypatch):
    sample_folder(tmp_path, tiny_generator, 4, scorers={"brightness": brightness})
    both = {"brightness": brightness, "red": lambda reading: 1.0}
    assert sample_folder(tmp_path, tiny_generator, 4, scorers=both).scores["red"].tolist() == [1.0] * 4
    monkeypatch.setattr(invert.samples, "VERSION", 99)
    scores = sample_folder(tmp_path, tiny_generator, 4, scorers={"brightness": lambda reading: 7.0}).scores
    assert scores["brightness"].tolist() == [7.0] * 4


@pytest.mark.parametrize("change", [{"count": 5}, {"seed": 1}])
def test_samples_of_another_kind_are_not_mixed(tiny_generator, tmp_path, change):
    sample_folder(tmp_path, tiny_generator, 4, 0, scorers=None)
    with pytest.raises(ToolkitError, match=f"other samples .{next(iter(change))}="):
        sample_folder(tmp_path, tiny_generator, **({"count": 4, "seed": 0} | change), scorers=None)


def test_samples_of_another_generator_are_not_mixed(tiny_generator, tmp_path):
    sample_folder(tmp_path, tiny_generator, 4, scorers=None)
    tiny_generator.identity = Identity("other", "1" * 64)
    with pytest.raises(ToolkitError, match="generator='tiny'"):
        sample_folder(tmp_path, tiny_generator, 4, scorers=None)


@pytest.mark.parametrize("name", ["samples.json", "codes.safetensors", "scores.csv", "faces/000001.png"])
def test_damaged_files_are_named(tiny_generator, tmp_path, name):
    sample_folder(tmp_path, tiny_generator, 4, scorers={"brightness": brightness})
    (tmp_path / name).write_text(f"index (scorers {VERSION}),a\n0,x" if name.endswith("csv") else "damaged")
    if name.endswith("png"):
        (tmp_path / "scores.csv").unlink()
    with pytest.raises(BrokenFile, match=name.rsplit("/", 1)[-1]):
        sample_folder(tmp_path, tiny_generator, 4, scorers={"brightness": brightness})


def test_a_plan_that_is_no_plan_is_refused(tiny_generator, tmp_path):
    (tmp_path / "samples.json").write_text(json.dumps([1, 2]))
    with pytest.raises(ToolkitError, match="nothing known"):
        sample_folder(tmp_path, tiny_generator, 4, scorers=None)


def test_pictures_are_what_the_generator_draws(tiny_generator, tmp_path):
    samples = sample_folder(tmp_path, tiny_generator, 2, scorers=None)
    with torch.no_grad():
        image = tiny_generator.synthesis(samples.codes[1:])[0]
    expected = (image * 127.5 + 128).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    assert np.abs(read_face(tmp_path, 1).astype(int) - expected).max() <= 1


def test_half_of_the_codes_have_one_style_and_the_others_two(tiny_generator):
    codes = sample_w_plus(tiny_generator, 20, 0)
    styles = [len(torch.unique(code, dim=0)) for code in codes]
    assert styles[:10] == [1] * 10
    assert set(styles[10:]) <= {1, 2}
    assert sum(styles[10:]) > 15


def test_truncation_pulls_codes_to_the_mean(tiny_generator):
    far, near = (sample_codes(tiny_generator, 50, 0, (psi, psi)) for psi in (1.0, 0.5))
    torch.testing.assert_close(near - tiny_generator.w_avg, 0.5 * (far - tiny_generator.w_avg), atol=1e-5, rtol=1e-4)


def test_only_the_layers_that_are_asked_for_are_looked_at():
    random = torch.Generator().manual_seed(0)
    codes = torch.randn(300, 3, 5, generator=random)
    samples = Samples(codes, {"a": codes[:, 1, 2], "b": torch.full((300,), math.nan)})
    assert samples.fit("a", (1,)).normal[2] > 0.95
    assert samples.fit("a", (1, 2), per_layer=True).normal.view(2, 5)[0, 2] > 0.9
    assert samples.fit("a", (0,)).accuracy < 0.7
    with pytest.raises(TrainingDataError, match="these are of W"):
        Samples(codes[:, 0], {"a": codes[:, 1, 2]}).fit("a", per_layer=True)
    with pytest.raises(TrainingDataError, match="300 of 300 pictures show no face"):
        samples.fit("b")


@pytest.mark.parametrize("network", [StyleGAN1, StyleGAN2, StyleGAN3])
def test_every_generator_gives_samples(network, tmp_path):
    generator = network(32, z_dim=16, w_dim=16, channel_base=128, channel_max=16).eval().requires_grad_(False)
    samples = sample_folder(tmp_path, generator, 3, scorers={"brightness": brightness})
    assert samples.codes.shape == (3, generator.num_ws, 16)
    assert samples.knows("brightness")
