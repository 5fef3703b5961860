"""Are directions written and read whole, published files read safely, and misfits refused?"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from editing.directions import Direction
from generators.base import Identity
from generators.errors import LatentMismatch, UnknownName
from pretrained import safetensors
from pretrained.catalog import DEFAULT_GENERATOR
from pretrained.directions import (
    ALIASES,
    direction_names,
    known_names,
    load_direction,
    read_direction,
    save_direction,
)
from pretrained.errors import BrokenFile

GENERATOR = Identity("toy", "a" * 64)
SHIPPED = [
    "age", "eyes_open", "gender", "hair_light", "mouth_open", "pitch", "pose", "red_lips", "skin_light", "smile"
]  # fmt: skip


def some_direction() -> Direction:
    vector = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    return Direction.of(
        "grin", vector, GENERATOR, layers=(0, 2), unit=1.5, sign="more grin", learnt="by test", quality={"accuracy": 0.9}
    )


def test_a_direction_that_was_saved_is_read_again(tmp_path):
    direction = some_direction()
    save_direction(tmp_path / "grin.safetensors", direction)
    again = load_direction(tmp_path / "grin.safetensors", GENERATOR)
    assert torch.equal(again.vector, direction.vector)
    for name in ("name", "generator", "space", "layers", "unit", "sign", "learnt", "quality"):
        assert getattr(again, name) == getattr(direction, name)


def test_a_direction_of_another_generator_is_refused(tmp_path):
    save_direction(tmp_path / "grin.safetensors", some_direction())
    with pytest.raises(LatentMismatch, match="toy"):
        load_direction(tmp_path / "grin.safetensors", "stylegan2-ffhq-1024")


def test_shipped_directions_load_by_name_and_say_what_they_are():
    assert direction_names() == SHIPPED
    for name in SHIPPED:
        direction = load_direction(name)
        assert direction.name == name
        assert direction.generator.name == DEFAULT_GENERATOR
        assert direction.w_dim == 512
        assert direction.unit > 0
        assert direction.sign != "unknown"
        assert direction.quality["samples"] >= 1000
        # Strength 1 adds a standard deviation of its own attribute, or a part of one where three whole ones would leave a
        # face; less of everything else.
        own = direction.quality["entanglement"].pop(direction.quality["attribute"])
        assert 0.25 < own <= 1.001
        assert own > max(abs(moved) for moved in direction.quality["entanglement"].values())


@pytest.mark.parametrize("name", ["age", "gender", "pose", "smile"])
def test_shipped_directions_tell_their_attribute_on_held_out_faces(name):
    assert load_direction(name).quality["held_out_accuracy"] >= 0.9


def test_aliases_lead_to_directions_that_ship():
    assert set(ALIASES.values()) <= set(SHIPPED)
    assert load_direction("yaw").name == "pose"
    assert {*SHIPPED, "yaw"} <= set(known_names())


def test_an_unknown_direction_is_told_close_ones():
    with pytest.raises(UnknownName, match="did you mean smile"):
        load_direction("smiles")


def test_a_generator_without_directions_has_none():
    assert direction_names("no-such-generator") == []
    assert direction_names("..") == []
    with pytest.raises(UnknownName, match="known: none"):
        load_direction("age", "no-such-generator")


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 18, 5), (18, 5), (1, 1, 5)])
@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_published_forms_are_read(tmp_path, shape, suffix):
    vector = np.broadcast_to(np.array([3.0, 0, 4, 0, 0]), shape)
    path = tmp_path / f"age_boundary{suffix}"
    if suffix == ".npy":
        np.save(path, vector)
    else:
        torch.save(torch.from_numpy(vector.astype(np.float32)), path)
    direction = load_direction(path, GENERATOR)
    assert (direction.name, direction.space, direction.generator) == ("age", "w", GENERATOR)
    assert direction.unit == pytest.approx(5)
    torch.testing.assert_close(direction.vector, torch.tensor([0.6, 0, 0.8, 0, 0]))


def test_rows_that_differ_stay_one_per_layer(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(1, 4, 6)))
    direction = load_direction(tmp_path / "a.npy", GENERATOR)
    assert (direction.space, tuple(direction.vector.shape)) == ("w_plus", (4, 6))


def test_a_published_file_needs_its_generator_named(tmp_path):
    np.save(tmp_path / "age.npy", np.ones((1, 4)))
    with pytest.raises(LatentMismatch, match="does not say which generator"):
        load_direction(tmp_path / "age.npy")


class _Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_code_inside_a_file_never_runs(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"bomb{suffix}"
    if suffix == ".npy":
        np.save(path, np.array([_Bomb()], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(BrokenFile, match="bomb"):
        load_direction(path, GENERATOR)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>", b"\x93NUMPY\x01\x00", b"PK\x03\x04 and so on"])
def test_damaged_files_are_named(tmp_path, suffix, content):
    path = tmp_path / f"age{suffix}"
    path.write_bytes(content)
    with pytest.raises(BrokenFile, match="age"):
        load_direction(path, GENERATOR)


@pytest.mark.parametrize(
    "array", [np.zeros((1, 4)), np.ones((2, 3, 4)), np.ones((1, 4), dtype=int), np.full((1, 4), np.nan)]
)
def test_arrays_that_are_no_direction_are_refused(tmp_path, array):
    np.save(tmp_path / "age.npy", array)
    with pytest.raises(BrokenFile, match="age"):
        load_direction(tmp_path / "age.npy", GENERATOR)


def test_a_tensor_file_without_the_tensor_is_refused(tmp_path):
    torch.save({"direction": torch.ones(4)}, tmp_path / "age.pt")
    with pytest.raises(BrokenFile, match="one tensor"):
        load_direction(tmp_path / "age.pt", GENERATOR)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"unit": None},
        {"unit": "nan"},
        {"layers": [-1]},
        {"layers": "all"},
        {"space": "z"},
        {"name": 3},
        {"generator": None},
    ],
)
def test_a_damaged_card_is_refused(tmp_path, change):
    path = tmp_path / "grin.safetensors"
    save_direction(path, some_direction())
    tensors, card = safetensors.load(path)
    safetensors.save(path, tensors, card | change)
    with pytest.raises(BrokenFile, match="grin"):
        read_direction(path)


@pytest.mark.shared
@pytest.mark.parametrize(("ours", "theirs", "sign"), [("age", "age", 1), ("smile", "smile", 1), ("pose", "pose", -1)])
def test_shipped_directions_agree_with_the_published_ones(shared_folder, ours, theirs, sign):
    other = load_direction(shared_folder / "data" / "directions" / f"{theirs}.pt", DEFAULT_GENERATOR)
    # Positive pose of the published file turns the drawn face to image left; ours turns it to image right.
    assert sign * load_direction(ours).vector @ other.vector > 0.5


@pytest.mark.weights
def test_shipped_directions_fit_the_default_generator(default_generator):
    for name in SHIPPED:
        direction = load_direction(name, default_generator.identity)
        assert direction.w_dim == default_generator.w_dim
        assert direction.layers is None or max(direction.layers) < default_generator.num_ws
