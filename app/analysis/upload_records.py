"""What is kept beside an upload: its title, the name that its file had, and when it came. Knows no streamlit."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from irl_core.files import escaped, one_line

ABOUT: Final = "upload.json"
MOST_BYTES: Final = 100_000
MOST_TITLE: Final = 80
MOST_OF_NAME: Final = 60  # characters of a file's name that are shown


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An upload as it is told.

    Attributes:
        title: as it was given.
        created: when it came.
        file: the name that its file had; empty where that was not kept.
    """

    title: str
    created: datetime
    file: str = ""

    @property
    def words(self) -> str:
        """The title and when it came, which tell uploads apart."""
        return f"{self.title} (uploaded {self.created.astimezone(UTC):%Y-%m-%d %H:%M} UTC)"


def read_record(folder: Path) -> UploadRecord | None:
    """The record in an upload's folder; None where there is none that can be read."""
    path = folder / ABOUT
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
        if path.stat().st_size <= MOST_BYTES:
            about = json.loads(path.read_text(encoding="utf-8"))
            title = shown_title(str(about["title"])) or folder.name
            return UploadRecord(title, datetime.fromisoformat(about["created"]), shown_name(str(about.get("file", ""))))
    return None


def shown_title(title: str) -> str:
    """A title as it is shown: on one line, without what steers a terminal, no longer than it may be."""
    return one_line(escaped(title)).strip()[:MOST_TITLE]


def shown_name(name: str) -> str:
    """The name of a file as it is shown: likewise, and a long one without its middle."""
    told = one_line(escaped(name)).strip()
    kept = MOST_OF_NAME // 2
    return told if len(told) <= MOST_OF_NAME else f"{told[: kept - 1]}\u2026{told[-kept:]}"
