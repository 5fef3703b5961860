"""The building blocks of the generators, one file per op."""

from generators.ops.haar import inverse_haar
from generators.ops.modulate import modulate, resize_style

__all__ = ["inverse_haar", "modulate", "resize_style"]
