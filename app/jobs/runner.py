"""The process beside a job: it starts the job's command, stays until its end, and writes down how that was.

    python -m app.jobs.runner RECORD LOG GRACE -- COMMAND...

The server that asked for the job may be gone by then, so this process writes the exit status down, passes on the
request to stop, kills what does not obey within ``GRACE`` seconds, and leaves no process of the job behind. It begins
when it reads ``go`` on its standard input, and not at all where that is closed before: the job is in no list then.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Final

import psutil

RECORD_BYTES: Final = 2048  # reserved before the start, so that the exit status can be written when the disk is full
SECONDS_BETWEEN_LOOKS: Final = 0.1
SECONDS_BETWEEN_BEATS: Final = 10.0  # of the record's time of change, by which another machine knows that it lives
SECONDS_TO_FOLLOW: Final = 3.0  # for what the job's process has left behind, before it is killed
SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Record:
    """The record's file: the job's process, and how it ended. Written in place, in bytes that were reserved."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"pid": os.getpid(), "child": None, "child_started": None, "exit": None}
        self.content |= {"ended": None, "asked": False, "killed": False, "error": ""}

    def write(self, **changes: Any) -> None:
        """Change fields and write the record."""
        self.content |= changes
        data = json.dumps(self.content).encode()
        descriptor = os.open(self.path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, data.ljust(RECORD_BYTES), 0)
        finally:
            os.close(descriptor)


class StopRequest:
    """Whether this process was asked to stop the job."""

    def __init__(self) -> None:
        self.since: float | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self.take)

    def take(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler; a second request changes nothing."""
        if self.since is None:
            self.since = time.monotonic()


def supervise(record: Record, log: Path, grace: float, command: list[str]) -> int:
    """Run the command to its end; returns its exit status (negative: the signal that ended it)."""
    request = StopRequest()
    _adopt_orphans()
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        record.write(exit=127, ended=_now(), error=f"it could not be started ({error.strerror})")
        return 127
    record.write(child=child.pid, child_started=_created(child.pid))
    code = _follow(child, request, grace, record)
    _end_the_rest(child.pid)
    record.write(exit=code, ended=_now())
    return code


def _follow(child: subprocess.Popen[bytes], request: StopRequest, grace: float, record: Record) -> int:
    """Wait for the end; pass the request to stop on once, and kill when the grace is over."""
    beat = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(SECONDS_BETWEEN_LOOKS)
        if time.monotonic() - beat > SECONDS_BETWEEN_BEATS:
            beat = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(record.path)
        if request.since is None:
            continue
        if not record.content["asked"]:
            record.write(asked=True)
            child.terminate()
        elif time.monotonic() - request.since > grace:
            record.write(killed=True)
            child.kill()
            return child.wait()


def _adopt_orphans() -> None:
    """On Linux, become the parent of every process of the job whose own parent ends, so that it can be found."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)


def _end_the_rest(group: int) -> None:
    """End what the job's process has left behind, politely first; ``group``: the job's process group."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(left, timeout=SECONDS_TO_FOLLOW)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _created(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main(arguments: list[str]) -> int:
    """Wait for the word, then supervise."""
    record, log, grace, _, *command = arguments
    if sys.stdin.buffer.read(2) != b"go":
        return 1
    return supervise(Record(Path(record)), Path(log), float(grace), command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) and 1)
