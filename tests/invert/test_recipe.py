"""Are recipes read from every place that holds one, and refused in words where they are not as they should be?"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editing.composition import EditSpec
from editing.errors import EditError
from generators.base import Identity
from generators.errors import ToolkitError, UnknownName
from invert.errors import RecipeError
from invert.inverters import load_inverter
from invert.latents import save_latent
from invert.photo import write_image
from invert.recipe import METHOD_SETTINGS, Recipe, parse_recipe, read_recipe

TOML = """
method = "stylemap"
refine = 30
face = "all"
paste = "change"
edits = ["age=+2", {edit = "smile", strength = -1, layers = [0, 1, 2], face = 0}]
"""
specs = st.builds(
    EditSpec,
    st.sampled_from(["age", "my directions/older.npy"]),
    st.floats(-1e6, 1e6),
    st.sampled_from([None, "coarse", "0-3,7"]),
    st.booleans(),
    st.sampled_from([None, "mouth"]),
    st.sampled_from([None, 0, 3]),
)
# Arguments, not recipes: the type checker draws random numbers, which hypothesis forbids while it makes examples.
arguments = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["stylemap", "projector"]),
        "settings": st.fixed_dictionaries({}, optional={"refine": st.integers(0, 100), "space": st.just("w")}),
        "edits": st.lists(specs, max_size=4).map(tuple),
        "face": st.sampled_from(["largest", "all", 0, 2]),
        "is_aligned": st.booleans(),
        "predictor": st.sampled_from([None, Path("model.dat")]),
        "paste": st.sampled_from(["face", "change"]),
        "generator": st.sampled_from([None, "some-generator"]),
        "generator_sha256": st.sampled_from(["", "ab" * 32]),
    }
)


def written(folder, text, name="recipe.toml"):
    (folder / name).write_text(text)
    return folder / name


def test_a_toml_file_is_read(tmp_path):
    recipe = read_recipe(written(tmp_path, TOML))
    assert recipe == Recipe(
        "stylemap",
        {"refine": 30},
        (EditSpec("age", 2.0), EditSpec("smile", -1.0, "0,1,2", face=0)),
        face="all",
        paste="change",
    )


@given(arguments)
def test_a_recipe_that_was_written_is_read_again_to_the_last_digit(arguments):
    recipe = Recipe(**arguments)
    assert parse_recipe(json.loads(json.dumps(recipe.as_dict()))) == recipe


@settings(max_examples=20)
@given(arguments)
def test_every_result_holds_its_recipe(tmp_path_factory, arguments):
    recipe = Recipe(**arguments)
    folder = tmp_path_factory.mktemp("results")
    note = json.dumps(recipe.as_dict())
    for name in ("edited.png", "result.jpg"):
        write_image(folder / name, np.zeros((8, 8, 3), np.uint8), note)
    save_latent(folder / "latent.safetensors", torch.zeros(1, 2, 3), Identity("g"), recipe=recipe.as_dict())
    (folder / "report.json").write_text(json.dumps({"photo_sha256": "", "recipe": recipe.as_dict()}))
    for path in folder.iterdir():
        assert read_recipe(path) == recipe, path.name


def test_each_face_gets_its_own_edits_and_those_of_all():
    recipe = Recipe(edits=(EditSpec("age", 1.0), EditSpec("smile", 2.0, face=1), EditSpec("yaw", 3.0, face=0)))
    assert [spec.name for spec in recipe.edits_of(0)] == ["age", "yaw"]
    assert [spec.name for spec in recipe.edits_of(1)] == ["age", "smile"]


def test_paths_count_from_the_recipes_folder(tmp_path):
    for name in ("older.npy", "mask.png", "model.dat"):
        (tmp_path / name).touch()
    text = 'predictor = "model.dat"\nedits = ["older.npy=2@mask.png", "age=1@mouth"]'
    recipe = read_recipe(written(tmp_path, text))
    assert recipe.predictor == tmp_path / "model.dat"
    assert recipe.edits[0] == EditSpec(str(tmp_path / "older.npy"), 2.0, mask=str(tmp_path / "mask.png"))
    assert recipe.edits[1] == EditSpec("age", 1.0, mask="mouth")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('metod = "stylemap"', UnknownName, "unknown entry of recipe 'metod': did you mean method"),
        ("refine = -1", RecipeError, "refine = -1: expected a count"),
        ("looks = 0", RecipeError, "looks = 0: expected a number from 1 to 16"),
        ("looks = 17", RecipeError, "looks = 17: expected a number from 1 to 16"),
        ("refine = true", RecipeError, "refine = True: expected a count"),
        ("steps = 0", RecipeError, "expected a number from 1"),
        ('face = "biggest"', RecipeError, '\'biggest\': expected "largest", "all"'),
        ('paste = "all"', RecipeError, '"face" or "change"'),
        ('edits = "age=1"', RecipeError, "expected a list of edits"),
        ('edits = ["age=nan"]', EditError, "edits[0]: edit 'age=nan'"),
        ('edits = ["age=1", "smile"]', EditError, "edits[1]: edit 'smile': expected NAME=STRENGTH"),
        ('edits = [{edit = "age"}]', RecipeError, "edits[0]: strength is missing"),
        ("edits = [{strength = 1}]", RecipeError, "edits[0]: edit is missing"),
        ('edits = [{edit = "age", strength = inf}]', RecipeError, "edits[0]: strength = inf: expected a finite number"),
        ('edits = [{edit = "age", strength = nan}]', RecipeError, "strength = nan: expected a finite number"),
        ('edits = [{edit = "age", strength = "2"}]', RecipeError, "expected a finite number"),
        ('edits = [{edit = "age", strength = 1, layer = 3}]', UnknownName, "edits[0] 'layer': did you mean layers"),
        ('edits = [{edit = "age", strength = 1, layers = []}]', RecipeError, "layers = []"),
        ('edits = [{edit = "age", strength = 1, face = -1}]', RecipeError, "face = -1"),
        ("edits = [7]", RecipeError, "edits[0]: expected entries such as edit, strength, got int"),
        ("this is no recipe", RecipeError, "not readable as TOML"),
        ("edits = [" + '"a=1",' * 1001 + "]", RecipeError, "1001 edits: expected at most 1000"),
    ],
)
def test_an_entry_that_is_wrong_is_named(tmp_path, text, error, words):
    with pytest.raises(error) as caught:
        read_recipe(written(tmp_path, text))
    assert words in str(caught.value)
    assert "recipe.toml" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[]", "null", "7", '"age=1"', "[" * 100_000, '{"refine": ' + "9" * 5000 + "}", '{"refine": 1e400}', "\x00", ""]
)
def test_hostile_json_is_refused(tmp_path, text):
    with pytest.raises(ToolkitError, match=r"recipe\.json"):
        read_recipe(written(tmp_path, text, "recipe.json"))


def test_json_may_say_nan_and_is_refused(tmp_path):
    text = '{"edits": [{"edit": "age", "strength": NaN}]}'
    with pytest.raises(RecipeError, match="finite"):
        read_recipe(written(tmp_path, text, "recipe.json"))


def test_what_holds_no_recipe_says_what_does(tmp_path):
    write_image(tmp_path / "plain.png", np.zeros((8, 8, 3), np.uint8))
    write_image(tmp_path / "plain.jpg", np.zeros((8, 8, 3), np.uint8))
    save_latent(tmp_path / "old.safetensors", torch.zeros(1, 2, 3), Identity("g"))
    written(tmp_path, '{"photo_sha256": ""}', "report.json")
    for path in list(tmp_path.iterdir()):
        with pytest.raises(RecipeError, match="holds no recipe"):
            read_recipe(path)


@pytest.mark.parametrize("name", ["damaged.png", "damaged.jpg", "damaged.safetensors", "recipe.yaml", "recipe"])
def test_what_is_no_recipe_is_refused_by_its_name(tmp_path, name):
    with pytest.raises(ToolkitError, match=name):
        read_recipe(written(tmp_path, "no such thing", name))


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"gone\.toml: cannot be read: No such file"):
        read_recipe(tmp_path / "gone.toml")


def test_a_recipe_of_another_size_is_not_read_at_all(tmp_path):
    with pytest.raises(RecipeError, match="too large"):
        read_recipe(written(tmp_path, "#" * 5_000_000))


def test_every_setting_of_a_method_is_an_option_of_its_inverter():
    assert set(METHOD_SETTINGS) < set(inspect.signature(load_inverter).parameters)
