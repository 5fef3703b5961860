"""How does a CPU reach its speed? By not giving memory back to the system between two layers, and perhaps by compiling.

A generator's feature maps are tens of megabytes each. glibc gives blocks of that size back as soon as they are freed, and
the system clears every page again for the next layer: three quarters of the time of one image went into that.
"""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generators.base import Generator

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # From glibc's malloc.h.


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of returning it; call it before the first large tensor.

    Measured on two cores, the default generator at 1024 px in float32: 0.77 s an image before, 0.19 s after. The price:
    memory once used stays with the process. The command line calls this; a library user decides.

    Returns:
        Whether the C library took the settings: False where it is not glibc (macOS, Windows, musl), whose own allocators
        do not have the problem to this degree.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 256 * 2**20}
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in settings.items())


@dataclass(frozen=True)
class CompileCost:
    """What ``torch.compile`` takes and gives."""

    eager_seconds: float
    """Of an image, without it."""
    compiled_seconds: float
    """Of an image, with it."""
    compile_seconds: float
    """Of the first image, less those of another."""

    @property
    def worth_it_after(self) -> float:
        """How many images it takes to get back what compiling took; infinite where it gains nothing."""
        gain = self.eager_seconds - self.compiled_seconds
        return self.compile_seconds / gain if gain > 0 else float("inf")

    def __str__(self) -> str:
        figures = f"{self.eager_seconds:.3f} s an image without, {self.compiled_seconds:.3f} s with it"
        verdict = f"worth it after {self.worth_it_after:.0f} images" if self.worth_it_after < 1e6 else "it gains nothing"
        return f"{figures}, {self.compile_seconds:.0f} s to compile: {verdict}"


def compile_synthesis(generator: Generator) -> None:
    """Let ``torch.compile`` make the generator faster, and draw one image with it, which takes up to a minute.

    It pays for many images; ``doctor --benchmark`` says for how many.

    Raises:
        ToolkitError: PyTorch cannot compile here: it needs a C++ compiler on a CPU.
    """
    import torch

    from generators.errors import ToolkitError

    _compile(generator)
    try:
        with torch.no_grad():
            generator.synthesis(generator.w_avg.repeat(1, generator.num_ws, 1))
    except RuntimeError as error:  # What the compiler's own errors are, too.
        reason = str(error).strip().splitlines()[0]
        raise ToolkitError(f"PyTorch cannot compile the generator here ({reason}): leave --compile out") from error


def _compile(generator: Generator) -> None:
    import torch._dynamo

    # Every layer has sizes of its own; after eight of them PyTorch would go on uncompiled, and complain.
    torch._dynamo.config.recompile_limit = 64
    generator.synthesis.compile()  # type: ignore[attr-defined]


def compare_compiled(generator: Generator, repeats: int = 5) -> CompileCost:
    """Measure what ``generator.synthesis.compile()`` costs and gains for one image; the generator stays compiled.

    Raises:
        RuntimeError: PyTorch cannot compile here: it needs a C++ compiler on a CPU.
    """
    import torch

    w_plus = generator.w_avg.repeat(1, generator.num_ws, 1)

    def draw() -> float:
        began = time.perf_counter()
        with torch.no_grad():
            generator.synthesis(w_plus).cpu()
        return time.perf_counter() - began

    draw()
    eager = statistics.median(draw() for _ in range(repeats))
    _compile(generator)
    first = draw()
    compiled = statistics.median(draw() for _ in range(repeats))
    return CompileCost(eager, compiled, first - compiled)
