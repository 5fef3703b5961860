from __future__ import annotations

import shutil

import pytest

from generators.errors import ToolkitError, UnknownName
from invert.evaluation.methods import each_once, parse_methods


def test_a_refinement_stands_behind_a_plus(encoder_file):
    plain, refined, projector = parse_methods([str(encoder_file), f"{encoder_file}+30", "projector"], steps=7)
    assert (plain.refine, refined.refine, refined.base) == (0, 30, str(encoder_file))
    assert (projector.is_optimised, refined.is_optimised, plain.is_optimised) == (True, True, False)
    assert projector.own_settings["steps"] == 7


def test_a_tuning_stands_behind_pti(encoder_file):
    tuned, both, projector = parse_methods([f"{encoder_file}+pti8", f"{encoder_file}+30+pti8", "projector+pti4"])
    assert [(m.refine, m.tune) for m in (tuned, both, projector)] == [(0, 8), (30, 8), (0, 4)]
    assert all(method.is_optimised for method in (tuned, both, projector))
    assert len({method.key for method in (tuned, both, *parse_methods([str(encoder_file), f"{encoder_file}+30"]))}) == 4


def test_looks_stand_behind_an_at(encoder_file, tiny_generator, cheap_distance):
    own, two, both, four = parse_methods([f"{encoder_file}{behind}" for behind in ("", "@2", "@2+30", "@4")])
    assert [(m.base, m.looks, m.refine) for m in (own, two, both)] == [
        (str(encoder_file), 0, 0), (str(encoder_file), 2, 0), (str(encoder_file), 2, 30)
    ]  # fmt: skip
    assert len({method.key for method in (own, two, both, four)}) == 4
    assert two.load(tiny_generator, cheap_distance).looks == 2
    assert own.load(tiny_generator, cheap_distance).looks is None


def test_a_tuned_method_tunes(encoder_file, tiny_generator, cheap_distance):
    (method,) = parse_methods([f"{encoder_file}+pti2"])
    assert method.load(tiny_generator, cheap_distance).tuner.steps == 2


def test_keys_go_by_what_figures_depend_on(encoder_file, tmp_path):
    shutil.copy(encoder_file, tmp_path / "copy.safetensors")
    (one,), (copy,) = parse_methods([str(encoder_file)]), parse_methods([str(tmp_path / "copy.safetensors")])
    assert one.key == copy.key
    assert parse_methods([str(encoder_file)], steps=5)[0].key == one.key
    (short,), (long,) = parse_methods(["projector"], steps=5), parse_methods(["projector"], steps=6)
    assert short.key != long.key


def test_an_encoder_in_the_generators_own_file_is_told_by_that_file(encoder_file, tiny_generator, monkeypatch):
    (shipped,), (own,) = parse_methods(["psp"]), parse_methods([str(encoder_file)])
    assert shipped.of(tiny_generator) == shipped
    monkeypatch.setattr("invert.evaluation.methods.encoder_beside", lambda name, _: {"psp": encoder_file}.get(name))
    found = each_once([shipped.of(tiny_generator), own.of(tiny_generator)])
    assert [(method.spec, method.weights_sha256) for method in found] == [("psp", own.weights_sha256)]
    assert own.weights_sha256 != shipped.weights_sha256


def test_a_method_that_is_named_twice_is_one_column(encoder_file):
    assert [m.spec for m in parse_methods(["projector", str(encoder_file), "projector"])] == ["projector", str(encoder_file)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("projektor", "did you mean projector"),
        ("projector+3", "set by --steps"),
        ("stylemap+x", "expected a number"),
        ("stylemap+3+ptix", "expected a number"),
        ("stylemap@0", "expected a number of looks, 1 or more"),
        ("stylemap@two+3", "expected a number of looks"),
        ("projector@2", "for an encoder's code"),
        ("auto", "a table names its methods: take one or more of"),
    ],
)
def test_malformed_methods_are_refused_in_words(spec, message):
    with pytest.raises(ToolkitError, match=message):
        parse_methods([spec])


def test_no_method_is_refused():
    with pytest.raises(ToolkitError, match="no methods"):
        parse_methods([" "])


def test_an_unknown_method_is_an_unknown_name():
    with pytest.raises(UnknownName):
        parse_methods(["no/such/file.safetensors"])
