"""What do the tests of encoders share? The recipe for weights that the golden files were made with."""

from __future__ import annotations

import zlib

import numpy as np
import pytest


def _recipe(name, shape):
    return np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="session")
def recipe():
    """Random numbers by name and shape, the same everywhere."""
    import torch

    return lambda name, shape: torch.from_numpy(_recipe(name, shape))


@pytest.fixture(scope="session")
def face():
    """The golden files' face: noise in [-1, 1]. By NumPy, whose tanh is another one than torch's in its last bit."""
    import torch

    return torch.from_numpy(np.tanh(_recipe("face", (1, 3, 256, 256))))


@pytest.fixture(scope="session")
def recipe_state(recipe):
    """The recipe's tensors for a network's state dict (its "plain" form)."""
    import torch

    def fill(state):
        filled = {}
        for name, old in state.items():
            value = torch.zeros((), dtype=torch.long) if name.endswith("num_batches_tracked") else recipe(name, old.shape)
            if name.endswith("running_var"):
                value = 1 + 0.5 * value.abs()
            elif name.endswith(("running_mean", "bias")):
                value = 0.1 * value
            elif value.ndim >= 2:
                value = value * (2 / value[0].numel()) ** 0.5
            elif name.endswith("weight"):
                value = 1 + 0.1 * value
            filled[name] = value
        return filled

    return fill


@pytest.fixture(scope="session")
def published_shapes(shared_folder):
    """A reader of the names and shapes of a published network's tensors."""

    def read(file):
        rows = (shared_folder / "reference/shapes" / file).read_text(encoding="utf-8").splitlines()
        return {name: shape for name, _, shape in (row.split("\t") for row in rows if not row.startswith("#"))}

    return read


@pytest.fixture(scope="session")
def own_shapes():
    """The names and shapes of a network's tensors, as ``published_shapes`` has them; without the mean of W."""

    def shapes(network):
        return {name: str(list(value.shape)) for name, value in network.state_dict().items() if name != "w_avg"}

    return shapes
