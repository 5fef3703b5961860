"""May an op overwrite what it is given? Only where autograd will not come back to it."""

from __future__ import annotations

import torch
from torch import Tensor


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Tell whether autograd will come back to a result of these tensors, so that nothing may be overwritten."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
