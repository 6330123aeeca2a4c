"""One SQLite file: created by the first write, whole after every fault, its errors in words of the caller's kind."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from irl_core import sqlite
from irl_core.errors import StoreError
from irl_core.sqlite import Database, schema_version

SCHEMA = ("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)", "CREATE INDEX by_text ON notes (text)")


@pytest.fixture
def notes(tmp_path: Path) -> Database:
    return Database(tmp_path / "folder" / "notes.sqlite", SCHEMA, 3, StoreError, "move it away")


def texts(database: Database) -> list[str]:
    with database.reading() as connection:
        return [row["text"] for row in connection.execute("SELECT text FROM notes ORDER BY id")]


def test_the_first_write_creates_folder_file_and_tables(notes: Database) -> None:
    with notes.writing() as connection:
        connection.execute("INSERT INTO notes (text) VALUES ('one')")
    with notes.writing() as connection:
        connection.execute("INSERT INTO notes (text) VALUES ('two')")
    assert texts(notes) == ["one", "two"]
    with notes.reading() as connection:
        assert schema_version(connection) == 3
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    assert [path.name for path in notes.path.parent.iterdir()] == ["notes.sqlite"]


def test_a_block_that_fails_writes_nothing(notes: Database) -> None:
    with pytest.raises(RuntimeError, match="stop"), notes.writing() as connection:
        connection.execute("INSERT INTO notes (text) VALUES ('one')")
        raise RuntimeError("stop")
    with notes.reading() as connection:
        assert schema_version(connection) == 0  # the tables, made in the same transaction, are gone too


def test_what_the_schema_refuses_is_told_and_undone(notes: Database) -> None:
    refused = pytest.raises(StoreError, match=r"notes\.sqlite: NOT NULL constraint failed: notes\.text\. Nothing was")
    with refused, notes.writing() as connection:
        connection.execute("INSERT INTO notes (text) VALUES ('one')")
        connection.execute("INSERT INTO notes (text) VALUES (NULL)")
    with notes.writing():
        pass
    assert texts(notes) == []


def test_a_table_that_is_missing_is_damage(notes: Database) -> None:
    notes.path.parent.mkdir()
    with sqlite3.connect(notes.path) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(StoreError, match=r"is damaged, and is left as it is \(no such table: notes\); move it away"):
        texts(notes)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "attempt to write a readonly database",
            r"could not be written \(attempt .*\); make it and its folder writable",
        ),
        ("unable to open database file", r"could not be written \(unable .*\); make it and its folder writable"),
        ("disk I/O error", r"could not be written \(disk I/O error\); free space"),
        ("database disk image is malformed", r"is damaged, and is left as it is \(.*malformed\); move it away$"),
        ("something new", r"^notes\.sqlite: something new\. Nothing was written, what was there is whole$"),
    ],
)
def test_sqlites_errors_get_a_fix(notes: Database, error: str, message: str) -> None:
    with pytest.raises(StoreError, match=message), notes.writing():
        raise sqlite3.OperationalError(error)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    database = Database(tmp_path / "file" / "notes.sqlite", SCHEMA, 1, StoreError, "")
    refused = pytest.raises(StoreError, match=r"file/ cannot be made \((File exists|Not a directory)\)")
    with refused, database.writing():
        pass


def test_a_lock_is_waited_for_twice(notes: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with notes.writing():
        pass
    monkeypatch.setattr(sqlite, "SECONDS_PER_TRY", 0.1)
    holder = sqlite3.connect(notes.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    refused = pytest.raises(StoreError, match=r"notes\.sqlite has been locked by another process for 0 s; nothing was")
    with refused, notes.writing():
        pass
    holder.close()
