"""What this machine has, in words: processors, memory, GPUs. No torch is loaded to ask."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

import psutil

SECONDS_FOR_ANSWER: Final = 20.0
SECONDS_KEPT: Final = 10.0
DRIVER: Final = Path("/proc/driver/nvidia/gpus")
GB: Final = 1e9


def words() -> list[str]:
    """A line for the processors with the memory, and one a GPU. Returns at once."""
    memory = psutil.virtual_memory()
    cores = psutil.cpu_count() or 1
    plural = "s" if cores > 1 else ""
    free = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB memory free"
    return [f"{cores} CPU core{plural}, {free}", *(GPUS.lines() or ["No GPU was found"])]


class Gpus:
    """What ``nvidia-smi`` last said. It may take seconds, so it is asked in a thread of its own, again and again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: list[str] = []
        self._next = 0.0
        self.asking: threading.Thread | None = None

    def lines(self) -> list[str]:
        """A line a GPU: its name and free memory, or its name alone as long as the driver is all that has answered."""
        program = shutil.which("nvidia-smi")
        with self._lock:
            if program and time.monotonic() > self._next:
                self._next = time.monotonic() + SECONDS_KEPT
                self.asking = threading.Thread(target=self._ask, args=(program,), daemon=True)
                self.asking.start()
            return self._said or _told_by_driver()

    def _ask(self, program: str) -> None:
        said = _asked(program)
        with self._lock:
            self._said = said


GPUS: Final = Gpus()


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
