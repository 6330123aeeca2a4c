"""The app and its helpers as processes of their own, and what they hold: memory, open files, files on the disk."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
MOST_START = 300.0  # seconds, on a machine that has others


@dataclass(frozen=True, slots=True)
class Held:
    """What a server and its children hold, ``minutes`` after the start."""

    minutes: float
    megabytes: float
    open_files: int
    threads: int
    files: int


def held(process: subprocess.Popen[bytes], folder: Path, since: float) -> Held:
    """What a process and its children hold now, and how many files lie under a folder."""
    megabytes, open_files, threads = 0.0, 0, 0
    for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            megabytes += one.memory_info().rss / 1e6
            open_files += one.num_fds()
            threads += one.num_threads()
    files = sum(len(names) for _, _, names in os.walk(folder))
    return Held((time.monotonic() - since) / 60, megabytes, open_files, threads, files)


@contextmanager
def running(
    command: Sequence[str], folder: Path, log: Path, port: int, **environ: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A server until the block ends: started, listening on its port, and ended by SIGTERM.

    Raises:
        RuntimeError: it did not start, or did not end.
    """
    known = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environ}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=known, stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + MOST_START
        while not answers(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(MOST_START)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RuntimeError(f"{command[0]} did not end") from None


def answers(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def complaints(log: Path) -> list[str]:
    """What a server's log says of errors."""
    return re.findall(r"^.*(?:Traceback|ERROR|Exception ignored|Uncaught).*$", log.read_text(errors="replace"), re.M)


def rises(samples: Sequence[Held], warm: float) -> dict[str, tuple[float, float, float]]:
    """How a server's holdings change after ``warm`` minutes: the mean, the rise of a straight line from the first
    to the last sample, and the most that is called flat: 5 % of the mean, and of files 3 on top of it."""
    later = [one for one in samples if one.minutes >= warm]
    found = {}
    for place, name in ((1, "megabytes of memory"), (2, "open files"), (3, "threads"), (4, "files on the disk")):
        points = [(float(astuple(one)[0]), float(astuple(one)[place])) for one in later]
        middle = [sum(axis) / len(points) for axis in zip(*points, strict=True)]
        spread = sum((x - middle[0]) ** 2 for x, _ in points)
        slope = sum((x - middle[0]) * (y - middle[1]) for x, y in points) / spread if spread else 0.0
        most = 0.05 * middle[1] + (0 if place == 1 else 3)
        found[name] = (middle[1], slope * (points[-1][0] - points[0][0]), most)
    return found
