"""Jobs: trainings and scorings as processes of their own, which outlive the page, the tab and the server.

A job is a row of ``runs/jobs.sqlite`` (``app.jobs.supervisor.store``), a process (``app.jobs.supervisor.runner``, with
the job's own below it), and two files in the run's folder: ``console.log``, all that it prints, and ``job.json``, how
it ended. What the row says is compared with what lives whenever it is read. ``docs/jobs.md`` is the page on it. No
streamlit here.
"""

from __future__ import annotations

import contextlib
import json
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

from app.jobs.runner import RECORD_BYTES
from app.jobs.store import FILE, Job, JobError, Jobs, Kind, State, insert, select, update
from irl_core.errors import CheckpointError
from irl_core.storage.training_run import (
    CONFIG,
    SECONDS_OF_SILENCE,
    TrainingStatus,
    is_alive,
    living_process,
    machine,
    read_status,
)

__all__ = ["Busy", "Job", "JobError", "cancel", "command_line", "get", "list_jobs", "log_tail", "resume", "start"]

HEAD: Final = "--- "  # begins the line that an attempt puts into its log
REPOSITORY: Final = Path(__file__).resolve().parents[2]
RUNS: Final = "runs"
CONSOLE: Final = "console.log"
RECORD: Final = "job.json"
GPU: Final = Path("/dev/nvidiactl")
GRACE_SECONDS: Final = 120.0
SECONDS_FOR_RUNNER: Final = 15.0  # more than it needs, after the grace, to end what is left
TAIL_BYTES: Final = 64 * 1024
MAX_REASON: Final = 500


class Busy(JobError):
    """The device (or the run's folder) has an active job already, which is ``job``."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"{job.device} is busy with job {job.id}, {job.title}; wait for it, or cancel it")
        self.job = job


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job that does not live any more has ended."""

    state: State
    reason: str
    ended: str


# ------------------------------------------------------------------------------------------------------------ reading


def root() -> Path:
    """The folder of runs and of the table: ``runs`` in the working directory."""
    return Path.cwd() / RUNS


def list_jobs() -> list[Job]:
    """All jobs, the newest first, each as it is now. Raises JobError where the table cannot be read."""
    _reap()
    table = _table()
    return [_settled(table, job) for job in table.read()]


def get(job_id: int) -> Job:
    """The job as it is now. Raises JobError where there is none of this id."""
    found = next((job for job in list_jobs() if job.id == job_id), None)
    if found is None:
        raise JobError(f"there is no job {job_id}")
    return found


def active_job(device: str) -> Job | None:
    """The job that runs on a device now, if any. Raises JobError."""
    name = device_named(device)
    return next((job for job in list_jobs() if job.active and job.device == name), None)


def device_named(choice: str) -> str:
    """The one name of a device, so that two jobs on it meet: auto is the first GPU where there is one, else the CPU."""
    if choice == "auto":
        return "cuda" if GPU.exists() else "cpu"
    return "cuda" if choice == "cuda:0" else choice


def log_tail(job: Job, lines: int = 30) -> str:
    """The last lines that the job printed, without what steers a terminal; model output may be among them."""
    try:
        with job.log.open("rb") as source:
            source.seek(max(0, os.fstat(source.fileno()).st_size - TAIL_BYTES))
            text = source.read().decode("utf-8", "replace")
    except OSError:
        return ""
    kept = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n") if line.strip()][-lines:]
    return "\n".join("".join(c if c.isprintable() or c == "\t" else " " for c in line)[:400] for line in kept)


def record(job: Job) -> dict[str, Any]:
    """What the process beside the job has written down; empty before it did."""
    try:
        found = json.loads((job.run_dir / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("pid") == job.pid else {}


# ----------------------------------------------------------------------------------------------------------- starting


def command_line(*arguments: str) -> list[str]:
    """The command ``irl-lens`` with these arguments, as a job runs it."""
    return [sys.executable, "-m", "train.cli.main", *arguments]


def start(
    kind: Kind,
    title: str,
    command: list[str],
    run_dir: Path,
    device: str,
    user: str = "",
    *,
    grace: float = GRACE_SECONDS,
) -> Job:
    """Start a command as a job; returns it, running. It goes on whatever becomes of this process.

    ``device``: cpu, cuda, cuda:1, ..., or auto. ``grace``: seconds that it has to obey when it is cancelled.

    Raises:
        Busy: the device, or the folder, has an active job; nothing was started.
        JobError: the table, the folder or the process could not be made; nothing was started.
    """
    run_dir, device = run_dir.resolve(), device_named(device)
    job = {
        "kind": kind, "title": title, "command": command, "run_dir": run_dir, "device": device, "state": "running",
        "created": _now(), "reason": "", "log": run_dir / CONSOLE, "user": user, "machine": machine(), "attempt": 1,
        "grace": grace,
    }  # fmt: skip
    return _launched(lambda connection: insert(connection, job), device, run_dir)


def resume(job_id: int) -> Job:
    """Go on with a job that has ended before its work was done; returns it, running.

    Raises:
        Busy: it runs, or its device has another job.
        JobError: there is no such job, it is finished, or it could not be started.
    """
    job = get(job_id)
    if job.state == "finished":
        raise JobError(f"job {job.id}, {job.title}, is finished; there is nothing to resume")
    changes = {"state": "running", "machine": machine(), "attempt": job.attempt + 1}
    emptied = {"asked": None, "ended": None, "reason": "", "pid": None, "process_started": None}
    return _launched(lambda connection: update(connection, job, **changes, **emptied), job.device, job.run_dir)


def _launched(row: Callable[[sqlite3.Connection], Job], device: str, run_dir: Path) -> Job:
    """Make the row and its process in one transaction. The process waits for the commit: no job without a row."""
    table = _table()
    process: subprocess.Popen[bytes] | None = None
    try:
        with table.writing() as connection:
            in_the_way = "state = 'running' AND (device = ? OR run_dir = ?)"
            for other in select(connection, in_the_way, (device, str(run_dir))):
                if _written(connection, other).active:
                    raise Busy(other)
            job = row(connection)
            if not job.active:  # somebody else has resumed it since it was read, and that has ended already
                raise JobError(f"job {job.id}, {job.title}, was resumed by somebody else and is {job.state} now")
            _make_files(job)
            process = _runner(job)
            job = update(connection, job, pid=process.pid, process_started=_created(process.pid))
        _go(process)
    except BaseException:
        if process is not None and process.stdin is not None:
            process.stdin.close()  # it ends without having begun
        raise
    _runners.append(process)
    return job


def _make_files(job: Job) -> None:
    """The folder, the log, and a record with room for the exit status, also on a disk that is full later."""
    try:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        (job.run_dir / RECORD).write_bytes(b" " * RECORD_BYTES)
        with job.log.open("a", encoding="utf-8") as log:
            log.write(f"{HEAD}{_now()} job {job.id}, attempt {job.attempt}\n")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise JobError(f"{job.name}/ could not be written ({why}); free space, and try again") from error


def _runner(job: Job) -> subprocess.Popen[bytes]:
    """The process beside the job, waiting for its word."""
    names = [str(job.run_dir / RECORD), str(job.log), str(job.grace)]
    command = [sys.executable, "-m", "app.jobs.runner", *names, "--", *_command(job)]
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    try:
        with job.log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": paths},
            )  # fmt: skip
    except OSError as error:
        raise JobError(f"job {job.title} could not be started ({error.strerror})") from error


def _command(job: Job) -> list[str]:
    """The job's command; of a training that has begun before, with ``--resume``."""
    again = job.kind == "train" and job.attempt > 1 and (job.run_dir / CONFIG).exists()
    return [*job.command, "--resume"] if again else job.command


def _go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended, and its log says why
        process.stdin.write(b"go")
        process.stdin.close()


# ---------------------------------------------------------------------------------------------------------- cancelling


def cancel(job_id: int) -> Job:
    """Ask a job to stop; returns it as it is now. A training finishes its step, saves, and can be resumed.

    One that does not obey within its grace is killed, with all its processes. Harmless when asked twice, or at the end.
    Raises JobError where there is no such job, or the request cannot be written down (it is sent all the same).
    """
    job = get(job_id)
    if not job.active:
        return job
    if job.machine != machine():
        raise JobError(f"job {job.id}, {job.title}, runs on another machine; cancel it there")
    try:
        if job.asked is None:
            with _table().writing() as connection:
                job = update(connection, job, asked=_now())
    finally:
        _send_stop(*_processes(job))
    return job


def _send_stop(runner: psutil.Process | None, child: psutil.Process | None) -> None:
    """SIGTERM to the process beside the job, which passes it on once; to the job's own where that one is gone."""
    process = runner or child
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()


def _processes(job: Job) -> tuple[psutil.Process | None, psutil.Process | None]:
    """The process beside the job, and the job's own: those that live, and are the ones that were started."""
    if job.machine != machine():
        return None, None
    known = record(job)
    return _living(job.pid, job.process_started), _living(known.get("child"), known.get("child_started"))


def _living(pid: Any, started: Any) -> psutil.Process | None:
    try:
        return psutil.Process(pid) if is_alive(pid, started) else None
    except psutil.NoSuchProcess:
        return None


def _kill_if_late(job: Job, runner: psutil.Process | None, child: psutil.Process | None) -> None:
    """Kill what should have ended: the process beside the job does so itself, where it lives."""
    if job.asked is None or _seconds_since(job.asked) < job.grace + SECONDS_FOR_RUNNER:
        return
    for process in filter(None, (runner, child)):
        for one in (process, *_below(process)):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


# ---------------------------------------------------------------------------------------------------- rows and reality


def _settled(table: Jobs, job: Job) -> Job:
    """The job as it is now, written down where it has ended since."""
    ending = _ending(job)
    if ending is None:
        return job
    try:
        with table.writing() as connection:
            return update(connection, job, state=ending.state, reason=ending.reason, ended=ending.ended)
    except JobError:  # a full or read-only disk: it is found again the next time, and shown as it is now
        return replace(job, state=ending.state, reason=ending.reason, ended=ending.ended)


def _written(connection: sqlite3.Connection, job: Job) -> Job:
    ending = _ending(job)
    if ending is None:
        return job
    return update(connection, job, state=ending.state, reason=ending.reason, ended=ending.ended)


def _ending(job: Job) -> Ending | None:
    """How the job ended, None while it runs."""
    if not job.active:
        return None
    known, status = record(job), _status(job)
    if known.get("exit") is not None:
        return _judged(job, known, status)
    if job.machine != machine() and (living_process(status) or _beats(job)):
        return None
    runner, child = _processes(job)
    if runner is not None or child is not None:
        _kill_if_late(job, runner, child)
        return None
    return _gone(job, known, status)


def _beats(job: Job) -> bool:
    """Whether the process beside a job of another machine has touched its record lately."""
    try:
        return time.time() - (job.run_dir / RECORD).stat().st_mtime < SECONDS_OF_SILENCE
    except OSError:
        return False


def _status(job: Job) -> TrainingStatus:
    try:
        return read_status(job.run_dir) if job.kind == "train" else {}
    except CheckpointError:
        return {}


def _judged(job: Job, known: dict[str, Any], status: TrainingStatus) -> Ending:
    """From the exit status, and what the training said of itself."""
    code, ended = int(known["exit"]), str(known.get("ended") or _now())
    own = status if status.get("pid") == known.get("child") else {}
    if code == 0 and (job.kind != "train" or status.get("state") == "finished"):
        return Ending("finished", "", ended)
    if own.get("state") in ("failed", "stopped"):
        return Ending("failed", _short(own.get("reason")), ended)
    if job.asked or known.get("asked"):
        return Ending("cancelled" if job.asked else "interrupted", _how_it_stopped(job, known, own), ended)
    if code in (0, -15, -2, -1):
        return Ending("interrupted", _how_it_stopped(job, known, own), ended)
    return Ending("failed", _why_it_failed(job, known, code), ended)


def _how_it_stopped(job: Job, known: dict[str, Any], status: TrainingStatus) -> str:
    if known.get("killed"):
        return f"killed: it did not stop within {job.grace:.0f} s. What was saved before is whole"
    if status.get("state") == "interrupted":
        return f"stopped at step {status.get('step')} of {status.get('steps')}, and saved"
    return "stopped"


def _why_it_failed(job: Job, known: dict[str, Any], code: int) -> str:
    if known.get("error"):
        return _short(known["error"])
    if code == -9:
        return "killed from outside, most often because the machine's memory was full. What was saved before is whole"
    if code < 0:
        return f"ended by signal {-code}. What was saved before is whole"
    last = log_tail(job, 1)
    said = "" if last.startswith(HEAD) else last.removeprefix("irl-lens: ")
    return _short(said) or f"exit status {code}; its log says no more"


def _gone(job: Job, known: dict[str, Any], status: TrainingStatus) -> Ending:
    """Both processes are gone without an exit status: they were killed, or the machine was restarted."""
    own = status if status.get("pid") == known.get("child") else {}
    if own.get("state") in ("finished", "failed", "stopped"):
        return Ending("finished" if own["state"] == "finished" else "failed", _short(own.get("reason")), _now())
    if job.asked or own.get("state") == "interrupted":
        return Ending("cancelled" if job.asked else "interrupted", _how_it_stopped(job, known, own), _now())
    reason = "its process is gone without a word: it was killed, or the machine restarted. What was saved is whole"
    return Ending("interrupted", reason, _now())


def _short(text: Any) -> str:
    return " ".join(str(text or "").split())[:MAX_REASON]


# -------------------------------------------------------------------------------------------------------------- helpers

_runners: list[subprocess.Popen[bytes]] = []  # those that this server started, so that their ends are taken note of


def _reap() -> None:
    """Take note of the ended processes of this server, so that none stays a zombie."""
    _runners[:] = [process for process in _runners if process.poll() is None]


def _table() -> Jobs:
    return Jobs(root() / FILE)


def _created(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _seconds_since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
