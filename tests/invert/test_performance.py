from __future__ import annotations

import subprocess
import sys

import pytest

from generators.errors import ToolkitError
from invert.performance import compile_synthesis


def test_keeping_freed_memory_leaves_results_as_they_are():
    # In a process of its own: the setting cannot be taken back.
    code = (
        "import torch; from invert.performance import keep_freed_memory\n"
        "before = torch.ones(2**20).cumsum(0); known = keep_freed_memory(); after = torch.ones(2**20).cumsum(0)\n"
        "assert torch.equal(before, after); print(known)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() in ("True", "False")


def test_where_nothing_can_be_compiled_the_way_out_is_named(tiny_generator, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("Failed to find C++ compiler.\nlong story")

    monkeypatch.setattr(type(tiny_generator.synthesis), "forward", fail)
    monkeypatch.setattr(type(tiny_generator.synthesis), "compile", lambda self: None)
    with pytest.raises(ToolkitError, match=r"\(Failed to find C\+\+ compiler.\): leave --compile out"):
        compile_synthesis(tiny_generator)
