"""The processors, memory and GPUs of this machine, for the sidebar and for a training's plan. Loads no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil

from app.jobs.supervisor import GPU_CONTROL
from train.planning.plan import Device, this_cpu, this_device

SECONDS_FOR_ANSWER: Final = 20.0
SECONDS_KEPT: Final = 10.0
DRIVER: Final = Path("/proc/driver/nvidia/gpus")
GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU; memory in bytes, None where nvidia-smi does not say it."""

    name: str
    free: float | None = None
    total: float | None = None

    def __str__(self) -> str:
        if self.free is None or self.total is None:
            return self.name
        return f"{self.name}, {self.free / GB:.1f} of {self.total / GB:.1f} GB free"


def words() -> list[str]:
    """A line for the processors with the memory, and one for each GPU. Returns at once."""
    memory = psutil.virtual_memory()
    cores = psutil.cpu_count() or 1
    plural = "s" if cores > 1 else ""
    free = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB memory free"
    return [f"{cores} CPU core{plural}, {free}", *(GPUS.lines() or ["No GPU was found"])]


class GpuWatch:
    """The last answer of ``nvidia-smi``, which may take seconds: a thread asks for it, again and again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answer: list[Gpu] = []
        self._next = 0.0
        self.asking: threading.Thread | None = None

    def lines(self) -> list[str]:
        """A line for each GPU: its name and free memory, or its name alone until nvidia-smi has answered."""
        program = shutil.which("nvidia-smi")
        with self._lock:
            if program and time.monotonic() > self._next:
                self._next = time.monotonic() + SECONDS_KEPT
                self.asking = threading.Thread(target=self._ask, args=(program,), daemon=True)
                self.asking.start()
            return [str(gpu) for gpu in self._answer] or names_of_driver()

    def _ask(self, program: str) -> None:
        answer = gpus_of(program)
        with self._lock:
            self._answer = answer


GPUS: Final = GpuWatch()


def gpus_of(program: str, *only: str) -> list[Gpu]:
    """The GPUs that ``nvidia-smi`` (at ``program``) lists; ``only``: its options that choose among them."""
    command = [program, *only, "--query-gpu=name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_FOR_ANSWER, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    return [
        Gpu(name, int(free) * 2**20, int(total) * 2**20)  # it counts in MiB
        if free.isdecimal() and total.isdecimal()
        else Gpu(name)
        for name, free, total in (row for row in rows if len(row) == 3 and done.returncode == 0)
    ]


def names_of_driver() -> list[str]:
    """The names of the GPUs that the driver lists."""
    return [
        line.partition(":")[2].strip()
        for path in sorted(DRIVER.glob("*/information"))
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.partition(":")[0].strip() == "Model"
    ]


def training_device() -> Device:
    """The device that a training started now would take: the first GPU that it may use, else the CPU.

    The GPU is asked for by ``nvidia-smi``, so that no memory of it is taken up by asking. Torch is asked only where
    there is a driver and no answer of nvidia-smi.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not GPU_CONTROL.exists() or metadata.version("torch").endswith("+cpu") or visible in ("", "-1"):
        return this_cpu()
    program = shutil.which("nvidia-smi")
    only = () if visible is None else ("-i", visible.partition(",")[0])
    first = next(iter(gpus_of(program, *only) if program else []), None)
    if first is None or first.free is None or first.total is None:
        return this_device()
    return Device(first.name, "cuda", first.total, first.free)
