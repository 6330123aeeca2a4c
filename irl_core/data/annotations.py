"""What people say about traces: where the first wrong step is. A SQLite file to which rows are only ever added.

An annotation names its trace by the run and the trace id, and by a hash of problem and completion, so that it lands on
the same trace however a table is sorted, and in another run of the same texts too. Of an annotator's annotations of a
trace the newest counts; all stay. Triggers refuse every change of a row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from irl_core.data.jsonl import kind_of
from irl_core.errors import AnnotationError
from irl_core.sqlite import Database

VERSION: Final = 1
MOST_NOTE: Final = 2_000
MOST_NAME: Final = 100
MOST_ID: Final = 2_000
MOST_STEPS: Final = 10_000
MOST_ROWS: Final = 100_000
VERDICTS: Final = ("error", "none", "unsure")
CATEGORIES: Final = (
    "", "arithmetic", "wrong operation", "wrong quantity", "skipped step", "misread problem", "wrong unit", "other",
)  # fmt: skip

Verdict = Literal["error", "none", "unsure"]

SCHEMA: Final = (
    """CREATE TABLE annotations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, trace_id TEXT NOT NULL, text_sha256 TEXT NOT NULL,
    problem_id TEXT NOT NULL, annotator TEXT NOT NULL, verdict TEXT NOT NULL, step INTEGER, category TEXT NOT NULL,
    note TEXT NOT NULL, blind INTEGER NOT NULL, created TEXT NOT NULL
)""",
    """CREATE UNIQUE INDEX said_once ON annotations
    (run, trace_id, text_sha256, annotator, verdict, ifnull(step, -1), category, note, blind, created)""",
    """CREATE TRIGGER never_changed BEFORE UPDATE ON annotations
    BEGIN SELECT RAISE(ABORT, 'annotations are never changed'); END""",
    """CREATE TRIGGER never_removed BEFORE DELETE ON annotations
    BEGIN SELECT RAISE(ABORT, 'annotations are never removed'); END""",
)


@dataclass(frozen=True, slots=True)
class Annotation:
    """One person's word on one trace.

    ``verdict``: ``error`` with the 0-based first wrong ``step``, ``none`` (no step is wrong) or ``unsure``. ``blind``:
    given before the model's own answer was shown. ``text_sha256``: see `text_hash`. ``created``: UTC, ISO 8601.

    Raises AnnotationError for a value outside its limits.
    """

    run: str
    trace_id: str
    text_sha256: str
    problem_id: str
    annotator: str
    verdict: Verdict
    step: int | None = None
    category: str = ""
    note: str = ""
    blind: bool = True
    created: str = ""

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise AnnotationError(problem)

    @property
    def label(self) -> str:
        """``none``, ``unsure`` or ``step 3``, which counts from 1."""
        return f"step {self.step + 1}" if self.step is not None else self.verdict


def _problems(one: Annotation) -> Iterator[str]:
    for name, limit in (("run", MOST_ID), ("trace_id", MOST_ID), ("annotator", MOST_NAME)):
        value = getattr(one, name)
        if not value.strip() or len(value) > limit:
            yield f"{name} is empty or longer than {limit:,} characters; shorten it"
    if len(one.note) > MOST_NOTE:
        yield f"the note has {len(one.note):,} characters, the limit is {MOST_NOTE:,}; shorten it"
    if one.verdict not in VERDICTS:
        yield f"the verdict is {one.verdict[:40]!r}; it is one of {', '.join(VERDICTS)}"
    if (one.verdict == "error") != (one.step is not None):
        yield "a step belongs to the verdict 'error', and to no other"
    if one.step is not None and not 0 <= one.step < MOST_STEPS:
        yield f"the step is {one.step}; it lies between 0 and {MOST_STEPS - 1:,}"
    if one.category not in CATEGORIES:
        yield f"the category is {one.category[:40]!r}; it is one of {', '.join(filter(None, CATEGORIES))}, or empty"


def text_hash(problem: str, text: str) -> str:
    """sha256 of a problem and a completion: what makes two traces the same."""
    return hashlib.sha256(json.dumps([problem, text]).encode()).hexdigest()


def now() -> str:
    """The time in UTC, ISO 8601, to the microsecond: the order of an annotator's words."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


# ------------------------------------------------------------------------------------------------------- the file

NAMES: Final = tuple(field.name for field in fields(Annotation))


class Annotations(Database):
    """The annotations in one file, which is made with the first one."""

    def __init__(self, path: Path) -> None:
        fix = "nothing is written to it. Move it away and import the last export into a new one"
        super().__init__(path, SCHEMA, VERSION, AnnotationError, fix)

    def add(self, annotation: Annotation) -> Annotation:
        """Write one annotation, with the time where it has none; returns what was written."""
        dated = annotation if annotation.created else _dated(annotation)
        self.add_all([dated])
        return dated

    def add_all(self, annotations: Sequence[Annotation]) -> int:
        """Write annotations, all or none; those that are there already are passed over. Returns how many were new."""
        with self.writing() as connection:
            before = connection.total_changes
            connection.executemany(
                f"INSERT OR IGNORE INTO annotations ({', '.join(NAMES)}) VALUES ({', '.join('?' * len(NAMES))})",
                [tuple(getattr(one, name) for name in NAMES) for one in annotations],
            )
            return connection.total_changes - before

    def all(self) -> list[Annotation]:
        """Every annotation in the order in which they were written. Raises AnnotationError."""
        if not self.path.exists():
            return []
        with self.reading() as connection:
            rows = connection.execute(f"SELECT {', '.join(NAMES)} FROM annotations ORDER BY id").fetchall()
        return [Annotation(**dict(row) | {"blind": bool(row["blind"])}) for row in rows]

    def latest(self) -> dict[tuple[str, str], Annotation]:
        """The newest word of each annotator on each text, by (text_sha256, annotator)."""
        return latest(self.all())


def _dated(one: Annotation) -> Annotation:
    return Annotation(**asdict(one) | {"created": now()})


def latest(annotations: Iterable[Annotation]) -> dict[tuple[str, str], Annotation]:
    """Of annotations in the order of writing, the newest by (text_sha256, annotator)."""
    found: dict[tuple[str, str], Annotation] = {}
    for one in annotations:
        key = (one.text_sha256, one.annotator)
        if key not in found or one.created >= found[key].created:
            found[key] = one
    return found


# ---------------------------------------------------------------------------------------------------- JSON lines


def to_jsonl(annotations: Iterable[Annotation]) -> str:
    """A JSON object a line, every annotation with all its fields."""
    return "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in annotations)


def from_jsonl(text: str) -> list[Annotation]:
    """The annotations of a text that `to_jsonl` made, or of one like it.

    Raises:
        AnnotationError: a line is not one, named by its number; or there are more than ``MOST_ROWS``.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > MOST_ROWS:
        raise AnnotationError(f"{len(lines):,} lines; the limit is {MOST_ROWS:,}: import them in parts")
    return [_from_line(number, line) for number, line in lines]


def _from_line(number: int, line: str) -> Annotation:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise AnnotationError("a JSON object is expected")
        unknown, missing = sorted(row.keys() - set(NAMES)), sorted({*NAMES[:6], "created"} - row.keys())
        if unknown or missing:
            words = [f"unknown: {', '.join(unknown)[:200]}"] if unknown else []
            words += [f"missing: {', '.join(missing)}"] if missing else []
            raise AnnotationError("; ".join(words))
        return _typed(row)
    except (AnnotationError, ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, AnnotationError) else "not JSON"
        raise AnnotationError(f"line {number}: {reason}") from error


def _typed(row: Mapping[str, Any]) -> Annotation:
    texts = [name for name in NAMES if name not in ("step", "blind") and name in row]
    for name in texts:
        if not isinstance(row[name], str):
            raise AnnotationError(f"{name} is {kind_of(row[name])}; a text is expected")
    step, blind = row.get("step"), row.get("blind", True)
    if step is not None and type(step) is not int:
        raise AnnotationError(f"step is {str(step)[:40]!r}; a whole number or null is expected")
    if type(blind) is not bool:
        raise AnnotationError(f"blind is {str(blind)[:40]!r}; true or false is expected")
    try:
        datetime.fromisoformat(row["created"])
    except ValueError:
        raise AnnotationError(f"created is {row['created'][:40]!r}; a time in ISO 8601 is expected") from None
    if any("\ud800" <= sign <= "\udfff" or sign == "\0" for name in texts for sign in row[name]):
        raise AnnotationError("a text holds NUL or half a character")
    return Annotation(**row)
