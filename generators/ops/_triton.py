"""Which implementation of an op runs, and how do its Triton kernels come to life? Only when they are first used.

Importing an op imports no Triton and compiles nothing. Kernels are plain functions that see Triton's language under the name
``tl``, which :func:`jit` fills in; ``TRITON_INTERPRET=1``, set before the first use, runs them on a CPU.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable
from typing import Any, no_type_check

import torch
from torch import Tensor

from generators.errors import ImplUnavailable, UnknownName

IMPLS = ("auto", "reference", "triton")
LOGGER = logging.getLogger(__name__)


def choose(op: str, impl: str, x: Tensor) -> str:
    """Return what runs an op on a tensor.

    Returns:
        ``"triton"``; ``"reference"``, the definition in plain PyTorch; or ``"fast"``, the cheapest way in plain PyTorch,
        where ``impl`` is ``"auto"`` and no kernel runs.

    Raises:
        UnknownName: no such implementation.
        ImplUnavailable: ``impl`` is ``"triton"``, and kernels cannot run on this tensor.
    """
    if impl not in IMPLS:
        raise UnknownName("implementation", impl, IMPLS)
    if impl == "reference":
        return impl
    if impl == "auto" and not x.is_cuda:
        return "fast"
    reason = why_not(x)
    if reason is None:
        return "triton"
    if impl == "triton":
        raise ImplUnavailable(op, impl, reason)
    _notice(reason)
    return "fast"


def why_not(x: Tensor) -> str | None:
    """Say why Triton's kernels cannot run on a tensor; None when they can."""
    if not x.dtype.is_floating_point:
        return f"kernels take floating point, not {x.dtype}"
    if not is_installed():
        return "Triton is not installed (pip install triton)"
    if x.is_cuda or interprets():
        return None
    return f"the tensor is on the device {x.device.type!r}, and kernels run on CUDA (or anywhere with TRITON_INTERPRET=1)"


def in_use(device: torch.device) -> str:
    """Say what ``impl="auto"`` runs on a device, and, where that is not Triton's kernels, why."""
    if device.type != "cuda":
        return f"plain PyTorch (Triton's kernels run on CUDA, not on {device.type})"
    reason = why_not(torch.empty(0, device=device))
    return "Triton kernels" if reason is None else f"plain PyTorch ({reason})"


@functools.cache
def is_installed() -> bool:
    """Tell whether Triton can be imported, without importing it."""
    return importlib.util.find_spec("triton") is not None


def interprets() -> bool:
    """Tell whether Triton interprets kernels, on any device, instead of compiling them."""
    import triton  # type: ignore[import-untyped, import-not-found]

    return not isinstance(triton.jit(_probe), triton.JITFunction)


@no_type_check
def _probe() -> None:
    pass


@functools.cache
def jit(kernel: Callable[..., Any]) -> Any:
    """Make a kernel of a plain function, once."""
    import triton
    import triton.language  # type: ignore[import-untyped, import-not-found]

    kernel.__globals__["tl"] = triton.language
    return triton.jit(kernel)


def launch(kernel: Callable[..., Any], programs: int, *arguments: Any) -> None:
    """Run a kernel on the device of its first argument; no programs are no work."""
    if programs:
        with torch.cuda.device_of(arguments[0]):
            jit(kernel)[(programs,)](*arguments, enable_fp_fusion=True)


def language_type(dtype: torch.dtype) -> Any:
    """Return Triton's name of a type."""
    import triton.language

    return getattr(triton.language, str(dtype).removeprefix("torch."))


def power_of_2(size: int) -> int:
    """Return the next power of 2: the only sizes that blocks have."""
    return 1 << max(size - 1, 0).bit_length()


@functools.cache
def _notice(reason: str) -> None:
    LOGGER.warning("plain PyTorch takes the place of the Triton kernels: %s", reason)
