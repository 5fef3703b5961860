"""Is an edit that is evaluated also asked what it moved, and what it leaked?"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from editing.composition import parse_edits
from editing.directions import Direction
from invert.age_and_gender import ScorerError
from invert.evaluation import measures
from invert.evaluation.measures import check_metrics, load_measures
from invert.inversion import Inversion, resize
from invert.metrics.edits import EditEffect
from invert.photo import to_uint8
from pretrained.directions import save_direction


@pytest.fixture
def measure(tiny_generator, tmp_path, monkeypatch):
    """Measure a smile of strength -2 on two faces."""
    direction = Direction.of("smile", torch.ones(32), tiny_generator.identity, quality={"attribute": "smile"})
    save_direction(tmp_path / "smile.safetensors", direction)
    specs = parse_edits([f"{tmp_path / 'smile.safetensors'}=-2"])
    monkeypatch.setattr(measures, "check_scorers", lambda: None)
    loaded = load_measures(["mse"], list(specs), tiny_generator, torch.device("cpu"))
    latent = tiny_generator.w_avg.repeat(2, tiny_generator.num_ws, 1)
    with torch.no_grad():
        image = tiny_generator.synthesis(latent)

    def figures(face=0):
        rows, notes = loaded(lambda images: Inversion(latent, image), Inversion(latent, image), image)
        return {key.partition(" ")[0].partition("#")[0]: value for key, value in rows[face].items()}, notes

    return figures


def test_what_moved_is_counted_in_the_direction_that_was_asked_for(measure, monkeypatch):
    found = EditEffect(torch.tensor([-1.5, -1.0]), {"age": torch.tensor([0.5, 0.0]), "yaw": torch.tensor([-0.1, 0.0])})
    monkeypatch.setattr(measures, "measure_effect", lambda before, after, attribute: found)
    figures, _ = measure()
    assert figures["moved-smile"] == 1.5
    assert figures["leak-smile"] == pytest.approx(0.3)
    assert figures["mse"] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_edit_that_goes_too_far_in_one_face_costs_the_other_none_of_its_figures(
    value, measure, tiny_generator, monkeypatch
):
    def effect(before, after, attribute):
        to_uint8(resize(after, 64))  # Scorers see levels of a smaller picture, and refuse what has none.
        return EditEffect(torch.ones(2), {"age": torch.zeros(2)})

    def draw(latent):
        image = synthesis(latent)
        image[1, :, :8, :8] = value
        return image

    synthesis = tiny_generator.synthesis.forward
    monkeypatch.setattr(tiny_generator.synthesis, "forward", draw)
    monkeypatch.setattr(measures, "measure_effect", effect)
    (whole, notes), (broken, _) = measure(0), measure(1)
    assert whole["moved-smile"] == -1
    assert math.isnan(broken["moved-smile"])
    assert [bool(note) for note in notes] == [False, True]


def test_without_metrics_only_the_consistency_of_edits_is_measured(tiny_generator, tmp_path):
    direction = Direction.of("smile", torch.ones(32), tiny_generator.identity, quality={"attribute": "smile"})
    save_direction(tmp_path / "smile.safetensors", direction)
    specs = parse_edits([f"{tmp_path / 'smile.safetensors'}=-2"])
    keys = load_measures([], list(specs), tiny_generator, torch.device("cpu")).keys()
    assert {key.partition(" ")[0].partition("#")[0] for key in keys} == {"lec-avg", "lec-min", "lec-max"}


def test_without_scorers_the_other_figures_stand_and_the_reason_is_told(tiny_generator, tmp_path, monkeypatch):
    def fail():
        raise ScorerError("not installed")

    monkeypatch.setattr(measures, "check_scorers", fail)
    loaded = load_measures(["mse"], smile(tiny_generator, tmp_path, "=1"), tiny_generator, torch.device("cpu"))
    assert [reason for key, reason in loaded.unavailable.items() if key.startswith("smile moved [SD] by")] == [
        "not installed"
    ]
    assert {description.key.partition("-")[0] for description in loaded.descriptions} == {"mse", "lec"}


def test_an_edit_of_no_scored_attribute_is_told_to_have_no_row_of_what_it_moved(tiny_generator, tmp_path):
    direction = Direction.of("red_lips", torch.ones(32), tiny_generator.identity, quality={"attribute": "red_lips"})
    for name, given in (("red", direction), ("own", replace(direction, quality={}))):
        save_direction(tmp_path / f"{name}.safetensors", given)
    specs = list(parse_edits([f"{tmp_path / name}.safetensors=2" for name in ("red", "own")]))
    loaded = load_measures(["mse"], specs, tiny_generator, torch.device("cpu"))
    assert loaded.unavailable == {f"attribute moved by {spec}": "no known attribute or spread" for spec in specs}
    assert not load_measures([], specs, tiny_generator, torch.device("cpu")).unavailable


def smile(generator, folder, *strengths, vector=None):
    """Write a direction, and ask for it in these strengths."""
    file = folder / "smile.safetensors"
    vector = torch.ones(32) if vector is None else vector
    save_direction(file, Direction.of("smile", vector, generator.identity, quality={"attribute": "smile"}))
    return list(parse_edits([f"{file}{strength}" for strength in strengths]))


def test_an_edit_that_is_named_twice_is_measured_once(tiny_generator, tmp_path):
    loaded = load_measures([], smile(tiny_generator, tmp_path, "=3", "=+3"), tiny_generator, torch.device("cpu"))
    assert len(loaded.descriptions) == 3


def test_an_edit_whose_file_changes_is_another_edit(tiny_generator, tmp_path):
    def loaded(vector):
        asked = smile(tiny_generator, tmp_path, "=3", vector=vector)
        return load_measures([], asked, tiny_generator, torch.device("cpu"))

    ramp = torch.linspace(0, 1, 32)
    once, again, other = loaded(torch.ones(32)), loaded(torch.ones(32)), loaded(ramp)
    assert once.keys() == again.keys()
    assert once.strip[0].label == again.strip[0].label
    assert not once.keys() & other.keys()
    assert once.strip[0].label != other.strip[0].label


def test_a_face_network_of_ones_own_is_known_by_its_file():
    check_metrics(["id-arcface:some/file.pth", "mse"])
