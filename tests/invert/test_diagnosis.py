"""Does the report of a machine always come, whatever is broken, and quickly?"""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from invert import diagnosis
from invert.cli.doctor import command
from invert.performance import CompileCost, compare_compiled

TOPICS = ["versions", "device", "processor", "memory", "freed memory", "ops", "cache", "generators", "encoders"]


@pytest.fixture(autouse=True)
def _leave_the_allocator(monkeypatch):
    monkeypatch.setattr(diagnosis, "keep_freed_memory", lambda: True)


def test_the_doctor_reports_on_everything():
    result = CliRunner().invoke(command, ["--device", "cpu"])
    assert result.exit_code == 0
    lines = dict(line.split(": ", 1) for line in result.output.splitlines())
    assert list(lines)[: len(TOPICS)] == TOPICS
    assert torch.__version__.split("+")[0] in lines["versions"]
    assert "gradio" not in lines["versions"], "there is no web page"
    assert lines["device"] == "cpu"
    assert lines["ops"] == "plain PyTorch (Triton's kernels run on CUDA, not on cpu)"
    assert "--benchmark" in lines["torch.compile"] or "C++ compiler" in lines["torch.compile"]


def test_what_is_broken_becomes_a_line_and_the_rest_is_told(monkeypatch):
    def broken(device):
        raise OSError("no such thing\nat all")

    monkeypatch.setattr(diagnosis, "TOPICS", diagnosis.TOPICS | {"memory": broken, "cache": broken})
    findings = {finding.topic: finding.text for finding in diagnosis.diagnose(torch.device("cpu"))}
    assert findings["memory"] == findings["cache"] == "not known: OSError: no such thing"
    assert findings["device"] == "cpu"
    assert len(findings) == len(diagnosis.TOPICS) + 1


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(diagnosis.shutil, "which", lambda name: None)
    (*_, compiling) = diagnosis.diagnose(torch.device("cpu"))
    assert str(compiling) == "torch.compile: not possible: it needs a C++ compiler on a CPU, and there is none"


def test_compiling_is_measured_against_not_compiling(tiny_generator, monkeypatch):
    monkeypatch.setattr(type(tiny_generator.synthesis), "compile", lambda self: None)
    cost = compare_compiled(tiny_generator, repeats=3)
    assert cost.eager_seconds > 0
    assert cost.compiled_seconds > 0


def test_the_verdict_says_after_how_many_images_compiling_pays():
    assert str(CompileCost(0.3, 0.2, 40.0)) == (
        "0.300 s an image without, 0.200 s with it, 40 s to compile: worth it after 400 images"
    )
    assert str(CompileCost(0.2, 0.3, 40.0)).endswith("it gains nothing")
