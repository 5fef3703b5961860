"""What do the tests of the ops share? Kernels run on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _interpret(monkeypatch):
    import torch

    if not torch.cuda.is_available():
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
