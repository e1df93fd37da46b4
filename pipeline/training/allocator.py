"""Memory that training frees is soon needed again."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
# what glibc's own thresholds grow to when large blocks are freed: once an option is set they grow no more
DEFAULTS = {M_TRIM_THRESHOLD: 64 << 20, M_TOP_PAD: 128 << 10, M_MMAP_THRESHOLD: 32 << 20, M_MMAP_MAX: 65536}
KEPT = {M_TRIM_THRESHOLD: -1, M_TOP_PAD: 64 << 20, M_MMAP_MAX: 0}  # -1: never trimmed


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, freed memory stays with this process and is used again; outside, it goes back to the system.

    By default glibc maps every large tensor anew and unmaps it when it is freed, so that each of its pages costs a
    fault each time: an elementwise operation on tensors beyond 32 MiB takes two to three times as long. Does nothing
    where the C library is not glibc. Meant for CPU tensors; a GPU's have a caching allocator already.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        yield
        return
    for option, value in KEPT.items():
        library.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in DEFAULTS.items():
            library.mallopt(option, value)
        library.malloc_trim(0)
