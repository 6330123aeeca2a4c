"""What people note on runs: tags, a note, whether a run is archived; a small SQLite file beside the runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from irl_core.errors import UserError
from irl_core.home import runs_folder
from irl_core.sqlite import Database, schema_version

FILE: Final = "run_labels.sqlite"
VERSION: Final = 1
MOST_TAGS: Final = 20
MOST_TAG: Final = 40
MOST_NOTE: Final = 2_000
SCHEMA: Final = (
    """CREATE TABLE labels (
    run TEXT PRIMARY KEY, tags TEXT NOT NULL, note TEXT NOT NULL, archived INTEGER NOT NULL, who TEXT NOT NULL,
    changed TEXT NOT NULL
)""",
)


class LabelError(UserError, ValueError):
    """Tags or a note that are not taken, or a file that cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Label:
    """What was noted on a run. Raises LabelError for what is beyond its limits."""

    tags: tuple[str, ...] = ()
    note: str = ""
    archived: bool = False

    def __post_init__(self) -> None:
        if len(self.tags) > MOST_TAGS:
            raise LabelError(f"{len(self.tags)} tags; the limit is {MOST_TAGS}: leave some out")
        if any(not tag or len(tag) > MOST_TAG for tag in self.tags):
            raise LabelError(f"a tag has 1 to {MOST_TAG} characters; shorten it")
        if len(self.note) > MOST_NOTE:
            raise LabelError(f"the note has {len(self.note):,} characters, the limit is {MOST_NOTE:,}; shorten it")


def tags_of(text: str) -> tuple[str, ...]:
    """The tags in 'first, second'; each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.replace("\n", ",").split(",") if part.strip()))


class Labels(Database):
    """The labels in one SQLite file, created with the first one."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(
            runs_folder() / FILE if path is None else path, SCHEMA, VERSION, LabelError,
            "move it away, and a new one is begun: the runs themselves are whole",
        )  # fmt: skip

    def all(self) -> dict[str, Label]:
        """Every label by its run's key. Raises LabelError."""
        if not self.path.exists():
            return {}
        with self.reading() as connection:
            if not schema_version(connection):
                return {}
            rows = connection.execute("SELECT run, tags, note, archived FROM labels").fetchall()
        return {row["run"]: Label(tags_of(row["tags"]), row["note"], bool(row["archived"])) for row in rows}

    def put(self, run: str, label: Label, who: str = "") -> None:
        """Write a run's label in the place of its earlier one. Raises LabelError."""
        values = (run, ", ".join(label.tags), label.note, label.archived, who, datetime.now(UTC).isoformat())
        with self.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?, ?)", values)
