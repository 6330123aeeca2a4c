"""The ends of logs, fit to be shown as text; what a model wrote may be in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from app.jobs.store import Job

HEAD: Final = "--- "  # begins the line that an attempt of a job puts into its log
TAIL_BYTES: Final = 256 * 1024
MAX_LINE: Final = 400


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a file, each at most MAX_LINE characters, without what steers a terminal; none without it.

    Of a line that was written over again and again (a progress bar), what it said last. Blank lines are left out.
    """
    try:
        with path.open("rb") as source:
            source.seek(max(0, os.fstat(source.fileno()).st_size - TAIL_BYTES))
            text = source.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    return ["".join(c if c.isprintable() or c == "\t" else " " for c in line)[:MAX_LINE] for line in lines[-count:]]


def job_tail(job: Job, count: int = 30) -> str:
    """The last lines that a job printed."""
    return "\n".join(last_lines(job.log, count))
