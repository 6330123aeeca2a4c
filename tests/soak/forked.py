"""A piece of work in a process of its own: how it ended, what it said, how long it took and how much memory."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from irl_core.errors import UserError

WORDS, TRACEBACK = 2, 70  # exit statuses: ended in words, as the command does; an error that nobody meant


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a process.

    Attributes:
        status: its exit status, negative for the signal that ended it; None where it took too long and was killed.
        seconds: of processor time, which other programs on the machine do not change.
        megabytes: of memory at most, above what it began with.
        said: what it wrote on its standard output and error.
    """

    status: int | None
    seconds: float
    megabytes: float
    said: str

    @property
    def in_words(self) -> bool:
        """Whether it did its work, or said in words why not."""
        return self.status in (0, WORDS)


@dataclass(slots=True)
class Fork:
    """A child of this process that runs a call; the libraries are loaded already."""

    pid: int
    started: float
    notes: Path

    def wait(self, most: float, *, kill_after: float | None = None) -> Ended:
        """Wait for its end, at most ``most`` seconds; ``kill_after`` so many seconds of processor time it is killed."""
        over = ""
        while True:
            done, status, used = os.wait4(self.pid, os.WNOHANG)
            elapsed = time.monotonic() - self.started
            if done:
                break
            due = kill_after is not None and sum(psutil.Process(self.pid).cpu_times()[:2]) >= kill_after
            if due or elapsed > most:
                over = "" if due else f"killed after {elapsed:.0f} s"
                os.kill(self.pid, signal.SIGKILL)
                _, status, used = os.wait4(self.pid, 0)
                break
            time.sleep(0.005)
        code = None if over else os.waitstatus_to_exitcode(status)
        return Ended(code, used.ru_utime + used.ru_stime, self.memory(), over or self.said())

    def said(self) -> str:
        return self.notes.with_suffix(".said").read_text(errors="replace")

    def memory(self) -> float:
        path = self.notes.with_suffix(".memory")
        known = path.read_text() if path.exists() else ""
        return float(known) if known else 0.0  # the kill may have come while it was written


def fork(
    call: Callable[[], object], notes: Path, *, most_file_bytes: int | None = None, most_seconds: int | None = None
) -> Fork:
    """Start a call in a child.

    Args:
        call: what it does.
        notes: where what it says is written, with other suffixes.
        most_file_bytes: no file that it writes grows larger, as on a disk that is full.
        most_seconds: of processor time, after which the system ends it.
    """
    notes.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    notes.with_suffix(".memory").unlink(missing_ok=True)
    target = os.open(notes.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    started, pid = time.monotonic(), os.fork()
    if pid:
        os.close(target)
        return Fork(pid, started, notes)
    status = TRACEBACK
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        if most_seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (most_seconds, most_seconds + 1))
        status = run(call, notes, most_file_bytes)
    finally:
        os._exit(status)


def run(call: Callable[[], object], notes: Path, most_file_bytes: int | None) -> int:
    """Run the call in the child; returns its exit status."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark of the memory begins anew
    if most_file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes, resource.RLIM_INFINITY))
    try:
        call()
        return 0
    except UserError as error:
        os.write(2, f"irl-lens: {error}\n".encode("utf-8", "backslashreplace"))
        return WORDS
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # a panic of a library is not even an Exception
        os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
        return TRACEBACK
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        notes.with_suffix(".memory").write_text(f"{memory('VmHWM') - before:.1f}")


def memory(name: str) -> float:
    """A line of ``/proc/self/status``, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0
