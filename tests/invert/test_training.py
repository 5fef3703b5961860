from __future__ import annotations

import copy
import csv
import functools
import itertools
import json
import math
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import invert.training
from editing.directions import Direction
from editing.errors import EditError
from encoders.arcface import ArcFace
from encoders.backbone import IRSEBackbone
from encoders.compact import compact_encoder
from encoders.e4e import Encoder4Editing
from encoders.psp import GradualStyleEncoder, IRSEEncoder
from encoders.resize import resize
from encoders.restyle import BackboneEncoder
from encoders.stylemap import StyleMapEncoder
from encoders.training.losses import Losses
from generators.base import Identity
from generators.errors import ToolkitError, UnknownName
from generators.preview import PreviewHead
from generators.stylegan1 import StyleGAN1
from generators.stylegan3 import StyleGAN3
from invert.errors import OutputError
from invert.perceptual import Perceptual
from invert.training import (
    Plan,
    _sampled_batches,
    batches,
    begin_with,
    cut_rows,
    edit_offsets,
    from_uint8,
    move_codes,
    sample_codes,
    sample_faces,
    taught_edits,
    to_uint8,
    train_encoder,
)
from pretrained.catalog import DEFAULT_GENERATOR
from pretrained.directions import direction_names, save_direction
from pretrained.errors import BrokenFile
from pretrained.loading import load_encoder, save_encoder

PLAN = Plan(
    steps=2, batch_real=2, batch_sampled=2, batch_drawn=1, samples=6, preview_resolution=64, preview_steps=2, every=1, own=2
)


@pytest.fixture
def faces():
    return torch.randint(0, 256, (4, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def rows_of(folder):
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_a_checkpoint_a_log_and_a_sheet(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, faces[:1], tmp_path, PLAN)
    assert {"checkpoint.pt", "log.csv", "samples.png", "plan.json", "sampled.json"} <= {p.name for p in tmp_path.iterdir()}
    assert [row["step"] for row in rows_of(tmp_path)] == ["1", "2"]
    assert all(float(row["val_mse"]) > 0 for row in rows_of(tmp_path))


@pytest.mark.parametrize(("real", "samples"), [(2, 6), (0, 6), (0, 0)])
def test_without_validation_faces_some_of_the_trainings_are_shown_and_not_measured(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces, real, samples
):
    plan = replace(PLAN, batch_real=real, samples=samples, preview_resolution=0)
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces[:real], None, tmp_path, plan)
    with Image.open(tmp_path / "samples.png") as sheet:
        shown = torch.from_numpy(np.array(sheet)).permute(2, 0, 1)
    assert shown.shape == (3, 512, 256 * (real or samples or 8))
    if real:
        assert torch.equal(shown[:, :256, :256], faces[0])
    elif samples:
        assert np.array_equal(shown[:, :256, :256], np.load(tmp_path / "sampled_images.npy")[0])
    assert [row["val_mse"] for row in rows_of(tmp_path)] == ["", ""]
    assert not (tmp_path / "best.pt").exists()


def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    def train(folder, plan, report=None):
        encoder = copy.deepcopy(tiny_encoder)
        return train_encoder(encoder, tiny_generator, cheap_distance, faces, None, folder, plan, report=report)

    class Killed(Exception):
        pass

    def kill(step, terms):
        if step == 2:
            raise Killed

    plan = replace(PLAN, steps=3)
    whole = train(tmp_path / "whole", plan)
    with pytest.raises(Killed):
        train(tmp_path / "cut", plan, kill)
    resumed = train(tmp_path / "cut", plan)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_log_has_every_step_once_however_often_a_run_was_stopped(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    class Killed(Exception):
        pass

    def train(steps, killed_at):
        def report(step, terms):
            if step == killed_at:
                raise Killed

        plan = replace(PLAN, steps=steps, every=2)
        train_encoder(copy.deepcopy(tiny_encoder), tiny_generator, cheap_distance, faces, None, tmp_path, plan, report)

    for step in (1, 3):  # Before the first checkpoint, and after it.
        with pytest.raises(Killed):
            train(6, killed_at=step)
    assert [row["step"] for row in rows_of(tmp_path)] == ["1", "2", "3"]
    train(4, killed_at=None)
    assert [row["step"] for row in rows_of(tmp_path)] == ["1", "2", "3", "4"]


def test_a_run_of_another_plan_is_not_continued(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, PLAN)
    with pytest.raises(ToolkitError, match="another batch_real"):
        train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, replace(PLAN, batch_real=3))


def test_a_run_begins_with_another_ones_average_preview_and_faces(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    first = train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path / "first", PLAN)
    encoder, preview = copy.deepcopy(tiny_encoder), PreviewHead.for_generator(tiny_generator, 64)
    begin_with(tmp_path / "first", encoder, preview)
    assert_same_weights(encoder, first)
    kept = torch.load(tmp_path / "first" / "checkpoint.pt", weights_only=True)["trainer"]["preview"]
    assert all(torch.equal(value, kept[name]) for name, value in preview.state_dict().items())
    folder = tmp_path / "second"
    train_encoder(encoder, tiny_generator, cheap_distance, faces, None, folder, PLAN, start=tmp_path / "first")
    assert not (folder / "sampled_images.npy").exists(), "the first run's are there"


def test_an_encoder_of_deltas_begins_with_the_first_styles_of_another_run(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    first = train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, PLAN)
    sizes = {"sizes": first.sizes, "pyramid_channels": first.pyramid_channels, "width": first.width}
    encoder = compact_encoder("stylemap-e", 12, 32, **(sizes | {"deltas": True}))
    encoder.w_avg.copy_(tiny_generator.w_avg)
    begin_with(tmp_path, encoder, None)
    face = from_uint8(faces[:1].numpy())
    of_first, of_deltas = first.eval()(face), encoder.eval()(face)
    torch.testing.assert_close(of_deltas[0], of_first[0])
    for layer, style_map in enumerate(of_deltas[4:]):
        torch.testing.assert_close(
            style_map, of_first[0].mean((2, 3), keepdim=True).expand_as(style_map), msg=f"{layer + 4}"
        )


def test_a_run_begins_with_the_encoder_of_a_file(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    save_encoder(tmp_path / "e.safetensors", tiny_encoder, tiny_generator.identity)
    encoder = copy.deepcopy(tiny_encoder)
    nn.init.zeros_(encoder.top.weight)
    assert not begin_with(tmp_path / "e.safetensors", encoder, None), "no preview comes with a file"
    for ours, saved in zip(encoder.parameters(), tiny_encoder.parameters(), strict=True):
        assert torch.equal(ours, saved.half().float())


@pytest.mark.parametrize("kind", ["file", "run", "run without faces"])
def test_a_run_begins_with_an_encoder_for_another_generator_and_says_so(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces, kind
):
    first, second, said = tmp_path / "first", tmp_path / "second", []
    plan = replace(PLAN, steps=1, samples=6 if kind == "run" else 0, losses=replace(PLAN.losses, identity=0.0))
    if kind == "file":
        tiny_encoder.w_avg.add_(1)
        save_encoder(first, tiny_encoder, tiny_generator.identity)
    else:
        train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, first, plan)
    tiny_generator.identity = Identity("other", "1" * 64)
    tiny_generator.w_avg.add_(0.5)
    for steps in (1, 2):
        average = train_encoder(
            copy.deepcopy(tiny_encoder), tiny_generator, cheap_distance, faces, None, second, replace(plan, steps=steps),
            start=first, notify=said.append,
        )  # fmt: skip
        assert torch.equal(average.w_avg, tiny_generator.w_avg)
    assert said == [f"{first} was trained for the generator tiny (000000000000), not for other (111111111111): nothing but "
                    "its weights is taken"]  # fmt: skip
    assert (second / "preview.pt").is_file(), "it was fitted to this generator"
    assert (second / "sampled.json").is_file() == (kind == "run")


def test_an_encoder_of_deltas_in_a_file_keeps_its_deltas(tmp_path, tiny_generator):
    encoder = compact_encoder("e4e", 12, 32, pyramid_channels=(4, 4, 4), width=4)
    save_encoder(tmp_path / "e.safetensors", encoder, tiny_generator.identity)
    begun = copy.deepcopy(encoder)
    begin_with(str(tmp_path / "e.safetensors"), begun, None)
    assert torch.equal(begun.heads[1].to_styles.weight, encoder.heads[1].to_styles.weight.half().float())


def test_an_encoder_with_an_overview_begins_with_one_that_has_none(tmp_path, tiny_generator, tiny_encoder):
    save_encoder(tmp_path / "e.safetensors", tiny_encoder, tiny_generator.identity)
    sizes = {"sizes": tiny_encoder.sizes, "pyramid_channels": tiny_encoder.pyramid_channels, "width": tiny_encoder.width}
    encoder, source = compact_encoder("stylemap-e", 12, 32, **sizes).eval(), load_encoder(tmp_path / "e.safetensors")
    encoder.w_avg.copy_(source.w_avg)
    begin_with(tmp_path / "e.safetensors", encoder, None)
    face = torch.zeros(1, 3, 256, 256)
    for ours, theirs in zip(encoder(face), source(face), strict=True):
        assert torch.equal(ours, theirs)


def test_restyle_begins_with_what_an_encoder_of_single_faces_sees_in_them(tmp_path, tiny_generator):
    single = compact_encoder("psp", 12, 32, pyramid_channels=(4, 4, 4), width=4)
    save_encoder(tmp_path / "e.safetensors", single, tiny_generator.identity)
    encoder = compact_encoder("restyle", 12, 32, pyramid_channels=(4, 4, 4), width=2)
    begin_with(tmp_path / "e.safetensors", encoder, None)
    face, drawn = torch.rand(2, 1, 3, 256, 256) * 2 - 1
    seen = load_encoder(tmp_path / "e.safetensors").features(face)
    for ours, theirs in zip(encoder.features(torch.cat([face, drawn], 1)), seen, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(encoder.top.weight, single.top.weight.half().float())


@pytest.fixture
def build(monkeypatch, tiny_generator):
    """A builder of published encoders for the tiny generator, with a short backbone."""
    for network in (IRSEBackbone, IRSEEncoder):
        monkeypatch.setattr(network, "units", (1, 1, 1, 1))

    def build_short(network, num_ws=12, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder = network(num_ws, 32).eval().requires_grad_(False)
        encoder.w_avg.copy_(tiny_generator.w_avg)
        return encoder

    return build_short


@pytest.fixture
def publish(build, tmp_path):
    """A writer of encoders as pSp, e4e and ReStyle publish them, with more layers than the tiny generator."""

    def write(network, told=True):
        encoder = build(network, 14, seed=1)
        state = {f"encoder.{name}": value for name, value in encoder.state_dict().items() if name != "w_avg"}
        options = {"opts": {"encoder_type": network.__name__}} if told else {}
        torch.save({"state_dict": state, "latent_avg": torch.zeros(32), **options}, tmp_path / "published.pt")
        return encoder, tmp_path / "published.pt"

    return write


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("network", [GradualStyleEncoder, Encoder4Editing, BackboneEncoder])
def test_a_run_begins_with_the_first_heads_of_a_published_encoder(build, publish, network, told):
    theirs, file = publish(network, told)
    encoder = build(network)
    assert not begin_with(file, encoder, None, notify=lambda _: None)
    face = torch.rand(1, encoder.in_channels, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(encoder(face) - encoder.w_avg, theirs(face)[:, :12] - theirs.w_avg[:12])


def test_e4e_begins_with_psps_first_style_in_all_layers_and_not_the_other_way_round(build, publish):
    psp, file = publish(GradualStyleEncoder)
    encoder, face = build(Encoder4Editing), torch.zeros(1, 3, 256, 256)
    begin_with(file, encoder, None, notify=lambda _: None)
    latent = encoder(face) - encoder.w_avg
    torch.testing.assert_close(latent, (psp(face) - psp.w_avg)[:, :1].expand_as(latent))
    with pytest.raises(ToolkitError, match=r"published\.pt gives one style and deltas from it"):
        begin_with(publish(Encoder4Editing)[1], build(GradualStyleEncoder), None)


def test_deltas_of_a_run_of_the_published_e4e_stay(tmp_path, build, tiny_generator, cheap_distance, faces):
    plan = replace(PLAN, steps=1, batch_real=0, batch_sampled=1, samples=1, preview_resolution=0, own=0)
    trained = build(Encoder4Editing).requires_grad_(True)
    first = train_encoder(trained, tiny_generator, cheap_distance, faces[:0], None, tmp_path, plan)
    encoder = build(Encoder4Editing, seed=1)
    begin_with(tmp_path, encoder, None)
    assert_same_weights(encoder, first)


@pytest.mark.parametrize("network", [GradualStyleEncoder, BackboneEncoder, StyleMapEncoder])
def test_a_run_begins_with_the_backbone_of_arcface_and_heads_of_its_own(tmp_path, build, network):
    face = ArcFace(units=(1, 1, 1, 1))
    torch.save(face.state_dict(), tmp_path / "model_ir_se50.pth")
    if network is StyleMapEncoder:
        network = functools.partial(StyleMapEncoder, backbone="ir-se50")
    encoder, before = build(network), build(network).state_dict()
    assert not begin_with(tmp_path / "model_ir_se50.pth", encoder, None)
    for name, value in encoder.state_dict().items():
        known = face.state_dict().get(name.removeprefix("backbone."), before[name])
        assert torch.equal(value[:, :3] if value.ndim == 4 else value, known[:, :3] if value.ndim == 4 else known), name
    with pytest.raises(ToolkitError, match="a face network on another backbone than this run's"):
        begin_with(tmp_path / "model_ir_se50.pth", StyleMapEncoder(12, 32, width=4), None)


def test_an_encoder_on_another_backbone_is_refused_by_its_name(build, tmp_path, tiny_generator, tiny_encoder):
    save_encoder(tmp_path / "e.safetensors", tiny_encoder, tiny_generator.identity)
    with pytest.raises(ToolkitError, match="its backbone is compact, and --backbone ir-se50"):
        begin_with(tmp_path / "e.safetensors", build(GradualStyleEncoder), None)


def test_faces_that_are_moved_by_edits_come_after_the_others(tmp_path, tiny_generator):
    edits = torch.randn(3, tiny_generator.num_ws, tiny_generator.w_dim, generator=torch.Generator().manual_seed(1))
    for name in ("both", "plain"):
        (tmp_path / name).mkdir()
    images, codes = sample_faces(tiny_generator, 8, 3, tmp_path / "both", edits=edits, edited=4)
    plain = sample_faces(tiny_generator, 8, 3, tmp_path / "plain")
    assert (len(images), len(codes)) == (12, 12)
    assert np.array_equal(images[:8], plain[0])
    assert np.array_equal(codes[:8], plain[1])
    with torch.no_grad():
        drawn = tiny_generator.synthesis(torch.from_numpy(np.array(codes[8:])).float())
    assert np.array_equal(images[8:], to_uint8(drawn).numpy())


def test_a_run_without_edits_takes_its_faces_from_one_with_them(tmp_path, tiny_generator):
    edits = torch.randn(3, tiny_generator.num_ws, tiny_generator.w_dim, generator=torch.Generator().manual_seed(1))
    images, codes = sample_faces(tiny_generator, 6, 3, tmp_path, edits=edits, edited=5)
    plain = sample_faces(tiny_generator, 6, 3, tmp_path)
    assert np.array_equal(plain[0], images[:6])
    assert np.array_equal(plain[1], codes[:6])
    drawn = _sampled_batches(tiny_generator, replace(PLAN, batch_sampled=6, edited=5), tmp_path, 0, slice(None))
    for _, known in itertools.islice(drawn, 3):
        assert all(any(np.allclose(code, base) for base in codes[:6]) for code in known.numpy())
    for others in ({"count": 5}, {"count": 11}, {"count": 6, "edits": edits, "edited": 6}):
        with pytest.raises(ToolkitError, match="another number of sampled faces"):
            sample_faces(tiny_generator, seed=3, folder=tmp_path, **others)


def test_codes_are_moved_by_two_edits_up_to_their_full_strength(tiny_generator):
    edits = torch.eye(4).reshape(4, 1, 4)
    moved = move_codes(torch.zeros(500, 1, 4), edits, 3)[:, 0]
    assert torch.equal(moved, move_codes(torch.zeros(500, 1, 4), edits, 3)[:, 0])
    assert set((moved != 0).sum(1).tolist()) == {1, 2}
    assert 1 < float(moved.abs().max()) <= 2, "the same edit twice adds up"
    assert float(moved.mean().abs()) < 0.05
    assert bool((moved.abs().amax(0) > 0.9).all())


def test_a_run_takes_the_faces_and_the_preview_of_another(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    first, second = tmp_path / "first", tmp_path / "second"
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, first, PLAN)
    fitted = torch.load(first / "preview.pt", weights_only=True)
    reports = []
    encoder = copy.deepcopy(tiny_encoder)
    train_encoder(
        encoder, tiny_generator, cheap_distance, faces, None, second, PLAN,
        report=lambda step, terms: reports.append(step), faces=first,
    )  # fmt: skip
    assert min(reports) == 1, "nothing is fitted before the first step"
    assert not (second / "sampled_images.npy").exists()
    assert fitted.keys() == PreviewHead.for_generator(tiny_generator, PLAN.preview_resolution).state_dict().keys()
    with pytest.raises(ToolkitError, match=r"preview\.pt is another preview"):
        train_encoder(
            encoder, tiny_generator, cheap_distance, faces, None, tmp_path / "third",
            replace(PLAN, preview_resolution=PLAN.preview_resolution // 2), faces=first,
        )  # fmt: skip


def test_edits_that_consistency_teaches_are_what_the_user_wrote(tmp_path, tiny_generator):
    vector = torch.randn(tiny_generator.w_dim, generator=torch.Generator().manual_seed(0))
    file = tmp_path / "older.safetensors"
    save_direction(file, Direction.of("older", vector, tiny_generator.identity))
    offsets = edit_offsets([f"{file}=3", f"{file}@0-1=-2"], tiny_generator)
    assert offsets.shape == (2, tiny_generator.num_ws, tiny_generator.w_dim)
    torch.testing.assert_close(offsets[0], 3 * vector.expand_as(offsets[0]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(offsets[1, :2], -2 * vector.expand(2, -1), rtol=1e-4, atol=1e-5)
    assert not offsets[1, 2:].any()
    assert edit_offsets([], tiny_generator) is None


def test_the_editable_encoder_is_taught_what_ships_where_nobody_says():
    shipped = direction_names(DEFAULT_GENERATOR)
    assert taught_edits("stylemap-e", Identity(DEFAULT_GENERATOR)) == tuple(f"{name}=3" for name in shipped)
    assert {"age=3", "smile=3"} <= set(taught_edits("stylemap-e", Identity(DEFAULT_GENERATOR)))
    assert taught_edits("stylemap", Identity(DEFAULT_GENERATOR)) == ()
    assert taught_edits("stylemap-e", Identity("another")) == ()


def test_an_edit_that_cannot_be_taught_stops_the_training_before_it_begins(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    file = tmp_path / "older.safetensors"
    save_direction(file, Direction.of("older", torch.ones(tiny_generator.w_dim), tiny_generator.identity))
    for edit, error, what in (
        ("older=3", UnknownName, "older"),
        ("older", EditError, "expected NAME=STRENGTH"),
        (f"{file}=0", EditError, "does nothing"),
    ):
        plan = replace(PLAN, edits=(edit,))
        with pytest.raises(error, match=what):
            train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path / "run", plan)
        assert not (tmp_path / "run").exists(), "a corrected command is not told of a run with another plan"


def test_a_run_with_edits_goes_on_and_not_without_them(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    file = tmp_path / "older.safetensors"
    save_direction(file, Direction.of("older", torch.ones(tiny_generator.w_dim), tiny_generator.identity))
    plan = replace(PLAN, edits=(f"{file}=3",), losses=replace(PLAN.losses, consistency=0.5))
    for steps in (1, 2):
        train_encoder(
            tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path / "run", replace(plan, steps=steps)
        )
    assert [float(row["consistency"]) > 0 for row in rows_of(tmp_path / "run")] == [True, True]
    with pytest.raises(ToolkitError, match="another edits"):
        train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path / "run", replace(plan, edits=()))


def test_a_run_does_not_begin_with_one_of_another_shape(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    with pytest.raises(ToolkitError, match=r"holds no checkpoint\.pt: expected the folder of a training run"):
        begin_with(tmp_path, tiny_encoder, None)
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, PLAN)
    with pytest.raises(ToolkitError, match="holds another encoder or preview"):
        begin_with(tmp_path, compact_encoder("psp", 12, 32, width=4), None)


def test_restyle_does_not_begin_with_an_encoder_of_another_architecture(tmp_path, tiny_generator, monkeypatch):
    monkeypatch.setattr(GradualStyleEncoder, "units", (1, 1, 1, 1))
    other = GradualStyleEncoder(num_ws=12, w_dim=512)
    save_encoder(tmp_path / "e.safetensors", other, tiny_generator.identity)
    with pytest.raises(ToolkitError, match="holds another encoder or preview"):
        begin_with(tmp_path / "e.safetensors", compact_encoder("restyle", 12, 32, width=4), None)


def assert_same_weights(a, b):
    for ours, theirs in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_sampled_faces_are_what_their_codes_draw(tmp_path, tiny_generator):
    images, codes = sample_faces(tiny_generator, 6, 0, tmp_path)
    drawn = tiny_generator.synthesis(torch.from_numpy(codes[4:5].copy()).float())
    assert np.abs(to_uint8(drawn).numpy()[0].astype(int) - images[4].astype(int)).max() <= 1


def test_sampled_faces_of_a_small_generator_are_those_that_fresh_ones_would_be(tmp_path):
    generator = small_stylegan1()
    images, codes = sample_faces(generator, 2, 0, tmp_path)
    with torch.no_grad():
        drawn = generator.synthesis(torch.from_numpy(codes[:].copy()).float())
    assert np.array_equal(images, to_uint8(resize(drawn, 256)).numpy())


def test_sampling_goes_on_where_it_was_stopped(tmp_path, tiny_generator):
    images, _ = sample_faces(tiny_generator, 6, 0, tmp_path)
    whole = images.copy()
    images[4:] = 0
    images.flush()
    (tmp_path / "sampled.json").write_text('{"done": 4, "seed": 0}')
    assert np.array_equal(sample_faces(tiny_generator, 6, 0, tmp_path)[0], whole)


def test_half_of_the_codes_mix_two_styles(tiny_generator):
    codes = sample_codes(tiny_generator, 10, 0)
    mixed = (codes != codes[:, :1]).flatten(1).any(1)
    assert mixed.tolist() == [False] * 5 + [True] * 5


def test_batches_use_every_row_before_any_repeats():
    rows = np.concatenate(list(itertools.islice(batches(12, 4, seed=0), 3)))
    assert sorted(rows) == list(range(12))


def test_skipped_batches_are_the_first_ones():
    whole = list(itertools.islice(batches(10, 4, seed=3), 8))
    rest = list(itertools.islice(batches(10, 4, seed=3, skip=5), 3))
    assert all(np.array_equal(a, b) for a, b in zip(whole[5:], rest, strict=True))


def test_bytes_survive_the_way_through_floats():
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, 1)
    assert np.array_equal(to_uint8(from_uint8(values)).numpy(), values)


def test_the_average_that_did_best_on_the_validation_faces_is_returned(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces, monkeypatch
):
    figures = iter([0.5, 0.1, 0.9])
    seen = []

    def validated(trainer, *_):
        seen.append([parameter.clone() for parameter in trainer.average.parameters()])
        return {"val_mse": 0.0, "val_lpips": next(figures)}

    monkeypatch.setattr("invert.training.validate", validated)
    average = train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, faces[:1], tmp_path, replace(PLAN, steps=3))
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), seen[1], strict=True))


def test_the_best_of_a_run_decides_only_where_it_was_judged_alike(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces, monkeypatch
):
    figures = {}
    monkeypatch.setattr("invert.training.validate", lambda *_: {"val_mse": 0.5, "val_lpips": figures["next"]})

    def train(steps, lpips, validation):
        figures["next"] = lpips
        plan, encoder = replace(PLAN, steps=steps, preview_resolution=0), copy.deepcopy(tiny_encoder)
        return train_encoder(encoder, tiny_generator, cheap_distance, faces, validation, tmp_path, plan)

    def begun():
        begin_with(tmp_path, encoder := copy.deepcopy(tiny_encoder), None)
        return encoder

    best = train(1, 0.1, faces[:1])
    assert_same_weights(train(2, 0.2, faces[:1]), best)
    assert_same_weights(begun(), best)
    last = train(3, 0.2, None)
    assert any(not torch.equal(a, b) for a, b in zip(last.parameters(), best.parameters(), strict=True))
    assert_same_weights(begun(), last)
    assert_same_weights(train(3, 0.2, faces[:1]), best)
    train(4, 0.3, faces[1:3])
    assert torch.load(tmp_path / "best.pt", weights_only=True)["val_lpips"] == 0.3


@pytest.mark.parametrize(("name", "before", "wins"), [("off", 0.1, True), ("off", 0.0, False), ("LPIPS", 0.0, True)])
def test_the_best_of_a_run_of_before_its_judge_was_written_down_is_told_by_its_distance(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces, monkeypatch, name, before, wins
):
    figure = 0.0 if name == "off" else 0.2
    monkeypatch.setattr("invert.training.validate", lambda *_: {"val_mse": 0.5, "val_lpips": figure})
    tmp_path.joinpath("run").mkdir()
    older = {"average": tiny_encoder.state_dict(), "step_number": 0, "val_lpips": before, "val_mse": 0.4}
    torch.save(older, tmp_path / "run" / "best.pt")
    perceptual, plan = Perceptual(name, cheap_distance.distance), replace(PLAN, steps=1, preview_resolution=0)
    train_encoder(copy.deepcopy(tiny_encoder), tiny_generator, perceptual, faces, faces[:1], tmp_path / "run", plan)
    assert torch.load(tmp_path / "run" / "best.pt", weights_only=True)["step_number"] == int(wins)


def test_a_training_that_goes_astray_stops_before_it_spoils_what_was_kept(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces, monkeypatch
):
    figures = iter([0.5, math.nan])
    monkeypatch.setattr("invert.training.validate", lambda *_: {"val_mse": 0.0, "val_lpips": next(figures)})
    with pytest.raises(ToolkitError, match=r"step 2: .* lower --lr than 0\.0003"):
        train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, faces[:1], tmp_path, PLAN)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["val_lpips"] == 0.5
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["trainer"]["step_number"] == 1


def test_fresh_faces_are_drawn_at_every_step_where_none_are_kept(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    seen = []
    plan = replace(PLAN, samples=0)
    train_encoder(
        tiny_encoder,
        tiny_generator,
        cheap_distance,
        faces,
        None,
        tmp_path,
        plan,
        lambda step, terms: seen.append(terms.get("code")),
    )
    assert len(set(seen) - {None}) == 2
    assert not (tmp_path / "sampled_images.npy").exists()


def test_real_faces_alone_will_do_where_fresh_ones_would_be_drawn(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    plan = replace(PLAN, samples=0, batch_sampled=0, batch_drawn=0)
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, plan)
    assert [(row["step"], row["code"]) for row in rows_of(tmp_path)] == [("1", "0"), ("2", "0")]


def test_a_quarter_of_the_fresh_faces_is_moved_by_the_edits_that_are_taught(tmp_path, tiny_generator):
    plan, everyone = replace(PLAN, samples=0, batch_sampled=8), slice(None)
    edits = torch.randn(2, tiny_generator.num_ws, tiny_generator.w_dim, generator=torch.Generator().manual_seed(1))
    plain = next(_sampled_batches(tiny_generator, plan, tmp_path, 5, everyone))
    moved = next(_sampled_batches(tiny_generator, plan, tmp_path, 5, everyone, edits))
    is_same = (plain[1] == moved[1]).all((1, 2))
    assert is_same.tolist() == [True] * 6 + [False] * 2
    torch.testing.assert_close(moved[0], tiny_generator.synthesis(moved[1]).clamp(-1, 1))


def test_an_unknown_precision_is_refused_with_those_there_are(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    with pytest.raises(ToolkitError, match="bfloat16"):
        train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, replace(PLAN, precision="bfloat"))


TWO_PROCESSES = """
import sys
from dataclasses import replace
from pathlib import Path
import torch, torch.distributed as dist
sys.path[:0] = [{root!r}]
from encoders.compact import compact_encoder
from encoders.e4e import Encoder4Editing
from encoders.psp import IRSEEncoder
from generators.mobilestylegan import MobileStyleGAN
import invert.training
from invert.training import Losses, Plan, train_encoder
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()

class Spied(invert.training.EncoderTrainer):
    def step(self, *given, **more):
        torch.save(self.preview.state_dict(), folder / f"preview{{rank}}-{{self.step_number}}.pt")
        if self.step_number == killed_at:
            sys.exit()
        terms = super().step(*given, **more)
        torch.save(terms, folder / f"terms{{rank}}-{{self.step_number}}.pt")
        return terms

invert.training.EncoderTrainer = Spied
for name, killed_at in zip(sys.argv[2::2], map(int, sys.argv[3::2])):
    folder = Path({folder!r}) / name
    torch.manual_seed(0)
    sizes = dict(channels=(8, 8, 8, 8, 8), const_channels=8, w_dim=8, z_dim=8, mapping_layers=1)
    generator = MobileStyleGAN(**sizes).eval().requires_grad_(False)
    plan = Plan(steps=2, batch_real=4, batch_sampled=2, batch_drawn=2, own=4, own_every=2, samples=4, preview_resolution=16,
                preview_steps=1, every=1, losses=Losses(adversarial=0.1, consistency=0.1))
    torch.manual_seed(rank)  # Whatever the processes start with, they have to agree.
    if sys.argv[1] == "compact":
        encoder = compact_encoder("e4e", generator.num_ws, 8, pyramid_channels=(4, 4, 4), width=4)
    else:
        IRSEEncoder.units = (1, 1, 1, 1)
        encoder = Encoder4Editing(generator.num_ws, 8)
        plan = replace(plan, batch_real=2, batch_sampled=0, batch_drawn=0, own=0, samples=0)
    faces = torch.randint(0, 256, (4, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    distance = lambda a, b: (a - b).abs().mean((1, 2, 3))
    train_encoder(encoder, generator, distance, faces, faces[:1], folder, plan)
    torch.save(encoder.state_dict(), folder / f"encoder{{rank}}.pt")
"""


@pytest.fixture
def in_two_processes(tmp_path):
    """Train in two processes; runs are folders, each followed by the step that it is killed before (-1: none)."""
    import subprocess
    import sys
    from pathlib import Path

    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path)))

    def train(network, *runs):
        arguments = ["--standalone", "--nproc-per-node", "2", str(script), network, *map(str, runs)]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]

    return train


def test_two_processes_train_the_published_e4e_whose_heads_wait_for_their_stage(tmp_path, in_two_processes):
    in_two_processes("published", "run", -1)
    first, second = (torch.load(tmp_path / "run" / f"encoder{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items() if "running" not in name)


def test_two_processes_train_one_encoder_and_go_on_as_if_they_had_never_stopped(tmp_path, in_two_processes):
    in_two_processes("compact", "whole", -1, "cut", 1)
    assert not (tmp_path / "cut/encoder0.pt").exists()
    in_two_processes("compact", "cut", -1)

    def kept(name, what):
        return torch.load(tmp_path / name / what, weights_only=True)

    for what in ("encoder{}.pt", "preview{}-0.pt", "preview{}-1.pt", "terms{}-1.pt", "terms{}-2.pt"):
        first = kept("whole", what.format(0))
        for other in (kept("whole", what.format(1)), kept("cut", what.format(0)), kept("cut", what.format(1))):
            for key, value in first.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[key])), (what, key)
    assert [row["step"] for row in rows_of(tmp_path / "cut")] == ["1", "2"]


def test_processes_that_cannot_share_a_batch_evenly_say_so(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces, monkeypatch
):
    monkeypatch.setattr("invert.training.world_size", lambda: 2)
    with pytest.raises(ToolkitError, match="2 processes cannot share batch_drawn evenly"):
        train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, replace(PLAN, own=4))


def test_the_squared_error_decides_where_there_is_no_perceptual_distance(
    tmp_path, tiny_generator, tiny_encoder, faces, monkeypatch
):
    errors = iter([0.5, 0.1, 0.9])
    monkeypatch.setattr("invert.training.validate", lambda *_: {"val_mse": next(errors), "val_lpips": 0.0})
    train_encoder(
        tiny_encoder, tiny_generator, lambda a, b: a.new_zeros(len(a)), faces, faces[:1], tmp_path, replace(PLAN, steps=3)
    )
    assert torch.load(tmp_path / "best.pt", weights_only=True)["step_number"] == 2


@pytest.mark.parametrize(
    ("write", "call"), [("_save_checkpoint", 1), ("_keep_preview", 1), ("append_row", 2), ("_save_checkpoint", 2)]
)
def test_a_run_that_is_killed_before_a_write_goes_on_as_if_it_had_never_stopped(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces, monkeypatch, write, call
):
    class Killed(Exception):
        pass

    original, calls = getattr(invert.training, write), itertools.count(1)

    def kill(*given):
        if next(calls) == call:
            raise Killed
        original(*given)

    def train(folder):
        plan = replace(PLAN, steps=2, every=2)
        encoder = copy.deepcopy(tiny_encoder)
        return train_encoder(encoder, tiny_generator, cheap_distance, faces, None, tmp_path / folder, plan)

    monkeypatch.setattr(f"invert.training.{write}", kill)
    with pytest.raises(Killed):
        train("cut")
    monkeypatch.undo()
    assert_same_weights(train("cut"), train("whole"))
    assert [row["step"] for row in rows_of(tmp_path / "cut")] == ["1", "2"]


def test_an_encoder_of_deltas_is_not_judged_before_all_of_them_are_on(tmp_path, tiny_generator, cheap_distance, faces):
    encoder = compact_encoder("e4e", 12, 32, pyramid_channels=(4, 4, 4), width=4)
    is_kept = []
    train_encoder(
        encoder, tiny_generator, cheap_distance, faces, faces[:1], tmp_path, PLAN,
        report=lambda step, terms: is_kept.append((tmp_path / "best.pt").is_file()) if step > 0 else None,
    )  # fmt: skip
    assert is_kept == [False, True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"preview_resolution": 7}, "--preview-resolution 7: no features of 7 px: expected a power of 2"),
        ({"preview_resolution": 256}, "or 0 for none"),
        ({"batch_real": 0, "batch_sampled": 0}, "0 real and 0 drawn faces a step make no 1 pieces"),
        ({"batch_real": 0, "batch_sampled": 4, "own": 4, "parts": 2}, "0 real and 1 drawn faces a step make no 2 pieces"),
        ({"learning_rate": math.nan}, "a learning rate of nan: expected a number above 0"),
        ({"precision": "float16"}, "float16 is for GPUs alone: use bfloat16"),
        ({"edited": 2}, "--edited 2: no edit moves these faces: name some by --edit"),
    ],
)
def test_settings_that_cannot_work_are_refused_and_leave_no_folder(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces, change, words
):
    with pytest.raises(ToolkitError, match=words):
        train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path / "run", replace(PLAN, **change))
    assert not (tmp_path / "run").exists()


def small_stylegan1():
    return StyleGAN1(16, 8, 6, 3, channel_base=128, channel_max=12).eval().requires_grad_(False)


def small_stylegan3():
    generator = StyleGAN3(32, 16, w_dim=16, channel_base=256, channel_max=16, num_layers=6, margin_size=4)
    return generator.eval().requires_grad_(False)


@pytest.mark.parametrize("make", [small_stylegan1, small_stylegan3])
@pytest.mark.parametrize("kind", ["psp", "e4e", "restyle"])
def test_encoders_of_one_style_a_layer_are_trained_for_stylegan1_and_3_too(tmp_path, cheap_distance, faces, make, kind):
    generator = make()
    encoder = compact_encoder(kind, generator.num_ws, generator.w_dim, pyramid_channels=(4, 4, 4), width=4)
    plan = replace(PLAN, preview_resolution=0, losses=replace(PLAN.losses, consistency=0.5))
    train_encoder(encoder, generator, cheap_distance, faces, faces[:1], tmp_path, plan)
    assert all(float(row["code"]) > 0 and float(row["consistency"]) > 0 for row in rows_of(tmp_path))


def test_maps_are_refused_for_a_generator_that_takes_none_and_leave_no_folder(tmp_path, cheap_distance, faces):
    generator = small_stylegan3()
    plan, sizes = replace(PLAN, preview_resolution=0), {"pyramid_channels": (4, 4, 4), "width": 4}
    encoder = compact_encoder("stylemap", generator.num_ws, generator.w_dim, **sizes)
    with pytest.raises(ToolkitError, match=r"no maps, .*: train psp, e4e or restyle for it, or take --sizes 1,1,1"):
        train_encoder(encoder, generator, cheap_distance, faces, None, tmp_path / "run", plan)
    assert not (tmp_path / "run").exists()


ALL_TERMS = Losses(consistency=1.0, edits=1.0, delta=0.01, adversarial=0.05)


@pytest.mark.parametrize(
    ("change", "real", "off"),
    [
        ({}, 4, {"identity": "give --identity FILE", "edits": "name some by --edit"}),
        ({"own": 0, "losses": Losses(consistency=0.5, identity=0.0)}, 4, {"consistency": "raise --own"}),
        (
            {"batch_sampled": 0, "batch_drawn": 0, "losses": Losses(identity=0.0, edits=1.0)},
            4,
            {"code": "raise --batch-sampled", "edits": "name some by --edit"},
        ),
        ({"batch_real": 0, "losses": Losses(identity=0.0)}, 0, {"w_norm": "real faces"}),
        ({"losses": Losses(identity=0.0, w_norm=0.0)}, 4, {}),
    ],
)
def test_terms_that_have_a_weight_and_are_off_are_named_and_those_that_are_wanted_refused(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces, change, real, off
):
    plan, said = replace(PLAN, **{"steps": 1, "preview_resolution": 0, "losses": ALL_TERMS} | change), []

    def train(folder, **more):
        real_faces, encoder = faces[:real], copy.deepcopy(tiny_encoder)
        train_encoder(
            encoder, tiny_generator, cheap_distance, real_faces, None, tmp_path / folder, plan, notify=said.append, **more
        )

    for term, need in off.items():
        with pytest.raises(ToolkitError, match=f"--loss {term}: that term would be off: it needs .*{need}"):
            train("refused", wanted=[term])
    assert not (tmp_path / "refused").exists()
    assert said == []
    train("run", wanted=["code"] if "code" not in off else [])
    assert [line.split(" term is off: it needs ")[0] for line in said] == [f"the {term}" for term in off]
    assert all(need in line for line, need in zip(said, off.values(), strict=True))
    (row,) = rows_of(tmp_path / "run")
    assert [term for term in off if float(row[term] or 0)] == [], "what is said to be off is"
    of_weight = {name for name, weight in asdict(plan.losses).items() if weight}
    assert all(float(row[term]) > 0 for term in of_weight - off.keys()), "what is not is on"


def test_a_term_of_maps_and_one_of_lpips_are_refused_where_there_are_none(tmp_path, tiny_generator, cheap_distance, faces):
    encoder = compact_encoder("psp", 12, 32, pyramid_channels=(4, 4, 4), width=4)
    distance = Perceptual("off", lambda a, b: a.new_zeros(len(a)))
    for term, need in (("roughness", "style maps"), ("lpips", "LPIPS's weights")):
        with pytest.raises(ToolkitError, match=f"--loss {term}: .*{need}"):
            train_encoder(encoder, tiny_generator, distance, faces, None, tmp_path / "run", PLAN, wanted=[term])
    assert not (tmp_path / "run").exists()


def test_a_generator_of_classes_is_refused(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    tiny_generator.c_dim = 3
    with pytest.raises(ToolkitError, match="draws by labels"):
        train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path / "run", PLAN)


def test_a_run_that_cannot_be_written_says_so(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match=r"cannot be written: .*choose another folder"):
            train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, folder, PLAN)


def test_faces_are_not_drawn_into_the_folder_of_another_run(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ToolkitError, match=r"empty holds no sampled\.json: expected the folder of a training run"):
        train_encoder(
            tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path / "run", PLAN, faces=tmp_path / "empty"
        )
    assert not list((tmp_path / "empty").iterdir())


def test_a_run_with_a_preview_begins_with_one_without_and_goes_on_when_that_is_gone(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    first, second = tmp_path / "first", tmp_path / "second"
    without = replace(PLAN, preview_resolution=0, samples=0, steps=1)
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, first, without)
    for steps in (1, 2):
        encoder = copy.deepcopy(tiny_encoder)
        train_encoder(encoder, tiny_generator, cheap_distance, faces, None, second, replace(PLAN, steps=steps), start=first)
        shutil.rmtree(first, ignore_errors=True)
    assert {"preview.pt", "sampled.json"} <= {file.name for file in second.iterdir()}
    assert [row["step"] for row in rows_of(second)] == ["1", "2"]


def test_a_run_for_another_generator_encoder_or_data_is_not_continued(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    def train(encoder=tiny_encoder, real=faces, folder="run", **more):
        train_encoder(encoder, tiny_generator, cheap_distance, real, None, tmp_path / folder, PLAN, **more)

    train()
    with pytest.raises(ToolkitError, match=r"another encoder\.arguments\.sizes: .*=\[2, 4, 1\]"):
        train(encoder=compact_encoder("psp", 12, 32, pyramid_channels=(16, 12, 8), width=16))
    with pytest.raises(ToolkitError, match="another faces"):
        train(real=faces.flip(0))
    tiny_generator.identity = Identity("other", "1" * 64)
    with pytest.raises(ToolkitError, match=r"made for the generator tiny .*, not for other"):
        train()
    with pytest.raises(ToolkitError, match=r"made for the generator tiny .*, not for other"):
        train(folder="second", faces=tmp_path / "run")


def test_a_run_that_took_its_sampled_faces_from_another_is_not_continued_on_others(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    def train(folder, steps, seed=0, **more):
        plan = replace(PLAN, steps=steps, seed=seed, preview_resolution=0)
        encoder = copy.deepcopy(tiny_encoder)
        train_encoder(encoder, tiny_generator, cheap_distance, faces, None, tmp_path / folder, plan, **more)

    train("first", 1, seed=7)
    train("second", 1, faces=tmp_path / "first")
    with pytest.raises(ToolkitError, match=r"another sampled_faces: .*; its sampled faces are those in .*first$"):
        train("second", 2)
    assert not (tmp_path / "second" / "sampled.json").exists(), "nothing is drawn before"
    shutil.copytree(tmp_path / "first", tmp_path / "copied")
    train("second", 2, faces=tmp_path / "copied")
    assert [row["step"] for row in rows_of(tmp_path / "second")] == ["1", "2"]


def test_sampled_faces_that_are_drawn_again_are_the_same_ones(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    for steps in (1, 2):
        plan, encoder = replace(PLAN, steps=steps, preview_resolution=0), copy.deepcopy(tiny_encoder)
        train_encoder(encoder, tiny_generator, cheap_distance, faces, None, tmp_path, plan)
        (tmp_path / "sampled.json").unlink()
    assert [row["step"] for row in rows_of(tmp_path)] == ["1", "2"]


def test_a_run_is_not_continued_by_another_number_of_processes(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    plan = replace(PLAN, steps=1, preview_resolution=0)
    train_encoder(copy.deepcopy(tiny_encoder), tiny_generator, cheap_distance, faces, None, tmp_path, plan)
    known = json.loads((tmp_path / "plan.json").read_text())
    assert known["processes"] == 1
    (tmp_path / "plan.json").write_text(json.dumps(known | {"processes": 2}))
    with pytest.raises(ToolkitError, match=r"another processes: .*\(processes=2\)"):
        train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, plan)


def test_a_run_of_before_its_plan_named_generator_and_data_goes_on(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, replace(PLAN, steps=1))
    plan = json.loads((tmp_path / "plan.json").read_text())
    since = ("encoder", "faces", "generator", "sampled_faces", "sampled_in", "processes")
    (tmp_path / "plan.json").write_text(json.dumps({key: value for key, value in plan.items() if key not in since}))
    (tmp_path / "sampled.json").write_text(json.dumps({"done": 6, "seed": 0}))
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, PLAN)
    assert [row["step"] for row in rows_of(tmp_path)] == ["1", "2"]


def test_a_run_whose_edited_faces_did_nothing_goes_on_without_them(
    tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces
):
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, replace(PLAN, steps=1))
    plan = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"edited": 5}))
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, PLAN)
    assert [row["step"] for row in rows_of(tmp_path)] == ["1", "2"]


def test_a_run_goes_on_with_the_distances_that_it_began_with(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    def train(perceptual, identity, steps=1):
        plan = replace(PLAN, steps=steps, preview_resolution=0)
        train_encoder(tiny_encoder, tiny_generator, perceptual, faces, None, tmp_path / "run", plan, identity=identity)

    network = Perceptual("ArcFace 0123", cheap_distance.distance)
    train(cheap_distance, network)
    with pytest.raises(ToolkitError, match=r"another identity: .*--start .* \(identity=ArcFace 0123\)"):
        train(cheap_distance, None)
    with pytest.raises(ToolkitError, match=r"another perceptual: .*\(perceptual=mean absolute difference\)"):
        train(Perceptual("off", cheap_distance.distance), network)
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    older = {key: value for key, value in plan.items() if key not in ("perceptual", "identity")}
    (tmp_path / "run" / "plan.json").write_text(json.dumps(older))
    train(Perceptual("off", cheap_distance.distance), None, steps=2)
    assert [row["step"] for row in rows_of(tmp_path / "run")] == ["1", "2"]


def test_an_encoder_of_deltas_goes_on_with_the_best_deltas_of_another_run(
    tmp_path, tiny_generator, cheap_distance, faces, monkeypatch
):
    figures = iter([0.5, 0.1, 0.9])
    monkeypatch.setattr("invert.training.validate", lambda *_: {"val_mse": 0.0, "val_lpips": next(figures)})
    encoder = compact_encoder("e4e", 12, 32, pyramid_channels=(4, 4, 4), width=4)
    best = train_encoder(
        copy.deepcopy(encoder), tiny_generator, cheap_distance, faces, faces[:1], tmp_path, replace(PLAN, steps=3)
    )
    begin_with(tmp_path, encoder, None)
    assert_same_weights(encoder, best)


def test_a_damaged_file_of_a_run_is_told_in_words(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    def train(steps):
        train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, replace(PLAN, steps=steps))

    train(1)
    for name, content in (
        ("checkpoint.pt", b""), ("checkpoint.pt", (tmp_path / "checkpoint.pt").read_bytes()[:5000]), ("plan.json", b"half"),
        ("plan.json", b'{"generator": 5}'), ("sampled.json", b"{}"), ("sampled_images.npy", b"half"),
        ("log.csv", b"step,loss\na,b\n"),
    ):  # fmt: skip
        sound = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BrokenFile, match=r"damaged or of another kind .* delete it"):
            train(2)
        (tmp_path / name).write_bytes(sound)
    torch.save({"trainer": {"step_number": 1}}, tmp_path / "checkpoint.pt")
    with pytest.raises(BrokenFile, match=r"checkpoint\.pt: damaged or of another kind \(KeyError"):
        train(2)


def test_a_foreign_table_is_not_taken_for_the_log(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(ToolkitError, match="other columns than the log of a training"):
        cut_rows(tmp_path / "log.csv", 1)


def test_what_a_killed_run_was_writing_is_cleared_away(tmp_path, tiny_generator, tiny_encoder, cheap_distance, faces):
    left, other = tmp_path / ".checkpoint-0123456789ab.pt", tmp_path / ".mine.pt"
    left.touch()
    other.touch()
    train_encoder(tiny_encoder, tiny_generator, cheap_distance, faces, None, tmp_path, PLAN)
    assert (left.exists(), other.exists()) == (False, True)
