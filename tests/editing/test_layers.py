"""Are layers read as typed, and refused in words?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editing.errors import EditError
from editing.layers import parse_layers
from generators.errors import UnknownName


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("coarse", (0, 1, 2, 3)),
        ("Middle", (4, 5, 6, 7)),
        ("fine", (8, 9)),
        ("all", tuple(range(10))),
        ("7", (7,)),
        (" 4 , 7 - 9 ", (4, 7, 8, 9)),
        ("coarse,2-4", (0, 1, 2, 3, 4)),
    ],
)
def test_layers_are_read_as_typed(text, layers):
    assert parse_layers(text, 10) == layers


@given(st.sets(st.integers(0, 17), min_size=1))
def test_layers_that_were_written_are_read_again(layers):
    assert parse_layers(",".join(map(str, layers)), 18) == tuple(sorted(layers))


def test_an_unknown_level_is_told_close_ones():
    with pytest.raises(UnknownName, match="did you mean coarse"):
        parse_layers("corse", 16)


@pytest.mark.parametrize("text", ["", ",", "1,,2", "-1", "1-", "1.5", "1-2-3", "²", "99999"])
def test_what_is_no_layer_is_refused(text):
    with pytest.raises(UnknownName, match="unknown layer"):
        parse_layers(text, 16)


@pytest.mark.parametrize(("text", "words"), [("16", "0 to 15"), ("14-16", "0 to 15"), ("5-2", "2-5")])
def test_layers_that_there_are_not_are_named(text, words):
    with pytest.raises(EditError, match=words):
        parse_layers(text, 16)


def test_a_level_that_a_small_generator_lacks_is_named():
    with pytest.raises(EditError, match="no fine layers"):
        parse_layers("fine", 8)
