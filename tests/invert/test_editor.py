from __future__ import annotations

import numpy as np
import pytest
import torch

from editing.directions import Direction
from generators.errors import ToolkitError
from invert.editor import Editor, edit


@pytest.fixture
def wider(tiny_generator, tmp_path):
    from pretrained.directions import save_direction

    vector = torch.zeros(tiny_generator.w_dim)
    vector[1] = 1
    save_direction(tmp_path / "wider.safetensors", Direction.of("wider", vector, tiny_generator.identity))
    return str(tmp_path / "wider.safetensors")


def test_edits_by_name_add_up(tiny_generator, wider):
    latent = tiny_generator.w_avg.repeat(1, tiny_generator.num_ws, 1)
    moved = edit(latent, {wider: 2.0}, tiny_generator)
    assert torch.allclose((moved - latent)[0, :, 1], torch.tensor(2.0))
    assert torch.equal(edit(latent, {wider: 0.0}, tiny_generator), latent)


def test_one_photo_is_edited_many_times(tiny_generator, encoder_file, wider, astronaut):
    editor = Editor(tiny_generator, str(encoder_file)).set_photo(astronaut)
    weak, strong = (editor.edited_photo({wider: strength}) for strength in (0.0, 3.0))
    assert weak.shape == strong.shape == astronaut.shape
    assert np.any(weak != strong)
    assert editor.edited_face({}).shape == (3, 256, 256)


def test_editing_without_a_photo_says_what_to_call_first(tiny_generator, encoder_file):
    with pytest.raises(ToolkitError, match="set_photo"):
        Editor(tiny_generator, str(encoder_file)).edited_face({})
