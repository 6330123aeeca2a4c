"""The ending of a job, as a state and a reason: from its exit status, its log, and the status of a training."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.jobs.logs import HEAD, job_tail
from app.jobs.store import Job, State
from irl_core.errors import CheckpointError, StoreError
from irl_core.storage.training_run import TrainingStatus, read_status

MAX_REASON: Final = 500
OUT: Final = "--out"  # the option of irl-lens score that names the run
NOT_FOUND: Final = 127  # exit status of a command that could not be started, as in a shell


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a job's process.

    Attributes:
        code: exit status; negative: the signal that ended it.
        killed: it did not stop within its grace, and was killed.
        asked: its runner was asked to stop it.
        error: why it could not be started; empty where it could.
    """

    code: int
    killed: bool = False
    asked: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """The state in which a job ended, and why; ``reason`` is empty where it finished."""

    state: State
    reason: str


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def training_status(job: Job) -> TrainingStatus:
    """The status that a training wrote last; empty for other jobs, and where it cannot be read."""
    try:
        return read_status(job.run_dir) if job.kind == "train" else {}
    except CheckpointError:
        return {}


def after_exit(job: Job, end: Exit) -> Ending:
    """The ending of a job whose process has ended while its runner watched."""
    status = training_status(job)
    if end.code == 0 and (job.kind != "train" or status.get("state") == "finished"):
        return Ending("finished", "")
    own = status if status.get("pid") == job.child else {}
    if own.get("state") in ("failed", "stopped"):
        return Ending("failed", one_line(own.get("reason")))
    if (end.code < 0 or job.asked or end.asked) and made_its_run(job):
        return Ending("finished", "")
    if job.asked or end.asked or end.code in (0, -15, -2, -1):
        return Ending("cancelled" if job.asked else "interrupted", how_it_stopped(job, own, killed=end.killed))
    return Ending("failed", why_it_failed(job, end))


def after_vanishing(job: Job) -> Ending:
    """The ending of a job whose processes are gone without an exit status: killed, or the machine restarted."""
    status = training_status(job)
    own = status if job.child in (status.get("pid"), None) else {}  # its runner may have gone before it noted the id
    if own.get("state") == "finished" or made_its_run(job):
        return Ending("finished", "")
    own = own if job.child is not None else {}
    if own.get("state") in ("failed", "stopped"):
        return Ending("failed", one_line(own.get("reason")))
    if job.asked or own.get("state") == "interrupted":
        return Ending("cancelled" if job.asked else "interrupted", how_it_stopped(job, own))
    reason = "its process is gone without a word: it was killed, or the machine restarted. What was saved is whole"
    return Ending("interrupted", reason)


def made_its_run(job: Job) -> bool:
    """Whether a scoring has written its whole run, which it does in one rename at its end, into a folder of its own."""
    if job.kind != "score" or OUT not in job.command[:-1]:
        return False
    from irl_core.storage.scored_run import read_provenance

    try:
        read_provenance(Path(job.command[job.command.index(OUT) + 1]))
    except StoreError:
        return False
    return True


def how_it_stopped(job: Job, status: TrainingStatus, *, killed: bool = False) -> str:
    """The reason of a job that stopped because it was asked to."""
    if killed:
        return f"killed: it did not stop within {job.grace:.0f} s. What was saved before is whole"
    if status.get("state") == "interrupted":
        return f"stopped at step {status.get('step')} of {status.get('steps')}, and saved"
    return "stopped"


def why_it_failed(job: Job, end: Exit) -> str:
    """The reason of a job that failed: its last line, or the meaning of its exit status."""
    if end.error:
        return one_line(end.error)
    if end.code == -9:
        return "killed from outside, most often because the machine's memory was full. What was saved before is whole"
    if end.code < 0:
        return f"ended by signal {-end.code}. What was saved before is whole"
    last = job_tail(job, 1)
    said = "" if last.startswith(HEAD) else last.removeprefix("irl-lens: ")
    return one_line(said) or f"exit status {end.code}; its log says no more"


def one_line(text: str | None) -> str:
    """A text on one line, at most MAX_REASON characters."""
    return " ".join((text or "").split())[:MAX_REASON]
