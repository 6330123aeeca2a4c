"""The table of jobs, ``runs/jobs.sqlite``: one row for each job, and the only record of its state.

Several servers and the jobs' own runners share the file, in short transactions. SQLite keeps the rule of one running
job a device by an index. Each row reserves bytes, so that the job's end can be written when the disk is full.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from irl_core.errors import UserError
from irl_core.sqlite import Database, schema_version

FILE: Final = "jobs.sqlite"
VERSION: Final = 2
RESERVED: Final = 2048  # bytes of a running job's row: more than its end takes, with a reason in any script
RESERVED_FOR_PROCESS: Final = 64  # and more than the id and the time of the job's own process take
MOVE_AWAY: Final = (
    "move it away, and a new one is begun: the runs themselves are whole. Until then no job can be started"
)

Kind = Literal["train", "score", "evaluate"]
State = Literal["queued", "running", "finished", "failed", "interrupted", "cancelled"]

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, title TEXT NOT NULL, command TEXT NOT NULL,
    run_dir TEXT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL, pid INTEGER, process_started REAL,
    created TEXT NOT NULL, ended TEXT, reason TEXT NOT NULL, log TEXT NOT NULL, user TEXT NOT NULL,
    machine TEXT NOT NULL, attempt INTEGER NOT NULL, grace REAL NOT NULL, asked TEXT, child INTEGER,
    child_started REAL, reserved BLOB NOT NULL
)""",
    "CREATE UNIQUE INDEX IF NOT EXISTS one_job_a_device ON jobs (device) WHERE state = 'running'",
    "CREATE UNIQUE INDEX IF NOT EXISTS one_job_a_folder ON jobs (run_dir) WHERE state = 'running'",
)


class JobError(UserError, RuntimeError):
    """Something that cannot be done with a job; the message says why, with the fix."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job, as its row has it.

    Attributes:
        command: what it runs, without ``--resume``.
        run_dir: folder of the training run or scored run that it makes.
        device: cpu, cuda, cuda:1, ...
        pid, process_started: of its runner (`app.jobs.runner`), and its start in seconds since the machine's boot, by
            which an id that was used again is known.
        child, child_started: of the process that runs the command; None until it was started.
        machine: where those ids mean something.
        reason: why it ended as it did, in words; empty while it runs, and where it finished.
        attempt: 1, and one more each time that it was resumed.
        grace: seconds in which it must obey when it is asked to stop.
        asked: when it was asked to stop, None where it was not.
    """

    id: int
    kind: Kind
    title: str
    command: list[str]
    run_dir: Path
    device: str
    state: State
    pid: int | None
    process_started: float | None
    created: str
    ended: str | None
    reason: str
    log: Path
    user: str
    machine: str
    attempt: int
    grace: float
    asked: str | None
    child: int | None
    child_started: float | None

    @property
    def active(self) -> bool:
        return self.state == "running"

    @property
    def waiting(self) -> bool:
        return self.state == "queued"

    @property
    def name(self) -> str:
        return self.run_dir.name


COLUMNS: Final = tuple(field.name for field in fields(Job))


class Jobs(Database):
    """The table of jobs in one SQLite file; every error of SQLite becomes a JobError."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SCHEMA, VERSION, JobError, MOVE_AWAY)

    def read(self) -> list[Job]:
        """All jobs, the newest first; none where there is no table yet. Raises JobError."""
        if not self.path.exists():
            return []
        with self.reading() as connection:
            return select(connection) if schema_version(connection) else []

    def get(self, job_id: int) -> Job:
        """The job of this id. Raises JobError where there is none, or the table cannot be read."""
        job = next((job for job in self.read() if job.id == job_id), None)
        if job is None:
            raise JobError(f"there is no job {job_id}")
        return job

    def change(self, job: Job, **changes: Any) -> Job:
        """Change a job's row as `update` does, in a transaction of its own; returns the job as it is then.

        Where the disk is full, the transaction's journal is kept in memory and the row is changed within the bytes that
        it reserved. Only a loss of power at that very moment could then damage the table.

        Raises:
            JobError: the table is locked, damaged, or of a later version.
        """
        try:
            with self.writing() as connection:
                return update(connection, job, **changes)
        except JobError as error:
            if is_locked(error) or not isinstance(error.__cause__, sqlite3.OperationalError):
                raise
        with self.reading() as connection:
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("BEGIN IMMEDIATE")
            job = update(connection, job, **changes)
            connection.execute("COMMIT")
        return job


def is_locked(error: JobError) -> bool:
    """Whether another program kept the table locked: the same call may succeed later."""
    return isinstance(error.__cause__, sqlite3.OperationalError) and "locked" in str(error.__cause__)


def select(connection: sqlite3.Connection, where: str = "1", values: tuple[Any, ...] = ()) -> list[Job]:
    """The jobs that meet a condition (SQL of ours, with ``?`` for values), the newest first."""
    found = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE {where} ORDER BY id DESC", values)
    return [_job(row) for row in found.fetchall()]


def insert(connection: sqlite3.Connection, values: Mapping[str, Any]) -> Job:
    """Add a row; returns the job with its id."""
    values = {**values, "reserved": bytes(RESERVED + RESERVED_FOR_PROCESS)}
    marks = ", ".join("?" * len(values))
    done = connection.execute(
        f"INSERT INTO jobs ({', '.join(values)}) VALUES ({marks})", tuple(map(stored, values.values()))
    )
    return select(connection, "id = ?", (done.lastrowid,))[0]


def update(connection: sqlite3.Connection, job: Job, **changes: Any) -> Job:
    """Change a job's row, unless it is in another state, attempt or process by now; returns the job as it is then."""
    if "state" in changes:
        changes["reserved"] = bytes(RESERVED + RESERVED_FOR_PROCESS) if changes["state"] == "running" else b""
    elif "child" in changes:
        changes["reserved"] = bytes(RESERVED)
    sets = ", ".join(f"{name} = ?" for name in changes)
    values = (*map(stored, changes.values()), job.id, job.state, job.attempt, job.pid)
    connection.execute(f"UPDATE jobs SET {sets} WHERE id = ? AND state = ? AND attempt = ? AND pid IS ?", values)
    return select(connection, "id = ?", (job.id,))[0]


def stored(value: Any) -> Any:
    """A value as SQLite keeps it: lists as JSON, paths as text."""
    if isinstance(value, list):
        return json.dumps(value)
    return str(value) if isinstance(value, Path) else value


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    try:
        command = list(map(str, json.loads(values["command"])))
    except ValueError as error:
        raise JobError(f"{FILE} is damaged (job {values['id']}); {MOVE_AWAY}") from error
    return Job(**values | {"command": command, "run_dir": Path(values["run_dir"]), "log": Path(values["log"])})
