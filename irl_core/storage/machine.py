"""What kind of machine something was measured on, in words. No host name, no path."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """``processor``, ``cores`` (that this process may use), ``threads`` (of torch) and ``gpu`` (None without one)."""
    import torch

    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def in_words(found: dict[str, Any]) -> str:
    """'AMD EPYC 7763, 2 cores' or with the GPU's name before it."""
    cores = "core" if found["cores"] == 1 else "cores"
    on_cpu = f"{found['processor']}, {found['cores']} {cores}"
    return f"{found['gpu']} ({on_cpu})" if found.get("gpu") else f"CPU ({on_cpu})"
