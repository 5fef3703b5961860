"""Are the files of other projects read, mapped to the layers that there are, and refused where they mean nothing?"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from editing.errors import EditError
from generators.base import Identity
from generators.errors import LatentMismatch
from pretrained.catalog import DEFAULT_GENERATOR
from pretrained.directions import is_direction_file, load_direction, split_component
from pretrained.errors import BrokenFile, UnsafePickle
from pretrained.published import read_components

TOY, DEFAULT = Identity("toy", "a" * 64), Identity(DEFAULT_GENERATOR)


def test_a_flattened_file_of_sfe_is_one_vector_for_each_layer(tmp_path):
    rows = np.random.default_rng(0).normal(size=(18, 512)).astype(np.float32)
    rows /= np.linalg.norm(rows)
    np.save(tmp_path / "glasses.npy", rows.reshape(1, 9216))
    direction = load_direction(tmp_path / "glasses.npy", Identity("stylegan2-ffhq-1024"))
    moved = direction(torch.zeros(1, 18, 512), 1.0)
    torch.testing.assert_close(moved[0], torch.from_numpy(rows))


@pytest.mark.parametrize("shape", [(1, 9216), (18, 512), (1, 18, 512)])
def test_files_of_18_layers_move_the_16_layers_of_the_default_generator_that_they_share(tmp_path, shape):
    rows = np.random.default_rng(0).normal(size=(18, 512))
    np.save(tmp_path / "glasses.npy", rows.reshape(shape))
    moved = load_direction(tmp_path / "glasses.npy", DEFAULT)(torch.zeros(1, 16, 512), 2.0)
    torch.testing.assert_close(moved[0], torch.from_numpy(2 * rows[:16]).float())


def test_a_vector_of_stit_is_no_unit_vector_and_keeps_its_length_as_the_unit(tmp_path):
    row = np.random.default_rng(0).normal(size=512)
    row *= 0.94 / np.linalg.norm(row)
    np.save(tmp_path / "yaw.npy", np.repeat(row[None], 18, 0))
    direction = load_direction(tmp_path / "yaw.npy", DEFAULT)
    assert (direction.space, direction.unit) == ("w", pytest.approx(0.94))
    torch.testing.assert_close(direction(torch.zeros(1, 16, 512), -1.0)[0, 3], torch.from_numpy(-row).float())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stylegan_ffhq_age_boundary", r"Z of StyleGAN1 \(ffhq\)"),
        ("stylegan_celebahq_smile_c_gender_boundary", r"Z of StyleGAN1 \(celebahq\)"),
        ("pggan_celebahq_pose_boundary", "Z of PGGAN"),
        ("stylegan_ffhq_age_w_boundary", r"W of StyleGAN1 \(ffhq\)"),
    ],
)
def test_boundaries_of_interfacegan_are_refused_by_name_where_they_mean_nothing(tmp_path, name, message):
    np.save(tmp_path / f"{name}.npy", np.eye(1, 512))
    with pytest.raises(LatentMismatch, match=message):
        load_direction(tmp_path / f"{name}.npy", DEFAULT)


def test_a_boundary_in_the_w_of_stylegan1_is_taken_by_a_stylegan1(tmp_path):
    path = tmp_path / "stylegan_ffhq_age_w_boundary.npy"
    np.save(path, np.eye(1, 512))
    assert load_direction(path, Identity("karras2019stylegan-ffhq-1024x1024")).space == "w"


def idinvert(**meta) -> dict:
    return {"boundary": np.eye(1, 14 * 8).reshape(1, 14, 8) * 3, "meta_data": meta}


@pytest.mark.parametrize(
    ("layers", "expected"), [("0-3", (0, 1, 2, 3)), ("2,4", (2, 4)), ("[5]", (5,)), ("", None), (None, None)]
)
def test_the_pickled_dictionary_of_idinvert_is_read_with_its_layers(tmp_path, layers, expected):
    np.save(tmp_path / "pose.npy", np.array(idinvert(manipulate_layers=layers), dtype=object), allow_pickle=True)
    direction = load_direction(tmp_path / "pose.npy", TOY)
    assert (direction.space, tuple(direction.vector.shape), direction.layers) == ("w_plus", (14, 8), expected)


def test_layers_that_cannot_be_read_are_refused(tmp_path):
    np.save(tmp_path / "pose.npy", np.array(idinvert(manipulate_layers="all of them"), dtype=object), allow_pickle=True)
    with pytest.raises(BrokenFile, match="such as 0-3"):
        load_direction(tmp_path / "pose.npy", TOY)


def test_a_map_of_stylemapgan_is_told_by_its_content_and_refused(tmp_path):
    boundary = {"boundary": torch.ones(1, 64, 8, 8), "part1_indexes": [0, 1], "part2_indexes": [2]}
    torch.save(boundary, tmp_path / "smile_boundary.npy")
    with pytest.raises(LatentMismatch, match=r"StyleMapGAN.*\(1, 64, 8, 8\).*toy"):
        load_direction(tmp_path / "smile_boundary.npy", TOY)


def pca(count: int = 5) -> dict[str, torch.Tensor]:
    comp, _ = torch.linalg.qr(torch.randn(8, count, generator=torch.Generator().manual_seed(0)))
    return {"mean": torch.full((1, 8), 0.5), "comp": comp.T[:, None], "std": torch.arange(count, 0.0, -1)}


def save_pca(folder: Path, kind: str) -> Path:
    value = pca()
    if kind == ".pt":
        torch.save(value, folder / "ffhq_pca.pt")
    else:
        arrays = {f"lat_{key}": value[own].numpy() for key, own in (("comp", "comp"), ("mean", "mean"), ("stdev", "std"))}
        np.savez(folder / "ffhq_pca.npz", act_comp=np.ones((5, 3)), var_ratio=np.ones(5), **arrays)
    return folder / f"ffhq_pca{kind}"


@pytest.mark.parametrize("kind", [".pt", ".npz"])
def test_components_of_ganspace_are_chosen_by_number_and_counted_in_sigmas(tmp_path, kind):
    path = save_pca(tmp_path, kind)
    assert is_direction_file(f"{path}#2")
    direction = load_direction(f"{path}#2", TOY)
    assert (direction.name, direction.unit) == ("ffhq_pca#2", pytest.approx(3.0))
    torch.testing.assert_close(direction.vector, pca()["comp"][2, 0])
    components = read_components(path, TOY)
    moved = components.move_to(torch.zeros(1, 6, 8), [(2, 1, 3, -2.0)])
    torch.testing.assert_close(components.coordinates(moved[:, 1])[0, 2], torch.tensor(-2.0))


@pytest.mark.parametrize("kind", [".pt", ".npz"])
def test_components_without_a_number_are_told_how_to_choose_one(tmp_path, kind):
    with pytest.raises(BrokenFile, match=f"ffhq_pca{kind}#0"):
        load_direction(save_pca(tmp_path, kind), TOY)


def test_a_component_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(EditError, match="numbered 0 to 4"):
        load_direction(f"{save_pca(tmp_path, '.pt')}#5", TOY)


def test_a_number_behind_a_path_is_a_component_only_where_no_such_file_is(tmp_path):
    (tmp_path / "odd#3").touch()
    assert split_component(tmp_path / "odd#3") == (tmp_path / "odd#3", None)
    assert split_component("other.pt#3") == (Path("other.pt"), 3)
    assert split_component("age") == (Path("age"), None)


@pytest.mark.parametrize("key", ["comp", "std", "mean"])
@pytest.mark.parametrize("change", [lambda value: value * np.nan, lambda value: value[..., :1], lambda value: "text"])
def test_damaged_components_are_refused(tmp_path, key, change):
    torch.save(pca() | {key: change(pca()[key])}, tmp_path / "ffhq_pca.pt")
    with pytest.raises(BrokenFile, match="ffhq_pca"):
        load_direction(tmp_path / "ffhq_pca.pt#0", TOY)


class _Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("inside", [_Bomb(), {"boundary": _Bomb()}, {"boundary": np.eye(2), "meta_data": _Bomb()}])
@pytest.mark.parametrize("kind", ["npy", "pickle", "npz"])
def test_code_in_an_array_of_objects_never_runs(tmp_path, monkeypatch, inside, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.npy"
    if kind == "npy":
        np.save(path, np.array(inside, dtype=object), allow_pickle=True)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, lat_comp=np.array(inside, dtype=object))
    else:
        path.write_bytes(pickle.dumps(inside))
    for name in (path, f"{path}#0"):
        with pytest.raises(BrokenFile, match="bomb"):
            load_direction(name, TOY)
    assert not Path("exploded").exists()


def test_a_pickle_that_names_something_else_is_called_unsafe(tmp_path):
    np.save(tmp_path / "bomb.npy", np.array({"boundary": _Bomb()}, dtype=object), allow_pickle=True)
    with pytest.raises(UnsafePickle, match="pathlib"):
        load_direction(tmp_path / "bomb.npy", TOY)


def npy_header(shape: str) -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(-1,)", "(1, 999999)", "__import__('os')"])
@pytest.mark.parametrize("in_archive", [False, True])
def test_a_header_that_lies_costs_no_memory(tmp_path, shape, in_archive):
    data, path = npy_header(shape) + b"\0" * 64, tmp_path / "age.npy"
    if in_archive:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("lat_comp.npy", data)
        data = archive.getvalue()
    path.write_bytes(data)
    with pytest.raises(BrokenFile, match="age"):
        load_direction(f"{path}#0" if in_archive else path, TOY)


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "age.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("lat_comp.npy", b"\0" * (80 * 2**20))
    with pytest.raises(BrokenFile, match="unpacks to"):
        load_direction(tmp_path / "age.npz#0", TOY)


@pytest.mark.parametrize("dtype", [">f8", "<f2", "longdouble"])
def test_numbers_of_any_precision_and_byte_order_are_read(tmp_path, dtype):
    np.save(tmp_path / "age.npy", np.array([[3.0, 4.0]], dtype=dtype))
    torch.testing.assert_close(load_direction(tmp_path / "age.npy", TOY).vector, torch.tensor([0.6, 0.8]))


@pytest.mark.shared
@pytest.mark.parametrize(("name", "rows"), [("age", "w"), ("smile", "w"), ("pose", "w")])
def test_the_published_directions_of_e4e_are_unit_vectors_of_w(shared_folder, name, rows):
    direction = load_direction(shared_folder / "data" / "directions" / f"{name}.pt", DEFAULT)
    assert (direction.space, direction.unit) == (rows, pytest.approx(1, abs=1e-4))
    assert direction(torch.zeros(1, 16, 512), 1.0).shape == (1, 16, 512)
