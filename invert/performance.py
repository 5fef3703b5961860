"""How does a CPU reach its speed? By not giving memory back to the system between two layers.

A generator's feature maps are tens of megabytes each. glibc gives blocks of that size back as soon as they are freed, and
the system clears every page again for the next layer: three quarters of the time of one image went into that.
"""

from __future__ import annotations

import ctypes
import sys

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
