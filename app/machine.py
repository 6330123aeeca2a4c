"""What this machine has, in words: processors, memory, GPUs. No torch is loaded to ask."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import psutil

SECONDS_FOR_ANSWER: Final = 5.0
DRIVER: Final = Path("/proc/driver/nvidia/gpus")
GB: Final = 1e9


def words() -> list[str]:
    """A line for the processors with the memory, and one a GPU."""
    memory = psutil.virtual_memory()
    cores = psutil.cpu_count() or 1
    plural = "s" if cores > 1 else ""
    free = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB memory free"
    return [f"{cores} CPU core{plural}, {free}", *(gpus() or ["No GPU was found"])]


def gpus() -> list[str]:
    """A line for each GPU: its name and free memory by ``nvidia-smi``, else its name by the driver."""
    program = shutil.which("nvidia-smi")
    return (_asked(program) if program else []) or _told_by_driver()


def _asked(program: str) -> list[str]:
    command = [program, "--query-gpu=name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_FOR_ANSWER, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    return [_line(*row) for row in rows if len(row) == 3] if done.returncode == 0 else []


def _line(name: str, free: str, total: str) -> str:
    """``free`` and ``total`` in MiB, as nvidia-smi has them; some GPUs do not say."""
    if not (free.isdecimal() and total.isdecimal()):
        return name
    return f"{name}, {int(free) * 2**20 / GB:.1f} of {int(total) * 2**20 / GB:.1f} GB free"


def _told_by_driver() -> list[str]:
    found = []
    for path in sorted(DRIVER.glob("*/information")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                found.append(value.strip())
    return found
