"""Shared by the tests of the evaluation: a folder of small faces, a plan over them, and the tiny networks as files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


def face(seed, side=64):
    """Draw a smooth random picture."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 255, (5, 5, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def faces_folder(tmp_path):
    """Six faces; their file names sort in the order of their numbers."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(6):
        face(number).save(folder / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def _cheap_loss(monkeypatch, cheap_distance):
    """Keep the projector off LPIPS, whose weights a test cannot have."""
    monkeypatch.setattr("invert.evaluation.runner.load_perceptual", lambda *_: cheap_distance)


@pytest.fixture
def make_plan(faces_folder, generator_file, encoder_file):
    """Plan an evaluation of the tiny encoder; keywords change it."""
    from invert.evaluation.runner import Plan

    def make(**changes):
        settings = {
            "sources": (faces_folder,),
            "methods": (str(encoder_file),),
            "metrics": ("mse", "ssim"),
            "generator": str(generator_file),
            "kind": "aligned",
        }
        return Plan(**(settings | changes))

    return make
