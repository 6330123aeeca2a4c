"""The table of jobs: ``runs/jobs.sqlite``, a row a job. Short transactions, one writer at a time.

SQLite keeps the rule itself: an index allows one running job a device. Several servers may share the file.
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
VERSION: Final = 1
MOVE_AWAY: Final = (
    "move it away, and a new one is begun: the runs themselves are whole. Until then no job can be started"
)

Kind = Literal["train", "score", "evaluate"]
State = Literal["running", "finished", "failed", "interrupted", "cancelled"]

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, title TEXT NOT NULL, command TEXT NOT NULL,
    run_dir TEXT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL, pid INTEGER, process_started REAL,
    created TEXT NOT NULL, ended TEXT, reason TEXT NOT NULL, log TEXT NOT NULL, user TEXT NOT NULL,
    machine TEXT NOT NULL, attempt INTEGER NOT NULL, grace REAL NOT NULL, asked TEXT
)""",
    "CREATE UNIQUE INDEX IF NOT EXISTS one_job_a_device ON jobs (device) WHERE state = 'running'",
    "CREATE UNIQUE INDEX IF NOT EXISTS one_job_a_folder ON jobs (run_dir) WHERE state = 'running'",
)


class JobError(UserError, RuntimeError):
    """What cannot be done with a job, in words for the user, with the mend."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its row has it. ``pid`` and ``process_started``: of the process beside it
    (``app.jobs.supervisor.runner``).

    ``machine``: where those ids mean something. ``attempt``: 1, and one more every time that it was resumed. ``grace``:
    seconds in which it must obey. ``asked``: when it was asked to stop, None where it was not.
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

    @property
    def active(self) -> bool:
        return self.state == "running"

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


def select(connection: sqlite3.Connection, where: str = "1", values: tuple[Any, ...] = ()) -> list[Job]:
    """The jobs that meet a condition (SQL of ours, with ``?`` for values), the newest first."""
    found = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE {where} ORDER BY id DESC", values)
    return [_job(row) for row in found.fetchall()]


def insert(connection: sqlite3.Connection, values: Mapping[str, Any]) -> Job:
    """Add a row; returns the job with its id."""
    marks = ", ".join("?" * len(values))
    done = connection.execute(
        f"INSERT INTO jobs ({', '.join(values)}) VALUES ({marks})", tuple(map(_stored, values.values()))
    )
    return select(connection, "id = ?", (done.lastrowid,))[0]


def update(connection: sqlite3.Connection, job: Job, **changes: Any) -> Job:
    """Change a job's row, as long as it is in the state and attempt that ``job`` was read in; returns it as it is."""
    sets = ", ".join(f"{name} = ?" for name in changes)
    values = (*map(_stored, changes.values()), job.id, job.state, job.attempt)
    connection.execute(f"UPDATE jobs SET {sets} WHERE id = ? AND state = ? AND attempt = ?", values)
    return select(connection, "id = ?", (job.id,))[0]


def _stored(value: Any) -> Any:
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
