"""Jobs: trainings and scorings as processes of their own, which outlive the page, the tab and the server.

A job is a row of ``runs/jobs.sqlite`` (``app.jobs.store``), a runner (``app.jobs.runner``) with the job's own process
below it, and ``console.log`` in its folder: all that it prints. The runner writes the job's end into the row. A row
that says 'running' is compared with the processes that live whenever it is read, for a runner may be killed.
``docs/jobs.md`` is the page on it. No streamlit here.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from app.jobs.endings import Ending, after_vanishing, now, training_status
from app.jobs.logs import HEAD
from app.jobs.store import FILE, Job, JobError, Jobs, Kind, insert, select, update
from irl_core.home import runs_folder
from irl_core.storage.training_run import CONFIG, SECONDS_OF_SILENCE, is_alive, living_process, machine, started

REPOSITORY: Final = Path(__file__).resolve().parents[2]
CONSOLE: Final = "console.log"
GPU_CONTROL: Final = Path("/dev/nvidiactl")  # it is there where a driver is loaded
GRACE_SECONDS: Final = 120.0
NEVER_BEGUN: Final = "taken out of the queue before it began"
SECONDS_FOR_RUNNER: Final = 15.0  # more than it needs, after the grace, to end what is left


class Busy(JobError):
    """The device (or the run's folder) has an active job already, which is ``job``."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"{job.device} is busy with job {job.id}, {job.title}; wait for it, or cancel it")
        self.job = job


# ------------------------------------------------------------------------------------------------------------ reading


def root() -> Path:
    """The folder of runs and of the table."""
    return Path.cwd() / runs_folder()


def list_jobs() -> list[Job]:
    """All jobs, the newest first, each as it is now. Raises JobError where the table cannot be read."""
    _runners[:] = [process for process in _runners if process.poll() is None]  # so that none stays a zombie
    table = jobs_table()
    return [settled(table, job) for job in table.read()]


def get(job_id: int) -> Job:
    """The job as it is now. Raises JobError where there is none of this id."""
    table = jobs_table()
    return settled(table, table.get(job_id))


def active_job(device: str) -> Job | None:
    """The job that runs on a device now, if any. Raises JobError."""
    name = device_named(device)
    return next((job for job in list_jobs() if job.active and job.device == name), None)


def device_named(choice: str) -> str:
    """The canonical name of a device: ``auto`` is the first GPU where there is one, else the CPU."""
    if choice == "auto":
        return "cuda" if GPU_CONTROL.exists() else "cpu"
    return "cuda" if choice == "cuda:0" else choice


# ----------------------------------------------------------------------------------------------------------- starting


def command_line(*arguments: str) -> list[str]:
    """The command ``irl-lens`` with these arguments, as a job runs it."""
    return [sys.executable, "-m", "train.cli.main", *arguments]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job that is asked for.

    Attributes:
        kind: what it does.
        title: what it is called.
        command: what is run.
        run_dir: its folder.
        device: cpu, cuda, cuda:1, ..., or auto.
        user: who asks for it.
        grace: seconds that it has to obey when it is cancelled.
    """

    kind: Kind
    title: str
    command: list[str]
    run_dir: Path
    device: str
    user: str = ""
    grace: float = GRACE_SECONDS


def start(wanted: Wanted) -> Job:
    """Start a command as a job; returns it, running. It goes on whatever becomes of this process.

    Raises:
        Busy: the device, or the folder, has an active job; nothing was started.
        JobError: the table, the folder or the process could not be made; nothing was started.
    """
    row = new_row(wanted)
    return launch(lambda connection: insert(connection, row), row["device"], row["run_dir"])


def new_row(wanted: Wanted) -> dict[str, Any]:
    """The row of a job that is about to run."""
    folder = wanted.run_dir.resolve()
    return {
        "kind": wanted.kind, "title": wanted.title, "command": wanted.command, "run_dir": folder,
        "device": device_named(wanted.device), "state": "running", "created": now(), "reason": "",
        "log": folder / CONSOLE, "user": wanted.user, "machine": machine(), "attempt": 1, "grace": wanted.grace,
    }  # fmt: skip


def resume(job_id: int) -> Job:
    """Resume a job that has ended before its work was done; returns it, running.

    Raises:
        Busy: it runs, or its device has another job.
        JobError: there is no such job, it is finished, or it could not be started.
    """
    job = get(job_id)
    if job.state in ("finished", "queued"):
        raise JobError(f"job {job.id}, {job.title}, is {job.state}; there is nothing to resume")
    changes = {"state": "running", "machine": machine(), "attempt": job.attempt + 1}
    emptied = dict.fromkeys(("asked", "ended", "pid", "process_started", "child", "child_started")) | {"reason": ""}
    return launch(lambda connection: update(connection, job, **changes, **emptied), job.device, job.run_dir)


def launch(row: Callable[[sqlite3.Connection], Job], device: str, run_dir: Path) -> Job:
    """Make the row and its runner in one transaction. The runner waits for the commit: no job without a row."""
    table = jobs_table()
    runner: subprocess.Popen[bytes] | None = None
    try:
        with table.writing() as connection:
            in_the_way = "state = 'running' AND (device = ? OR run_dir = ?)"
            for other in select(connection, in_the_way, (device, str(run_dir))):
                ending = ending_of(other)
                if ending is None:
                    raise Busy(other)
                update(connection, other, state=ending.state, reason=ending.reason, ended=now())
            job = row(connection)
            if not job.active:  # somebody else has resumed it since it was read, and that has ended already
                raise JobError(f"job {job.id}, {job.title}, was resumed by somebody else and is {job.state} now")
            runner = start_runner(job)
            job = update(connection, job, pid=runner.pid, process_started=started(runner.pid))
        assert runner.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and its log says why
            runner.stdin.write(b"go")
            runner.stdin.close()
    except BaseException:
        if runner is not None and runner.stdin is not None:
            runner.stdin.close()  # it ends without having begun
        raise
    _runners.append(runner)
    return job


_runners: list[subprocess.Popen[bytes]] = []  # those that this server started


def start_runner(job: Job) -> subprocess.Popen[bytes]:
    """Start the runner of a job, with the job's folder and log; it waits for its word."""
    table = str(jobs_table().path)
    command = [sys.executable, "-m", "app.jobs.runner", table, str(job.id), "--", *command_of(job)]
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    try:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        with job.log.open("a", encoding="utf-8") as log:
            log.write(f"{HEAD}{now()} job {job.id}, attempt {job.attempt}\n")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise JobError(f"{job.name}/ could not be written ({why}); free space, and try again") from error
    try:
        with job.log.open("ab") as log_of_runner:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log_of_runner, stderr=log_of_runner, start_new_session=True,
                env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},  # no app.py of the folder
            )  # fmt: skip
    except OSError as error:
        raise JobError(f"job {job.title} could not be started ({error.strerror})") from error


def command_of(job: Job) -> list[str]:
    """The job's command; of a training that has begun before, with ``--resume``."""
    again = job.kind == "train" and job.attempt > 1 and (job.run_dir / CONFIG).exists()
    return [*job.command, "--resume"] if again else job.command


# ---------------------------------------------------------------------------------------------------------- cancelling


def cancel(job_id: int) -> Job:
    """Ask a job to stop; returns it as it is now. A training finishes its step, saves, and can be resumed.

    One that does not obey within its grace is killed, with all its processes. Harmless when asked twice, or at the end.
    Raises JobError where there is no such job, or the request cannot be written down (it is sent all the same).
    """
    job = get(job_id)
    if job.waiting:  # if it has begun meanwhile it is asked to stop
        job = jobs_table().change(job, state="cancelled", reason=NEVER_BEGUN, ended=now())
    if not job.active:
        return job
    if job.machine != machine():
        raise JobError(f"job {job.id}, {job.title}, runs on another machine; cancel it there")
    try:
        if job.asked is None:
            with jobs_table().writing() as connection:
                job = update(connection, job, asked=now())
    finally:
        for process in processes_of(job)[:1]:  # the runner passes it on, once; the job's own where the runner is gone
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
    return job


def processes_of(job: Job) -> list[psutil.Process]:
    """The job's runner and its own process: those that live on this machine, and are the ones that were started."""
    known = [(job.pid, job.process_started), (job.child, job.child_started)]
    if job.machine != machine():
        return []
    living = []
    for pid, began in known:
        with contextlib.suppress(psutil.NoSuchProcess):
            if pid is not None and is_alive(pid, began):
                living.append(psutil.Process(pid))
    return living


def seconds_of_process(job: Job) -> float | None:
    """How long a job's process of this attempt has been living; None where none lives on this machine."""
    for process in processes_of(job)[:1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return max(0.0, time.time() - float(process.create_time()))
    return None


def with_descendants(process: psutil.Process) -> list[psutil.Process]:
    """A process and its descendants."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [process]


# ----------------------------------------------------------------------------------------- rows without a living runner


def settled(table: Jobs, job: Job) -> Job:
    """The job as it is now; an ending that its runner could not write is written here."""
    ending = ending_of(job)
    if ending is None:
        return job
    ended = now()
    try:
        return table.change(job, state=ending.state, reason=ending.reason, ended=ended)
    except JobError:  # a locked or read-only table: it is found again the next time, and shown as it is now
        return replace(job, state=ending.state, reason=ending.reason, ended=ended)


def ending_of(job: Job) -> Ending | None:
    """The ending of a job whose row says that it runs and whose processes are gone; None for every other job.

    A job that should have stopped by now and whose runner is gone is killed; a living runner sees to it itself, by a
    clock that nobody sets.
    """
    if not job.active or (job.machine != machine() and (living_process(training_status(job)) or beats(job))):
        return None
    living = processes_of(job)
    if not living:
        return after_vanishing(job)
    if job.asked is not None and living[0].pid != job.pid:
        since = (datetime.now(UTC) - datetime.fromisoformat(job.asked)).total_seconds()
        if since > job.grace + SECONDS_FOR_RUNNER:
            for process in (one for parent in living for one in with_descendants(parent)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    return None


def beats(job: Job) -> bool:
    """Whether the runner of a job on another machine, or the job itself, has touched its log lately."""
    try:
        return time.time() - job.log.stat().st_mtime < SECONDS_OF_SILENCE
    except OSError:
        return False


def jobs_table() -> Jobs:
    """The table of the jobs in ``runs/``."""
    return Jobs(root() / FILE)
