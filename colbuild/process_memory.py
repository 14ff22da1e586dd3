"""The main memory of this process: pages that the allocator keeps, and the peak.

Training on a CPU is 1.6 to 1.8 times faster when glibc keeps its pages (docs/benchmarks.md).

glibc maps every big buffer and unmaps it when it is freed, so each training step faults its activations and
gradients in again, page by page. Raising the thresholds makes it reuse them.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4

_KEEP_BYTES = 2**31 - 1  # mallopt takes an int
_TOP_PAD_BYTES = 256 * 2**20
_STATUS = Path("/proc/self/status")


def keep_pages() -> bool:
    """Raises glibc's mmap and trim thresholds for this process; call it before torch is imported.

    Returns:
        Whether the allocator took the settings; False where it is not glibc's.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    mallopt.restype = ctypes.c_int
    # Older glibc refuses a threshold above 32 MiB; mapping no buffer by itself at all comes to the same.
    kept = mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES) == 1 or mallopt(_M_MMAP_MAX, 0) == 1
    settings = ((_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all([kept, *(mallopt(name, value) == 1 for name, value in settings)])


def give_back_pages() -> None:
    """Gives what glibc keeps of freed memory back to the system: between two phases of which each needs much."""
    if not sys.platform.startswith("linux"):
        return
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    trim.argtypes = [ctypes.c_size_t]
    trim(0)


def peak_bytes() -> int:
    """The most main memory that this process has had since it began, in bytes."""
    if _STATUS.exists():
        # What `getrusage` says begins with what the parent process had.
        [line] = [line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
