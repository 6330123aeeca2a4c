"""The queue: a job whose device is busy waits as a row of the table, and begins when the one before it has ended.

Whoever sees the end begins the next one: the runner of the job that ended, or a server that draws a page. So the queue
outlives the server, and goes on without one. No streamlit here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from app.jobs import supervisor
from app.jobs.endings import now
from app.jobs.store import Job, JobError, insert, is_locked, select, update
from app.jobs.supervisor import Busy, Wanted
from irl_core.storage.training_run import machine

MOST_WAITING: Final = 20


def start(wanted: Wanted) -> Job:
    """Start a job, as `supervisor.start` does; where its device is busy it waits in the queue.

    Raises:
        Busy: the very folder has an active job.
        JobError: it waits already, the queue is full, or it could neither be started nor noted down.
    """
    begin(supervisor.list_jobs())  # what waited before comes first
    try:
        return supervisor.start(wanted)
    except Busy as busy:
        if busy.job.run_dir == wanted.run_dir.resolve():
            raise
    row = supervisor.new_row(wanted) | {"state": "queued"}
    with supervisor.jobs_table().writing() as connection:
        waiting = select(connection, "state = 'queued'")
        if any(job.run_dir == row["run_dir"] for job in waiting):
            raise JobError(f"{wanted.run_dir.name} waits in the queue already; take another name")
        if len(waiting) >= MOST_WAITING:
            raise JobError(f"{len(waiting)} jobs wait already, the limit is {MOST_WAITING}; take one out of the queue")
        return insert(connection, row)


def begin(jobs: Sequence[Job]) -> bool:
    """Begin what waits on each device of this machine that is free, in the order in which it was asked for; whether
    anything changed. One that cannot be started has failed, with the reason, and the next one is tried."""
    busy = {job.device for job in jobs if job.active}
    changed = False
    for job in reversed(jobs):
        if not job.waiting or job.device in busy or job.machine != machine():
            continue
        try:
            supervisor.launch(partial(update, job=job, state="running"), job.device, job.run_dir)
            busy.add(job.device)
            changed = True
        except Busy as error:  # somebody else has begun it, or another one
            busy.add(error.job.device)
        except JobError as error:
            if is_locked(error):
                return changed
            supervisor.jobs_table().change(job, state="failed", reason=str(error), ended=now())
            changed = True
    return changed


def places(jobs: Sequence[Job]) -> dict[int, int]:
    """The place in the queue of its device, from 1, of each job that waits, by its id."""
    found: dict[int, int] = {}
    for job in reversed(jobs):
        if job.waiting:
            ahead = sum(other.waiting and other.device == job.device and other.id < job.id for other in jobs)
            found[job.id] = ahead + 1
    return found
