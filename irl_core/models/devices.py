"""The device that models are loaded on, and what is said where its memory is full."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irl_core.errors import InputError

# What the drivers of NVIDIA, of its embedded boards, of AMD and of Windows' subsystem for Linux put there.
DEVICE_FILES = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")


def may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether torch could find a GPU here; it takes seconds to import, and on Linux no driver means none."""
    if sys.platform != "linux":
        return True
    return any(True for pattern in DEVICE_FILES for _ in devices.glob(pattern))


@contextmanager
def memory_errors(batch_tokens: int) -> Iterator[None]:
    """Free the GPU's cache where memory ran out, and raise an InputError that says what to do."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        raise InputError(
            f"Out of memory with batches of {batch_tokens:,} tokens; choose fewer or shorter ones."
        ) from None


def usable_device(asked: str) -> str:
    """The torch device to load on; ``auto`` means the GPU where torch can use one, else the CPU.

    Raises:
        InputError: a name that is none, or a GPU that torch cannot use here.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        return "cuda" if gpus else "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise InputError(f"The device is {asked[:40]!r}; choose auto, cpu or cuda.") from None
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise InputError(f"Device {asked} asked for; torch can use {gpus} GPUs here. Choose cpu or auto.")
    return asked
