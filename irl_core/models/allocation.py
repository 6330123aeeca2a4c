"""The memory of a long process on the CPU: freed tensors are used again while it works and go back to the system when
it rests, and kernels that were built for a number of tokens are let go of."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # M_TRIM_THRESHOLD, ... of mallopt(3)
HEAPED = 2**30  # bytes: a tensor up to this size lies in the heap
MOST = 2**31 - 1  # that mallopt takes: an int
ENVIRONMENT = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")

KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}


def keep_few_kernels() -> None:
    """Bound what oneDNN, and torch's cache above it, keep of bfloat16 products, unless the environment does so itself.

    Both keep a kernel and its buffers for each number of tokens that they met, a thousand of each by default: more than
    two gigabytes for the layers of a model of 135 million parameters. Batches of texts rarely have the same number
    again; a kernel is built anew in half a millisecond. 64 hold those of a step of two models, forwards and backwards.
    They are read at the first product.
    """
    for name, value in KERNELS.items():
        os.environ.setdefault(name, value)


def keep_freed_tensors(*, in_all_threads: bool = False) -> bool:
    """Let freed tensors stay in the heap of the process, where the next ones take their place, until
    ``give_back_freed_tensors``.

    By default glibc maps a large block apart and unmaps it when it is freed, and trims the end of its heap: the system
    then clears every page anew for the next tensor, more than a third of the time of a training batch where all large
    blocks are mapped apart (`benchmarks/allocation.py`). To be called before threads start.

    Args:
        in_all_threads: one heap serves all threads, since that of a thread that is not the first holds no large block.
            They wait for each other there: not where the first one makes all tensors.

    Returns whether it was set: not where there is no glibc, or where the environment sets glibc's own variables.
    """
    libc = glibc()
    if libc is None or any(name in os.environ for name in ENVIRONMENT):
        return False
    options = [(MMAP_THRESHOLD, HEAPED), (TRIM_THRESHOLD, MOST)] + [(ARENA_MAX, 1)] * in_all_threads
    return all(libc.mallopt(name, value) == 1 for name, value in options)


def give_back_freed_tensors() -> None:
    """Give every whole page that is free in the heap back to the system, those between tensors too.

    To be called where work of one kind ends. Tensors of many shapes leave holes in the heap that only a smaller one
    fills: without this the memory of a training on the CPU grows, though it holds no more tensors than after its first
    step.
    """
    if (libc := glibc()) is not None:
        libc.malloc_trim(0)


@cache
def glibc() -> Any:
    """The C library of this process, None where it is not glibc."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
