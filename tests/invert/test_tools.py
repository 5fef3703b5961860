"""Does a recipe alone lead to the networks that it needs, as in Python, where nobody gives options?"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generators.errors import UnknownName
from invert import load_tools, parse_recipe, process_photo
from invert.errors import RecipeError
from invert.photo import demo_photo
from invert.presets import PRESETS
from invert.recipe import Recipe
from invert.tools import settle


@pytest.fixture
def recipe(generator_file, encoder_file, wider, cheap_distance, monkeypatch):
    """A recipe without any setting, of the tiny networks."""
    monkeypatch.setattr("invert.tools.load_perceptual", lambda *_: cheap_distance)
    return parse_recipe({"method": str(encoder_file), "generator": str(generator_file), "edits": [f"{wider}=1"]})


def test_a_photo_is_processed_with_public_names_alone(recipe, tmp_path):
    tools, recipe = load_tools(recipe)
    (report,) = process_photo(str(demo_photo()), str(tmp_path), tools, recipe)
    assert (tmp_path / "astronaut/edited.png").is_file()
    assert report["recipe"]["edits"][0]["strength"] == 1


def test_a_recipe_says_what_the_generator_computes_in(recipe):
    recipe.settings["dtype"] = "bfloat16"
    assert load_tools(recipe)[0].generator.synthesis.feature_dtype == torch.bfloat16


def test_a_mistyped_method_is_found_before_anything_is_loaded(recipe, monkeypatch):
    monkeypatch.setattr("invert.tools.load_generator", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UnknownName, match="did you mean stylemap"):
        load_tools(Recipe("stylemapp"))


def test_auto_without_a_preset_takes_the_default_one(tiny_generator, monkeypatch):
    monkeypatch.setattr("invert.tools.choose_method", lambda *_: "stylemap")
    assert settle(Recipe("auto"), tiny_generator) == Recipe("stylemap", {"refine": PRESETS["better"].refine})


def test_a_preset_without_a_method_means_auto_and_gives_a_named_one_its_steps(tiny_generator, monkeypatch):
    monkeypatch.setattr("invert.tools.choose_method", lambda *_: "stylemap-e")
    best = {"refine": PRESETS["best"].refine, "tune": PRESETS["best"].tune}
    assert settle(parse_recipe({"preset": "best"}), tiny_generator) == Recipe("stylemap-e", best)
    assert settle(parse_recipe({"preset": "best", "method": "psp"}), tiny_generator) == Recipe("psp", best)
    assert settle(parse_recipe({"preset": "best", "encoder": "own.pt"}), tiny_generator) == Recipe("own.pt", best)
    assert settle(Recipe(settings={"preset": "best", "tune": 0}), tiny_generator).settings == best | {"tune": 0}
    assert settle(Recipe(), tiny_generator) == Recipe("stylemap")


def test_auto_keeps_steps_given_by_hand(tiny_generator, monkeypatch):
    monkeypatch.setattr("invert.tools.choose_method", lambda *_: "stylemap")
    recipe = Recipe(method="auto", settings={"preset": "best", "refine": 7, "steps": 9, "seed": 0})
    assert settle(recipe, tiny_generator).settings == {"seed": 0, "refine": 7, "tune": PRESETS["best"].tune}


def test_steps_that_auto_has_no_use_for_are_refused_unless_both_kinds_have_theirs(tiny_generator, monkeypatch):
    monkeypatch.setattr("invert.tools.choose_method", lambda *_: "stylemap")
    recipe = Recipe(method="auto", settings={"preset": "better", "steps": 9})
    with pytest.raises(RecipeError, match="the method is stylemap: take --refine 9"):
        settle(recipe, tiny_generator)
    settings = settle(replace(recipe, settings=recipe.settings | {"refine": 8}), tiny_generator).settings
    assert settings == {"refine": 8}


def test_a_space_is_kept_for_the_projector_that_auto_becomes_and_refused_by_an_encoder(tiny_generator, monkeypatch):
    recipe = Recipe("auto", {"preset": "fast", "space": "w"})
    assert settle(recipe, tiny_generator) == Recipe("projector", {"space": "w", "steps": PRESETS["fast"].steps})
    assert settle(Recipe("auto"), tiny_generator).settings["space"] == "w_plus"
    monkeypatch.setattr("invert.tools.choose_method", lambda *_: "stylemap")
    with pytest.raises(RecipeError, match="--space w is of the projector, and the method is stylemap"):
        settle(recipe, tiny_generator)
