"""Do kernels come to life only when they are used, and would a GPU's compiler take them?"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

COMPILE = """
import importlib, inspect
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from generators.ops import _triton

def build(module, name, pointers, constants):
    kernel = _triton.jit(inspect.unwrap(getattr(importlib.import_module(f"generators.ops.{module}"), name)))
    kinds = {name: pointers.get(name) or ("constexpr" if name in constants else "i32") for name in kernel.arg_names}
    constants = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    assert triton.compile(ASTSource(kernel, kinds, constants), target=GPUTarget("cuda", 90, 32)).asm["ptx"]

def build_filtered_lrelu(kind, total, precision, **modes):
    filters = {"UP": 2, "DOWN": 2, "UP_TAPS": 12, "DOWN_TAPS": 12, "GAIN": 2**0.5, "SLOPE": 0.2, "CLAMP": 256.0}
    blocks = {"BLOCK_IN": 64, "BLOCK_BENT": 64, "BLOCK_OUT": 32, "TILE": 27, "PRECISION": precision, "ACCUMULATOR": total}
    pointers = {"x": kind, "b": kind, "fu": "*fp32", "fd": "*fp32", "slopes": "*i8", "y": kind}
    build("filtered_lrelu", "_kernel", pointers, modes | filters | blocks)

for kind, total in (("*fp32", tl.float32), ("*fp16", tl.float32), ("*bf16", tl.float32)):
    common = {"ACCUMULATOR": total, "BLOCK": 1024}
    sizes = {"UP_X": 2, "UP_Y": 2, "DOWN_X": 1, "DOWN_Y": 1, "TAPS_Y": 4, "TAPS_X": 4, "BLOCK_X": 128, "BLOCK_Y": 8}
    build("upfirdn2d", "_kernel", {"x": kind, "f": "*fp32", "y": kind}, sizes | {"ACCUMULATOR": total})
    for order, act in ((0, "lrelu"), (1, "lrelu"), (0, "selu"), (1, "softplus"), (2, "swish"), (2, "tanh")):
        recipe = {"ORDER": order, "HAS_BIAS": True, "SHOWS_IN_OUTPUT": act == "lrelu", "ACT": act, "ALPHA": 0.2}
        pointers = dict.fromkeys(("x", "b", "grad", "outer", "y"), kind)
        build("bias_act", "_kernel", pointers, recipe | {"GAIN": 2**0.5, "CLAMP": 256.0} | common)
    for demodulate in (True, False):
        pointers = dict.fromkeys(("weight", "s", "own"), kind)
        build("modulated_conv2d", "_modulate_kernel", pointers, {"DEMODULATE": demodulate, "EPS": 1e-8} | common)
        pointers = dict.fromkeys(("y", "variance", "result"), kind)
        build("modulated_conv2d", "_demodulate_kernel", pointers, {"PER_PIXEL": demodulate, "EPS": 1e-8} | common)
    precision = "tf32x3" if kind == "*fp32" else "tf32"
    build_filtered_lrelu(kind, total, precision, HAS_BIAS=True, HAS_SLOPES=True, READS_SLOPES=False)
    build_filtered_lrelu(kind, total, precision, HAS_BIAS=False, HAS_SLOPES=True, READS_SLOPES=True)
"""


def run(code, repository, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    result = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_importing_the_ops_imports_no_triton(repository, monkeypatch):
    run("import sys, generators.ops; assert 'triton' not in sys.modules", repository, monkeypatch)


def test_a_cpu_needs_no_triton(repository, monkeypatch):
    code = (
        "import sys, torch; from generators.ops import *; x = torch.ones(1, 1, 4, 4)\n"
        "filtered_lrelu(modulated_conv2d(x, torch.ones(1, 1, 3, 3), torch.ones(1, 1)))\n"
        "assert 'triton' not in sys.modules"
    )
    run(code, repository, monkeypatch)


@pytest.mark.slow
def test_a_gpus_compiler_takes_every_kernel(repository, monkeypatch):
    pytest.importorskip("triton")
    run(COMPILE, repository, monkeypatch)


def test_auto_says_once_that_kernels_are_missing(monkeypatch, caplog):
    from generators.ops import _triton

    class OnGPU:
        is_cuda, dtype = True, torch.float32

    monkeypatch.setattr(_triton, "is_installed", lambda: False)
    _triton._notice.cache_clear()
    choose = getattr(_triton.choose, "__wrapped__", _triton.choose)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_triton, "why_not", lambda x: "Triton is not installed")
        assert [choose("upfirdn2d", "auto", OnGPU()) for _ in range(3)] == ["fast"] * 3
    assert [record.message for record in caplog.records] == [
        "plain PyTorch takes the place of the Triton kernels: Triton is not installed"
    ]
