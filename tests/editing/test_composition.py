"""Are edits read as typed, refused in words, and applied from left to right?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editing.composition import EditSpec, apply_edits, parse_edit, parse_edits
from editing.directions import Direction
from editing.errors import EditError
from generators.base import Identity
from generators.errors import UnknownName

relaxed = settings(max_examples=40, deadline=None)  # The first example also pays for imports.


@pytest.mark.parametrize(
    ("text", "name", "strength"),
    [
        ("age=+3", "age", 3.0),
        ("smile=-2.5", "smile", -2.5),
        (" Age = 1e0 ", "age", 1.0),
        ("smile=−2", "smile", -2.0),
        ("age=0", "age", 0.0),
    ],
)
def test_edits_are_read_as_typed(text, name, strength):
    assert parse_edit(text, ["age", "smile"]) == EditSpec(name, strength)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age@coarse=+3", EditSpec("age", 3.0, layers="coarse")),
        ("age @ 0-3,7 = 2", EditSpec("age", 2.0, layers="0-3,7")),
        ("age=raw:-1.5", EditSpec("age", -1.5, raw=True)),
        ("smile=+2@mouth", EditSpec("smile", 2.0, mask="mouth")),
        ("age@fine=raw:1@my mask.png", EditSpec("age", 1.0, "fine", True, "my mask.png")),
        ("me@home/age.npy=1", EditSpec("me@home/age.npy", 1.0)),
        ("me@home/age.npy@4=1", EditSpec("me@home/age.npy", 1.0, "4")),
    ],
)
def test_layers_raw_units_and_masks_stand_beside_name_and_strength(text, expected):
    assert parse_edit(text) == expected


@relaxed
@given(
    st.builds(
        EditSpec,
        st.sampled_from(["age", "a/b.npy"]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([None, "coarse", "0-3,7"]),
        st.booleans(),
        st.sampled_from([None, "mouth", "mask.png"]),
        st.none(),
    )
)
def test_an_edit_that_was_written_is_read_again(spec):
    assert parse_edit(str(spec)) == spec


@pytest.mark.parametrize("text", ["age", "=3", "", "age+3"])
def test_what_is_no_edit_is_told_the_form(text):
    with pytest.raises(EditError, match="NAME=STRENGTH"):
        parse_edit(text)


@pytest.mark.parametrize("number", ["", "much", "nan", "inf", "-inf", "1e999", "3years", "1,5x", "raw:nan", "@mouth"])
def test_what_is_no_number_is_named(number):
    with pytest.raises(EditError, match="expected a number"):
        parse_edit(f"age={number}", ["age"])


def test_an_unknown_name_is_told_close_ones():
    with pytest.raises(UnknownName, match="did you mean smile"):
        parse_edit("smlie=2", ["age", "smile"])


def test_a_path_may_hold_the_sign():
    assert parse_edit("my=file.npy=-1") == EditSpec("my=file.npy", -1.0)


def test_one_text_may_hold_several_edits():
    expected = [EditSpec("age", 1.0), EditSpec("smile", -2.0), EditSpec("age", 3.0)]
    assert parse_edits(["age=1,smile=-2", "age=3"]) == expected


def test_a_comma_between_layers_separates_no_edits():
    expected = [EditSpec("age", 2.0, "0-3,7"), EditSpec("smile", 1.0)]
    assert parse_edits(["age@0-3,7=2,smile=1"]) == expected
    expected = [EditSpec("age", 2.0, mask="rectangle:0,0.5,1,1"), EditSpec("smile", 1.0)]
    assert parse_edits(["age=2@rectangle:0,0.5,1,1,smile=1"]) == expected
    with pytest.raises(EditError, match="edit 'age'"):
        parse_edits(["age,smile=1"])


def test_edits_are_applied_from_left_to_right():
    w_plus = torch.ones(1, 2, 3)
    seen = []

    def note(name):
        return lambda latent, strength: (seen.append((name, strength)), latent * 2 + strength)[1]

    result = apply_edits(w_plus, [(note("first"), 1), (note("second"), 10)])
    assert seen == [("first", 1), ("second", 10)]
    assert torch.equal(result, torch.full((1, 2, 3), 16.0))


def test_no_edits_give_the_latent_itself():
    w_plus = torch.ones(1, 2, 3)
    assert apply_edits(w_plus, []) is w_plus


@relaxed
@given(st.permutations([0, 1, 2]))
def test_linear_directions_may_be_applied_in_any_order(order):
    generator = Identity("toy")
    edits = [(Direction("d", torch.eye(3)[axis], generator), axis - 1.5) for axis in range(3)]
    expected = torch.tensor([-1.5, -0.5, 0.5]).repeat(1, 2, 1)
    torch.testing.assert_close(apply_edits(torch.zeros(1, 2, 3), [edits[k] for k in order]), expected)
