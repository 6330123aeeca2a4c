"""The runner of a job: the process that starts the job's command, stays until its end, and writes the end into its row.

    python -m app.jobs.runner TABLE ID -- COMMAND...

The server that asked for the job may be gone by then. The runner passes on the request to stop, kills what does not
obey within the job's grace, and leaves no process of the job behind. It begins when it reads ``go`` on its standard
input, and not at all where that is closed before: the job has no row then. Its standard error is the job's log.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

import psutil

from app.jobs.endings import NOT_FOUND, Exit, after_exit, now
from app.jobs.store import Job, JobError, Jobs, is_locked
from irl_core.storage.training_run import started

SECONDS_BETWEEN_LOOKS: Final = 0.1
SECONDS_BETWEEN_BEATS: Final = 10.0  # of the log's time of change, by which another machine knows that the job lives
SECONDS_TO_FOLLOW: Final = 3.0  # for what the job's process has left behind, before it is killed
SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Result = TypeVar("Result")


class StopRequest:
    """Whether the runner was asked to stop the job, and since when (on the monotonic clock)."""

    def __init__(self) -> None:
        self.since: float | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self.take)

    def take(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; a second request changes nothing."""
        if self.since is None:
            self.since = time.monotonic()


def run(table: Jobs, job: Job, command: list[str]) -> int:
    """Run the command to its end, and write that into the job's row; returns its exit status."""
    request = StopRequest()
    adopt_orphans()
    try:
        with job.log.open("ab") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        end = Exit(NOT_FOUND, error=f"it could not be started ({error.strerror})")
    else:
        end = follow(table, job, child, request)
        end_the_rest(child.pid)
    job = patiently(lambda: table.get(job.id))  # with who asked it to stop, and its own process
    ending = after_exit(job, end)
    patiently(lambda: table.change(job, state=ending.state, reason=ending.reason, ended=now()))
    return end.code


def follow(table: Jobs, job: Job, child: subprocess.Popen[bytes], request: StopRequest) -> Exit:
    """Wait for the end; pass the request to stop on once, and kill when the grace is over."""
    began = started(child.pid)
    noted = asked = False
    next_beat = time.monotonic()
    while True:
        if time.monotonic() >= next_beat:
            next_beat = time.monotonic() + SECONDS_BETWEEN_BEATS
            with contextlib.suppress(OSError):
                os.utime(job.log)
            noted = noted or note_child(table, job, child.pid, began)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return Exit(child.wait(SECONDS_BETWEEN_LOOKS), asked=asked)
        if request.since is None:
            continue
        if not asked:
            asked = True
            child.terminate()
        elif time.monotonic() - request.since > job.grace:
            child.kill()
            return Exit(child.wait(), killed=True, asked=True)


def note_child(table: Jobs, job: Job, pid: int, began: float | None) -> bool:
    """Write the id of the job's own process into the row; False where that has to be tried again."""
    try:
        table.change(job, child=pid, child_started=began)
    except JobError as error:
        print(f"irl-lens: {error}", file=sys.stderr, flush=True)
        return False
    return True


def patiently(call: Callable[[], Result]) -> Result:
    """The result of a call on the table; a lock is waited for as long as it lasts. Raises JobError."""
    while True:
        try:
            return call()
        except JobError as error:
            if not is_locked(error):
                raise
            time.sleep(SECONDS_BETWEEN_LOOKS)


def adopt_orphans() -> None:
    """On Linux, become the parent of every process of the job whose own parent ends, so that it can be found."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)


def end_the_rest(group: int) -> None:
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


def main(arguments: list[str]) -> int:
    """Wait for the word, then run."""
    path, identity, _, *command = arguments
    if sys.stdin.buffer.read(2) != b"go":
        return 1
    table = Jobs(Path(path))
    code = run(table, patiently(lambda: table.get(int(identity))), command)
    begin_next()
    return code


def begin_next() -> None:
    """Begin what waits for the device that is free now. Where that cannot be done a server does it, when it is seen."""
    from app.jobs import supervisor, waiting

    with contextlib.suppress(JobError):
        waiting.begin(supervisor.list_jobs())


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]) and 1)
    except JobError as job_error:
        sys.exit(f"irl-lens: {job_error}")
