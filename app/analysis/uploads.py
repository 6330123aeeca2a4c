"""Uploaded traces: checked before anything is started, kept in a folder of their own, scored by a job.

The folder's name is made here; nothing of the upload's own name ever becomes a path. Knows no streamlit.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from app.analysis.upload_records import ABOUT, MOST_TITLE, read_record, shown_name, shown_title
from irl_core.data.fields import RowError
from irl_core.data.formats import read_counted
from irl_core.data.sources import ARROW_STARTS, column_map
from irl_core.errors import DatasetError, UnknownFormatError, UserError
from irl_core.home import runs_folder
from irl_core.types import Trace

FOLDER: Final = runs_folder() / "uploads"
MOST_BYTES: Final = 5_000_000
MOST_TRACES: Final = 20_000
MOST_ROWS: Final = 200_000  # that are looked at: a small table may repeat a row without end
MOST_KEPT_BYTES: Final = 2_000_000_000  # of all uploads together, with the runs that were scored of them
MOST_SHOWN: Final = 20
TRACES: Final = "traces.jsonl"
RUN: Final = "run.parquet"
FORMATS: Final = {
    "auto": "recognised by its fields",
    "plain": "problem (or question), solution, and perhaps answer",
    "gsm8k": "question, and an answer that ends with ####",
    "processbench": "ProcessBench: problem, steps, label",
    "mr-gsm8k": "MR-GSM8K: question, model_output_steps, ...",
    "prm800k": "PRM800K: question, and a label with rated steps",
    "math-shepherd": "Math-Shepherd: input with its step mark, label",
    "stepwise": "trl's stepwise rows: prompt, completions, labels",
    "messages": "chats: messages, the last one the assistant's",
    "completions": "prompt and completion, as trl logs them",
    "lm-eval": "logged samples of lm-evaluation-harness",
    "inspect": "a log of Inspect AI",
    "solutions": "question, solutions with is_correct",
}
KIND_WORDS: Final = {
    ".jsonl": "JSON, an object a line", ".json": "JSON", ".csv": "a table (CSV)", ".tsv": "a table (TSV)",
    ".parquet": "a table (Parquet)", ".arrow": "a table (Arrow)", ".eval": "a log of Inspect AI",
}  # fmt: skip
SUFFIXES: Final = tuple(KIND_WORDS)
BINARY_STARTS: Final = (b"PAR1", b"PK\x03\x04", *ARROW_STARTS)
COMPRESSED: Final = (b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")  # how LZ4 and Zstandard begin, within an Arrow file
SAMPLE: Final = (
    json.dumps({"question": "A pen costs 3 dollars. How much are 4 pens?", "answer": "12",
                "solution": "4 pens cost 4*3=14 dollars.\n#### 14"}) + "\n"
    + json.dumps({"question": "Ben has 7 nuts and eats 2. How many are left?", "answer": "5",
                  "solution": "7-2=5 nuts are left.\n#### 5"}) + "\n"
)  # fmt: skip


class UploadError(UserError, ValueError):
    """An upload that is not taken; the message says why, with the limit and the fix."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The contents of an upload: numbers of traces and problems that can be scored, and of rows that cannot.

    ``faults``: why, for the first of those rows. ``intake``: what was found in the rows, in words; ``losses`` what was
    left out, likewise, by its reason. ``name``: the file's own name, as it is shown; ``file`` the one that the contents
    are kept under.
    """

    traces: int
    problems: int
    faults: tuple[str, ...]
    faulty: int
    intake: tuple[str, ...] = field(default=(), compare=False)
    losses: tuple[str, ...] = field(default=(), compare=False)
    name: str = TRACES
    file: str = TRACES
    columns: tuple[str, ...] = ()


def check_bytes(data: bytes) -> None:
    """Refuse an upload by its size and its first bytes alone, before anything reads it. Raises UploadError."""
    if len(data) > MOST_BYTES:
        raise UploadError(f"the file has {len(data):,} bytes; the limit is {MOST_BYTES:,}: upload it in parts")
    if not data.strip():
        raise UploadError("the file is empty; a JSON object a line is expected")
    if b"\0" in data[:4096] and not data.startswith(BINARY_STARTS):
        raise UploadError(
            "the file is no text; JSON Lines or CSV in UTF-8, Parquet, Arrow or a log of Inspect AI is expected"
        )
    if data.startswith(ARROW_STARTS) and any(sign in data for sign in COMPRESSED):
        raise UploadError(  # a few MB may unfold to any size, and pyarrow sets no limit
            "the Arrow file is compressed; save it without compression, as datasets does, or as Parquet"
        )


def check(data: bytes, layout: str, name: str = TRACES, columns: str = "") -> Checked:
    """Read an upload as it will be scored, without a model.

    Args:
        data: the contents.
        layout: the format.
        name: the upload's own name: its ending says how the contents are kept, and the messages call it so.
        columns: ``question=prompt, solution=reply``, where columns have other names than the format's fields.

    Raises:
        UploadError: empty, too large, of no known kind or format, or without a row that can be scored.
    """
    check_bytes(data)
    suffix, shown = Path(name).suffix.lower(), shown_name(name)
    file = f"traces{suffix}" if suffix in SUFFIXES else TRACES
    if layout not in FORMATS:
        raise UploadError(f"the format is {layout[:40]!r}; it is one of {', '.join(FORMATS)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_bytes(data)
        try:
            given = tuple(filter(None, (one.strip() for one in columns.split(","))))
            intake, found = read_counted(path, layout, column_map(list(given)))  # type: ignore[arg-type]
            rows = list(islice(found, MOST_ROWS + 1))
        except UnknownFormatError as error:
            raise UploadError(
                f"the format is not recognised ({error.seen}); question and solution are expected: under 'Columns with "
                "other names' say which they are, as question=COLUMN, solution=COLUMN, and, if you have the right "
                "answers, answer=COLUMN: without them no solution is known to be right or wrong"
            ) from error
        except DatasetError as error:
            raise UploadError(str(error).replace(file, shown)) from error
    if len(rows) > MOST_ROWS:
        raise UploadError(
            f"the file holds over {MOST_ROWS:,} rows; {MOST_TRACES:,} solutions are the limit: upload it in parts"
        )
    traces = [row for row in rows if isinstance(row, Trace)]
    faults = [f"line {row.line}" + (f", {row.field}" if row.field else "") + f": {row.message}"
              for row in rows if isinstance(row, RowError)]  # fmt: skip
    if not traces:
        first = f"; the first reason: {faults[0]}" if faults else ""
        raise UploadError(f"no row can be scored{first}")
    if len(traces) > MOST_TRACES:
        raise UploadError(f"the file holds {len(traces):,} solutions; the limit is {MOST_TRACES:,}: upload it in parts")
    problems = len({trace.problem for trace in traces})
    intake.first = {reason: place.replace(file, shown, 1) for reason, place in intake.first.items()}
    told, losses = tuple(intake.found()), tuple(intake.losses())
    return Checked(len(traces), problems, tuple(faults[:MOST_SHOWN]), len(faults), told, losses, shown, file, given)


def clean_title(given: str, data: bytes) -> str:
    """A title fit to be a folder's name: letters, digits and hyphens of what was given, and a part of the hash."""
    kept = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in given[:MOST_TITLE].lower())
    words = "-".join(part for part in kept.split("-") if part)[:40] or "solutions"
    return f"{words}-{hashlib.sha256(data).hexdigest()[:8]}"


def keep(data: bytes, title: str, who: str, checked: Checked, layout: str) -> Path:
    """Write an upload into a folder of its own, whole or not at all; returns the folder.

    Raises:
        UploadError: the very same traces are there already under this title, there is no room left for uploads, or it
            cannot be written.
    """
    kept = kept_bytes()
    if kept + len(data) > MOST_KEPT_BYTES:
        raise UploadError(
            f"the uploads kept here take {kept / 1e6:,.0f} MB; the limit is {MOST_KEPT_BYTES / 1e6:,.0f} MB: ask "
            f"whoever runs this server to remove old ones from {FOLDER}"
        )
    folder = FOLDER / clean_title(title, data)
    about = {
        "title": shown_title(title), "file": checked.name, "who": who,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sha256": hashlib.sha256(data).hexdigest(), "traces": checked.traces, "format": layout,
        "intake": [*checked.intake, *checked.losses],
    }  # fmt: skip
    temporary = None
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".new", dir=FOLDER))
        (temporary / checked.file).write_bytes(data)
        (temporary / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        temporary.rename(folder)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            before = read_record(folder)
            known = folder.name if before is None else before.words
            raise UploadError(f"these solutions are here already, as {known}; give another title") from error
        raise UploadError(f"the upload could not be kept ({error.strerror}); nothing of it stays") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def kept_bytes() -> int:
    """The size of all uploads and their runs; what another process takes away meanwhile does not count."""
    total = 0
    for folder, _, names in os.walk(FOLDER):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(folder, name).lstat().st_size
    return total


def remove(folder: Path) -> None:
    """Forget an upload whose scoring could not be started."""
    shutil.rmtree(folder, ignore_errors=True)


def arguments(folder: Path, checkpoint: Path, device: str, layout: str, checked: Checked | None = None) -> list[str]:
    """The arguments of ``irl-lens`` that score an upload; a job that is resumed goes on where it was."""
    file, columns = (TRACES, ()) if checked is None else (checked.file, checked.columns)
    return [
        "score", str((folder / file).resolve()), "--out", str((folder / RUN).resolve()), "--checkpoint",
        str(checkpoint.resolve()), "--device", device, "--format", layout,
        *(word for column in columns for word in ("--map", column)),
    ]  # fmt: skip
