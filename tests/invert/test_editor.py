from __future__ import annotations

import numpy as np
import pytest
import torch

from editing.composition import EditSpec
from editing.errors import EditError
from generators.base import Identity
from generators.errors import LatentMismatch, ToolkitError, UnknownName
from invert.editor import Editor, edit
from invert.errors import ImageError, NoFaceFound
from invert.latents import save_latent
from invert.photo import write_image
from invert.pipeline import process_photo
from invert.recipe import parse_recipe
from invert.tools import Tools


@pytest.fixture
def latent(tiny_generator):
    return tiny_generator.w_avg.repeat(1, tiny_generator.num_ws, 1)


@pytest.fixture
def editor(tiny_generator, latent):
    return Editor(tiny_generator).set_latent(latent)


def test_edits_by_name_add_up(tiny_generator, wider, latent):
    moved = edit(latent, {wider: 2.0}, tiny_generator)
    assert torch.allclose((moved - latent)[0, :, 1], torch.tensor(4.0))
    assert torch.equal(edit(latent, {wider: 0.0}, tiny_generator), latent)
    assert torch.allclose(edit(latent, [f"{wider}=1", EditSpec(wider, 1.0)], tiny_generator), moved)
    assert torch.allclose(edit(latent, f"{wider}=2", tiny_generator), moved)


def test_an_edit_moves_only_the_layers_it_names_by_its_own_unit_or_raw(tiny_generator, wider, latent):
    moved = edit(latent, [f"{wider}@coarse=1", f"{wider}@5=raw:3"], tiny_generator)
    expected = torch.zeros(tiny_generator.num_ws)
    expected[:4], expected[5] = 2, 3
    torch.testing.assert_close((moved - latent)[0, :, 1], expected)


def test_a_mapping_names_layers_as_a_text_does(tiny_generator, wider, latent):
    moved = edit(latent, {f"{wider}@coarse": 2, f" {wider} @ 5": -1}, tiny_generator)
    assert torch.equal(moved, edit(latent, [f"{wider}@coarse=2", f"{wider}@5=-1"], tiny_generator))
    with pytest.raises(UnknownName, match="did you mean coarse"):
        edit(latent, {f"{wider}@corse": 2}, tiny_generator)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{}@corse=1", UnknownName, "did you mean coarse"),
        ("{}@99=1", EditError, "has the layers 0 to"),
        ("{}=nan", EditError, "expected a number"),
        ("no such file=1", UnknownName, "no such file"),
    ],
)
def test_an_edit_that_cannot_be_done_is_refused_when_it_is_added(editor, wider, text, error, words):
    editor.add(f"{wider}=1")
    with pytest.raises(error, match=words):
        editor.add(text.format(wider))
    assert len(editor.edits) == 1


def test_an_edit_under_a_mask_leaves_the_rest_as_it_is(editor, wider, tmp_path):
    mask = np.zeros((256, 256, 3), np.uint8)
    mask[:, :64] = 255
    write_image(tmp_path / "left.png", mask)
    before = editor.image
    change = (editor.edited_face([f"{wider}=3@{tmp_path / 'left.png'}"]) - before).abs().sum(0)
    assert change[:, :64].sum() > 0.9 * change.sum() > 0
    assert torch.equal(editor.edited_face([f"{wider}=0@{tmp_path / 'left.png'}"]), before)
    shape = (editor.edited_face([f"{wider}=3@rectangle:0,0,0.25,1"]) - before).abs().sum(0)
    torch.testing.assert_close(shape, change, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        ("moth", UnknownName, "did you mean mouth"),
        ("gone.png", UnknownName, "nor is there such a file"),
        ("rectangle:1,2", EditError, "expected rectangle:"),
        ("mouth", NoFaceFound, "paint a mask"),
    ],
)
def test_a_mask_that_cannot_be_had_is_refused(editor, wider, mask, error, words):
    with pytest.raises(error, match=words):
        editor.edited_face([f"{wider}=1@{mask}"])


def test_an_edit_that_leads_too_far_to_be_drawn_is_refused_with_advice(editor, wider):
    with pytest.raises(ImageError, match=r"NaN or infinite: its code lies too far .* take smaller strengths$"):
        editor.edited_face({wider: 1e30})
    editor.generator.compute_in(torch.bfloat16)
    with pytest.raises(ImageError, match=r"take smaller strengths, or let the generator compute in float32 \(--dtype\)$"):
        editor.edited_face({wider: 1e30})


@pytest.mark.usefixtures("no_shape_checks")
def test_a_code_without_a_batch_is_told_how_to_get_one(tiny_generator, wider, latent):
    with pytest.raises(LatentMismatch, match=r"latent\[None\]"):
        edit(latent[0], {wider: 1}, tiny_generator)


def test_a_latent_alone_shows_no_part_of_a_face(tiny_generator, wider, latent):
    with pytest.raises(EditError, match="no picture to find it in"):
        edit(latent, [f"{wider}=1@mouth"], tiny_generator)


def test_the_list_of_edits_can_be_changed_anywhere_undone_and_redone(editor, wider):
    strengths = lambda: [spec.strength for spec in editor.edits]  # noqa: E731
    editor.add(f"{wider}=1", f"{wider}=2").add(f"{wider}=3")
    editor.remove(1)
    assert strengths() == [1, 3]
    editor.replace(0, f"{wider}=7")
    assert strengths() == [7, 3]
    assert [editor.undo() and strengths() for _ in range(5)] == [[1, 3], [1, 2, 3], [1, 2], [], []]
    assert [editor.redo() and strengths() for _ in range(2)] == [[1, 2], [1, 2, 3]]
    editor.set_edits([])
    assert editor.redo().edits == ()
    assert editor.undo().edits != ()
    for number in (3, -4):
        with pytest.raises(IndexError, match="has 3"):
            editor.remove(number)


def test_dropping_an_entry_gives_the_code_as_if_it_had_never_been(editor, wider, latent):
    editor.add(f"{wider}=1.1", f"{wider}@fine=-0.7", f"{wider}=0.3").remove(1)
    assert torch.equal(editor.latent, edit(latent, [f"{wider}=1.1", f"{wider}=0.3"], editor.generator))
    assert torch.equal(editor.set_edits({}).latent, latent)


def test_a_latent_can_be_edited_without_its_photo(editor, tiny_generator, wider, latent, tmp_path):
    save_latent(tmp_path / "latent.safetensors", latent, tiny_generator.identity)
    image = Editor(tiny_generator).set_latent(tmp_path / "latent.safetensors").add(f"{wider}=1").image
    assert torch.equal(image, editor.edited_face({wider: 1}))
    with pytest.raises(ToolkitError, match="no photo to paste into"):
        _ = editor.photo


def test_latents_that_do_not_fit_are_refused(editor, tiny_generator, latent, tmp_path):
    save_latent(tmp_path / "latent.safetensors", latent, Identity("another", "f" * 64))
    with pytest.raises(LatentMismatch, match="another"):
        editor.set_latent(tmp_path / "latent.safetensors")
    with pytest.raises(ToolkitError, match="holds 2 codes"):
        editor.set_latent(latent.repeat(2, 1, 1))
    with pytest.raises(LatentMismatch, match="takes"):
        editor.set_latent(latent[:, 1:])


def test_the_recipe_of_an_editor_gives_the_same_photo(
    tiny_generator, encoder_file, wider, astronaut, cheap_distance, tmp_path
):
    from invert.edits import load_directions
    from invert.inverters import load_inverter
    from invert.photo import demo_photo, read_photo

    editor = Editor(tiny_generator, str(encoder_file)).set_photo(astronaut).add(f"{wider}=1.5", f"{wider}@fine=-1")
    recipe = parse_recipe(editor.recipe.as_dict())
    directions = load_directions(recipe.edits, tiny_generator)
    tools = Tools(tiny_generator, load_inverter(recipe.method, tiny_generator), cheap_distance, directions)
    process_photo(demo_photo(), tmp_path, tools, recipe)
    write_image(tmp_path / "edited.jpg", editor.photo)
    assert np.array_equal(read_photo(tmp_path / "astronaut/result.jpg"), read_photo(tmp_path / "edited.jpg"))


def test_one_photo_is_edited_many_times(tiny_generator, encoder_file, wider, astronaut):
    editor = Editor(tiny_generator, str(encoder_file)).set_photo(astronaut)
    weak, strong = (editor.edited_photo({wider: strength}) for strength in (0.0, 3.0))
    assert weak.shape == strong.shape == astronaut.shape
    assert np.any(weak != strong)
    assert editor.edited_face({}).shape == (3, 256, 256)


def test_editing_without_a_photo_says_what_to_call_first(tiny_generator, encoder_file):
    with pytest.raises(ToolkitError, match="set_photo"):
        Editor(tiny_generator, str(encoder_file)).edited_face({})
