"""Does every damaged file load or end in an error of the toolkit, soon, and without filling the memory?

A thousand files: bytes that are flipped, cut, repeated or overwritten where the structure is; entries that are renamed,
lost, exchanged or of another shape.
"""

from __future__ import annotations

import argparse
import copy
import io
import pickletools
import random
import time

import pytest
import torch

from generators.errors import ToolkitError
from generators.stylegan1 import StyleGAN1
from generators.stylegan2 import StyleGAN2, StyleGAN2Discriminator
from generators.stylegan3 import StyleGAN3
from pretrained import checkpoints, safetensors
from pretrained.conversion import describe
from pretrained.loading import load_generator
from pretrained.rosinality import discriminator_to_rosinality, generator_to_rosinality

FLIPPED, RENAMED = 700, 300
SECONDS = 20.0
"""For one file, whatever else the machine does; it takes about ten milliseconds."""
MEGABYTES = 100
"""That all of them may add to the process, whose files take 0.1 each."""
STRANGE_NAMES = (
    3,
    None,
    "x",
    "to_rgbs.99.bias",
    "style.77.weight",
    "synthesis.b1048576.conv1.weight",
    "synthesis.layer99.weight",
    "synthesis.output7.weight",
    "synthesis.L3_16_4.weight",
    "mapping.fc9.weight",
)
STRANGE_TENSORS = (
    lambda value: value[..., :0] if value.ndim else value,
    lambda value: value[None],
    lambda value: torch.zeros(()),
    lambda value: torch.zeros(3, 0, 7),
    lambda value: torch.full_like(value, float("nan")),
    lambda value: value.int(),
    lambda value: value.bool(),
    lambda value: value.to(torch.complex64),
    lambda value: torch.zeros(1).expand(1_000_000_000),
    lambda value: torch.zeros(1).as_strided((30_000, 30_000), (0, 0)),
    lambda value: torch.zeros(2000).expand(30, 2000),
)
STRANGE_VALUES = (None, 7, "text", [], {}, argparse.Namespace(a=1))


@pytest.fixture
def generator():
    """As small as a StyleGAN2 can be, for the sake of time."""
    return StyleGAN2(8, z_dim=4, w_dim=4, mapping_layers=1, channel_base=16, channel_max=4).eval()


@pytest.fixture
def trees(generator):
    """What torch files of several projects hold."""
    theirs = generator_to_rosinality(generator.state_dict())
    stylegan1 = StyleGAN1(8, 4, 4, 1, channel_base=16, channel_max=4).state_dict()
    genforce = {name.replace("mapping.w_avg", "truncation.w_avg"): value for name, value in stylegan1.items()}
    decoder = {f"decoder.{name}": value for name, value in theirs.items()}
    return [
        {"G_ema": generator.state_dict()},
        {
            "g_ema": theirs,
            "d": discriminator_to_rosinality(StyleGAN2Discriminator(8, 0, 16, 4).state_dict()),
            "latent_avg": torch.zeros(4),
        },
        {"state_dict": decoder, "opts": {"output_size": 16}, "latent_avg": torch.zeros(6, 4)},
        {"generator": genforce, "generator_smooth": genforce, "args": argparse.Namespace(size=8)},
    ]


def saved(tree, is_zip):
    buffer = io.BytesIO()
    torch.save(tree, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


@pytest.fixture
def originals(trees, generator, write_nvidia, tmp_path):
    """Every kind of file, the places in it that are not mere numbers beside it."""
    sizes = {"img_resolution": 16, "num_layers": 3, "margin_size": 2, "channel_base": 32, "channel_max": 4}
    stylegan3 = StyleGAN3(**sizes, z_dim=4, w_dim=4).eval()
    safetensors.save(tmp_path / "safe", generator.state_dict(), {"arguments": {"conv_clamp": 3.0}})
    files = [write_nvidia(G_ema=generator), write_nvidia("p2.pkl", 2, G=generator), write_nvidia("3.pkl", G_ema=stylegan3)]
    contents = [path.read_bytes() for path in (*files, tmp_path / "safe")]
    contents += [saved(tree, is_zip) for tree in trees for is_zip in (True, False)]
    return [(content, structure(content)) for content in contents]


def structure(data):
    """List the places around a pickle's opcodes, or at both ends of another file."""
    if data[:2] == b"PK" or data[8:9] == b"{":
        return [*range(min(len(data), 6000)), *range(max(len(data) - 4000, 0), len(data))]
    places, at = [], 0
    for _ in range(5):  # A torch file of before version 1.6 is several pickles in a row.
        try:
            for _, _, position in pickletools.genops(io.BytesIO(data[at:])):
                places += range(at + position, min(at + position + 12, len(data)))
        except ValueError:
            break
        at = places[-12] + 1
    return places


def flip(data, places, chance):
    """Flip bits, cut, repeat, overwrite, or leave bytes out."""
    data = bytearray(data)

    def place():
        return chance.choice(places) if chance.random() < 0.8 else chance.randrange(len(data))

    match chance.randrange(8):
        case 0 | 1 | 2:
            for _ in range(chance.choice([1, 3, 30])):
                data[place()] ^= 1 << chance.randrange(8)
        case 3:
            del data[chance.randrange(len(data)) :]
        case 4:
            at, size = place(), chance.randrange(1, 200)
            data[at : at + size] = data[place() :][:size]
        case 5:
            at = place()
            data[at : at + 8] = chance.choice([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, b"\xff\xff\xff\x7f"])
        case 6:
            at = place()
            del data[at : at + chance.randrange(1, 60)]
        case _:
            data[place()] = chance.randrange(256)
    return bytes(data)


def rename(tree, chance):
    """Lose, rename, exchange or replace entries."""
    tree = copy.deepcopy(tree)
    for _ in range(chance.choice([1, 2, 4])):
        holder = tree
        while (inner := [value for value in holder.values() if isinstance(value, dict) and value]) and chance.random() < 0.8:
            holder = chance.choice(inner)
        key, other = chance.choice(list(holder)), chance.choice(list(holder))
        match chance.randrange(5):
            case 0:
                del holder[key]
            case 1:
                holder[chance.choice(STRANGE_NAMES)] = holder.pop(key)
            case 2:
                holder[key], holder[other] = holder[other], holder[key]
            case 3:
                holder[key] = chance.choice(STRANGE_VALUES)
            case _ if isinstance(holder[key], torch.Tensor):
                holder[key] = chance.choice(STRANGE_TENSORS)(holder[key])
        if not holder:
            break
    return tree


def grown():
    resource = pytest.importorskip("resource", reason="only POSIX tells how much memory a process took")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def mutants(originals, trees):
    chance = random.Random(0)
    for number in range(FLIPPED):
        yield flip(*originals[number % len(originals)], chance)
    for number in range(RENAMED):
        yield saved(rename(trees[number % len(trees)], chance), number % 2 == 0)


def test_a_thousand_mutated_files_load_or_end_in_an_error_of_the_toolkit(originals, trees, tmp_path, canary, monkeypatch):
    monkeypatch.setattr(checkpoints, "W_AVG_SAMPLES", 1024)
    path = tmp_path / "mutated.weights"
    loaded = refused = longest = 0
    for content, _ in originals:
        path.write_bytes(content)
        load_generator(path, notify=lambda _: None)
    before = grown()
    for number, content in enumerate(mutants(originals, trees)):
        path.write_bytes(content)
        start = time.process_time()
        try:
            if number % 10:
                load_generator(path, notify=lambda _: None)
            else:
                describe(path)
            loaded += 1
        except ToolkitError as error:
            refused += 1
            longest = max(longest, len(str(error)))
        assert time.process_time() - start < SECONDS, number
    assert loaded + refused == FLIPPED + RENAMED
    assert min(loaded, refused) > 100, "flips in the numbers load, flips in the structure do not"
    assert longest < 3000
    assert grown() - before < MEGABYTES
