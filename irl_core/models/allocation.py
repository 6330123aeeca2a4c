"""What keeps the memory of a long process on the CPU flat: freed tensors go back to the system, and kernels that were
built for a number of tokens are let go of."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
LARGE = 2**20  # bytes: tensors of activations are larger, what Python allocates is smaller
ENVIRONMENT = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")

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


def give_back_freed_tensors() -> bool:
    """Map every block of at least ``LARGE`` bytes apart, so that it is given back when it is freed.

    glibc raises that threshold by itself, up to 32 MB, with each mapped block that is freed. The tensors of batches of
    many shapes then lie in its heap, where a hole is only filled by a block that fits: the memory of a training on the
    CPU grew with every step, though it held no more tensors than after the first.

    Returns whether it was set: not where there is no glibc, or where the environment sets glibc's own variables.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in ENVIRONMENT):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, LARGE) == 1 for name in (MMAP_THRESHOLD, TRIM_THRESHOLD))
