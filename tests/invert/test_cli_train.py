"""Does the command that trains an encoder leave one that works, and say what it cannot do?"""

from __future__ import annotations

import json
from datetime import timedelta

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from editing.directions import Direction
from encoders import backbone
from encoders.backbone import IRSEBackbone
from encoders.compact import COMPACT, compact_encoder
from encoders.e4e import Encoder4Editing
from encoders.psp import GradualStyleEncoder, IRSEEncoder
from encoders.restyle import BackboneEncoder
from encoders.stylemap import StyleMapEncoder
from generators.errors import ToolkitError
from invert.cli.main import cli
from invert.cli.train import BACKBONES, METHODS, _identity_loss, _join_processes, command
from invert.inverters import load_inverter
from pretrained.directions import save_direction
from pretrained.loading import load_encoder


@pytest.fixture
def train(generator_file, cheap_distance, monkeypatch, tmp_path):
    """Run the command for one step on the tiny generator and small heads; the run is ``tmp_path / "run"``."""
    monkeypatch.setattr("invert.perceptual.load_training_perceptual", lambda *_: cheap_distance)
    monkeypatch.setattr("invert.performance.keep_freed_memory", lambda: False)
    small = {"pyramid_channels": (8, 8, 8), "width": 8}
    monkeypatch.setattr("encoders.kinds.compact_encoder", lambda *given, **more: compact_encoder(*given, **small, **more))
    encoder = compact_encoder("stylemap", 12, 32, **small)
    monkeypatch.setattr("pretrained.lpips.squeezenet_imagenet", encoder.backbone.state_dict)
    faces = tmp_path / "faces"
    faces.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(noise).save(faces / f"{number}.png")

    def call(method, *arguments):
        sizes = {"samples": 4, "batch-real": 2, "batch-sampled": 2, "own": 2, "preview-resolution": 0}
        plan = [text for name, value in (sizes | {"steps": 1}).items() for text in (f"--{name}", value)]
        places = ["--data", faces, "--generator", generator_file, "-o", tmp_path / "run", "--device", "cpu"]
        return CliRunner().invoke(cli, ["train", method, *map(str, [*places, *plan, *arguments])])

    return call


def test_a_training_leaves_an_encoder_with_its_plan(train, tmp_path):
    result = train("stylemap-e", "--loss", "consistency=0.5")
    assert result.exit_code == 0, result.output
    encoder = load_encoder(tmp_path / "run" / "encoder.safetensors")
    assert encoder.space == "stylemap"
    assert [m.shape[-1] for m in encoder(torch.zeros(1, 3, 256, 256))][::5] == [8, 16, 16]
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["losses"]["consistency"] == 0.5
    assert plan["edits"] == [], "none ship for this generator"
    assert "the edits term is off: it needs edits that are taught: name some by --edit" in result.output
    assert "the identity term is off: it needs a face network: give --identity FILE" in result.output


def test_edits_that_are_named_are_taught_and_stay_in_the_plan(train, tmp_path, tiny_generator):
    file = tmp_path / "older.safetensors"
    save_direction(file, Direction.of("older", torch.ones(tiny_generator.w_dim), tiny_generator.identity))
    result = train("psp", "--edit", f"{file}=2", "--loss", "consistency=0.5")
    assert result.exit_code == 0, result.output
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["edits"] == [f"{file}=2"]
    assert plan["edited"] == 1, "a third of the 4 samples"
    assert len(np.load(tmp_path / "run" / "sampled_codes.npy")) == 5
    fresh = train("psp", "--edit", f"{file}=2", "--samples", 0, "--edited", 1, "-o", tmp_path / "fresh")
    assert "no faces are drawn first with --samples 0" in str(fresh.exception)
    assert not (tmp_path / "fresh").exists()


def test_drawn_faces_alone_will_do(train, tmp_path):
    result = train("psp", "--data", "sampled")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["batch_real"] == 0
    load_encoder(tmp_path / "run" / "encoder.safetensors")


def test_restyle_of_maps_is_refused_before_a_folder_is_made(train, tmp_path):
    result = train("restyle", "--sizes", "2,4,1")
    assert "gives one style a layer, no maps: take --sizes 1,1,1" in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--loss", "consistancy=1"], "did you mean consistency"),
        (["--loss", "code=-1"], "expected NAME=WEIGHT with a weight of at least 0"),
        (["--edit", "older=3"], "unknown edit 'older'"),
        (["--edited", "3"], "no edit moves these faces: name some by --edit"),
        (["--edit", "older"], "expected NAME=STRENGTH"),
        (["--sizes", "8,16"], "expected three sides from 1 to 64"),
        (["--every", "0"], "not in the range x>=1"),
        (["--seed", "-7"], "not in the range"),
        (["--own", "-2"], "not in the range x>=0"),
        (["--val-count", "0"], "not in the range x>=1"),
        (["--batch-drawn", "5"], "expected at most --batch-sampled, 2"),
        (["--loss", "edits=3"], "--loss edits: that term would be off: it needs edits that are taught: name some by --edit"),
        (["--loss", "consistency=1", "--own", "0"], "--loss consistency: that term would be off: it needs faces drawn from"),
        (["--lr", "nan"], "a learning rate of nan"),
        (["--data", "nowhere"], "no such folder or zip file; expected aligned faces, or the word sampled"),
        (["--data", "sampled", "--split", "train"], "drawn faces have no --split"),
    ],
)
def test_a_mistake_is_told_before_anything_is_drawn(train, tmp_path, arguments, words):
    result = train("stylemap", *arguments)
    assert result.exit_code != 0
    assert words in f"{result.output} {result.exception}"
    assert not (tmp_path / "run" / "sampled_images.npy").exists()


def test_the_identity_term_is_named_after_its_weights(monkeypatch, tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    monkeypatch.setattr("pretrained.encoders.load_arcface", lambda *_: network)
    first, again = (_identity_loss(tmp_path / "arcface.pth", torch.device("cpu")) for _ in range(2))
    assert first.name == again.name
    a, b = torch.rand(2, 4, 3, 2, 2)
    torch.testing.assert_close(first(a, b), 1 - (network(a) * network(b)).sum(1))
    torch.nn.init.zeros_(network[1].weight)
    assert _identity_loss(tmp_path / "arcface.pth", torch.device("cpu")).name != first.name


@pytest.fixture
def short(monkeypatch):
    """Let IR-SE50 have one residual unit a group, and a step look at one face."""
    for network in (IRSEBackbone, IRSEEncoder):
        monkeypatch.setattr(network, "units", (1, 1, 1, 1))
    return ("--data", "sampled", "--samples", 2, "--batch-sampled", 1, "--own", 0, "--backbone", "ir-se50")


@pytest.mark.parametrize(
    ("kind", "network"),
    [("psp", GradualStyleEncoder), ("e4e", Encoder4Editing), ("restyle", BackboneEncoder), ("stylemap", StyleMapEncoder)],
)
def test_the_papers_own_networks_are_trained_and_used(train, short, kind, network, tmp_path, tiny_generator):
    result = train(kind, *short)
    assert result.exit_code == 0, result.output
    assert "starts from random weights: --start model_ir_se50.pth" in result.output
    file = tmp_path / "run" / "encoder.safetensors"
    inverter = load_inverter(str(file), tiny_generator, looks=1)
    assert type(inverter.encoder) is network
    assert inverter.encoder.backbone_name == "ir-se50"
    assert inverter(torch.zeros(1, 3, 256, 256)).image.shape == (1, 3, 256, 256)


def test_a_run_on_one_backbone_goes_on_and_not_on_another(train, short, tmp_path):
    for steps in (1, 2):
        result = train("stylemap", *short, "--steps", steps)
        assert result.exit_code == 0, result.output
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 3
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["encoder"]["backbone"] == "ir-se50"
    refused = train("stylemap", *short[:-1], "compact", "--steps", 2)
    assert "holds a run with another encoder.backbone" in str(refused.exception)
    assert "the same settings (encoder.backbone=ir-se50)" in str(refused.exception)


def test_a_run_of_before_backbones_were_named_is_on_the_compact_one(train, short, tmp_path):
    given = ("stylemap", *short[:-1], "compact")
    assert train(*given).exit_code == 0
    file = tmp_path / "run" / "plan.json"
    plan = json.loads(file.read_text())
    assert plan["encoder"].pop("backbone") == "compact"
    file.write_text(json.dumps(plan))
    assert "encoder.backbone=compact" in str(train("stylemap", *short).exception)
    assert train(*given, "--steps", 2).exit_code == 0


def test_maps_of_a_network_without_maps_are_refused(train, short, tmp_path):
    result = train("psp", *short, "--sizes", "2,4,1")
    assert "psp on ir-se50 gives one style a layer" in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--dtype", "--precision"])
def test_the_dtype_of_products_has_the_name_that_it_has_elsewhere_too(train, tmp_path, option):
    result = train("psp", option, "bfloat16")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["precision"] == "bfloat16"


def test_the_kinds_and_backbones_that_it_takes_are_those_there_are():
    assert set(METHODS) == set(COMPACT)
    assert set(BACKBONES) == set(backbone.BACKBONES)


def test_every_option_says_what_it_is():
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


def test_processes_wait_as_long_as_the_first_one_draws(monkeypatch):
    given = {}
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *_, **options: given.update(options))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert _join_processes("cpu").type == "cpu"
    assert given["timeout"] >= timedelta(days=1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two, LOCAL_RANK=0: expected 0 <= RANK < WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, r"the workers cannot meet \(.*RANK.*\): torchrun sets .* unset them all to work alone"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, r"the workers cannot meet \(.*MASTER_ADDR.*\): torchrun sets"),
    ],
)
def test_variables_that_another_launcher_left_behind_are_told_in_words(set_launcher_variables, given, words):
    set_launcher_variables(given)
    with pytest.raises(ToolkitError, match=words):
        _join_processes("cpu")


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_several_processes_do_not_share_one_gpu(monkeypatch, device):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(click.UsageError, match=f"--device {device}: several processes take a GPU each by 'cuda'"):
        _join_processes(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to take")
def test_several_processes_that_shall_have_gpus_say_that_there_are_none(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(click.UsageError, match=r"--device cuda:0: .*a GPU that this machine has"):
        _join_processes("cuda")


def test_one_process_of_torchrun_is_as_good_as_none(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert _join_processes("meta").type == "meta", "any device that there is"
