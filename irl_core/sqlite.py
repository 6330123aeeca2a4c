"""One SQLite file: its schema, short transactions, and errors in words.

The file keeps SQLite's default rollback journal, which also works on network file systems where WAL does not. There
is one writer at a time; a lock is waited for ``TRIES`` times ``SECONDS_PER_TRY`` (SQLite's busy timeout).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from irl_core.errors import UserError

TRIES = 2
SECONDS_PER_TRY = 5.0


@dataclass(frozen=True, slots=True)
class Database:
    """A SQLite file, created by the first write.

    Args:
        path: the file; its folder is created with it.
        schema: the statements that create its tables, run once, in the transaction of the first write.
        version: version of the schema, kept in the file (``user_version``).
        error: the kind of `UserError` that SQLite's errors become.
        if_damaged: what a user can do about a damaged file.
    """

    path: Path
    schema: tuple[str, ...]
    version: int
    error: type[UserError]
    if_damaged: str

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read an existing file with.

        Raises:
            error: the file is locked, damaged, unreadable, or has the schema of a later version.
        """
        try:
            with closing(sqlite3.connect(self.path, timeout=SECONDS_PER_TRY, isolation_level=None)) as connection:
                connection.row_factory = sqlite3.Row
                if (version := schema_version(connection)) > self.version:
                    raise self.error(
                        f"{self.path.name} was written by a later version of irl-lens ({version}); update this one"
                    )
                yield connection
        except sqlite3.DatabaseError as failure:
            raise self.error(self._explained(str(failure))) from failure

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One exclusive transaction, committed when the block ends and rolled back when it fails.

        Raises:
            error: as for `reading`, or the folder or file cannot be written, or the disk is full.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise self.error(
                f"{self.path.parent.name}/ cannot be made ({failure.strerror}); free space there, or make it writable"
            ) from failure
        with self.reading() as connection:
            for attempt in range(1, TRIES + 1):
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    break
                except sqlite3.OperationalError as failure:
                    if "locked" not in str(failure) or attempt == TRIES:
                        raise
            try:
                if not schema_version(connection):
                    for statement in self.schema:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {self.version}")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _explained(self, message: str) -> str:
        """SQLite's message with the file's name, what is still whole, and the fix."""
        name, whole = self.path.name, "Nothing was written, what was there is whole"
        if "locked" in message:
            seconds = TRIES * SECONDS_PER_TRY
            return f"{name} has been locked by another process for {seconds:.0f} s; nothing was written, try again"
        if "full" in message or "disk I/O" in message:
            return f"{name} could not be written ({message}); free space, and try again. {whole}"
        if "readonly" in message or "unable to open" in message:
            return f"{name} could not be written ({message}); make it and its folder writable, and try again. {whole}"
        if any(sign in message for sign in ("malformed", "not a database", "no such")):
            return f"{name} is damaged, and is left as it is ({message}); {self.if_damaged}"
        return f"{name}: {message}. {whole}"


def schema_version(connection: sqlite3.Connection) -> int:
    """The version of a file's schema; 0 where nothing was written yet."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
