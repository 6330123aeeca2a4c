"""Annotations: where people say the first wrong step of a trace is, in an append-only SQLite file.

An annotation names its trace by scored run and trace id, and by a hash of problem and completion, so that it also
applies to another scored run of the same texts. Of an annotator's annotations of a trace the newest blind one counts,
and where none was given blind the newest; all stay.
Triggers refuse every change of a row. An annotation that was imported keeps who imported it.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Final, Literal, get_args

from pydantic import ConfigDict

from irl_core.errors import AnnotationError
from irl_core.sqlite import Database, schema_version
from irl_core.validation import STRICT, Flag, Whole, validated

VERSION: Final = 1
ADJUDICATED: Final = "adjudicated"  # the annotator in whose name a disagreement is settled; the note says who did
MOST_NOTE: Final = 2_000
MOST_NAME: Final = 100
MOST_ID: Final = 2_000
MOST_STEPS: Final = 10_000
MOST_ROWS: Final = 100_000
CLOCKS_DIFFER: Final = timedelta(days=1)  # an import may come from a machine whose clock is that much ahead
EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
CATEGORIES: Final = (
    "", "arithmetic", "wrong operation", "wrong quantity", "skipped step", "misread problem", "wrong unit", "other",
)  # fmt: skip

SEVERITIES: Final = ("", "minor", "major")  # of a wrong step: the answer is right all the same, or wrong because of it
MOST_SPAN: Final = 1_000_000

Verdict = Literal["error", "none", "unsure"]
VERDICTS: Final = get_args(Verdict)

IMPORTS: Final = (  # in a file of an earlier release they are made by the first import
    """CREATE TABLE IF NOT EXISTS imports (
    annotation INTEGER PRIMARY KEY REFERENCES annotations (id), importer TEXT NOT NULL, imported TEXT NOT NULL
)""",
    """CREATE TRIGGER IF NOT EXISTS import_never_changed BEFORE UPDATE ON imports
    BEGIN SELECT RAISE(ABORT, 'annotations are never changed'); END""",
    """CREATE TRIGGER IF NOT EXISTS import_never_removed BEFORE DELETE ON imports
    BEGIN SELECT RAISE(ABORT, 'annotations are never removed'); END""",
)
WITHDRAWALS: Final = (  # so are these, by the first that is withdrawn
    """CREATE TABLE IF NOT EXISTS withdrawals (
    annotation INTEGER PRIMARY KEY REFERENCES annotations (id), withdrawn TEXT NOT NULL
)""",
    """CREATE TRIGGER IF NOT EXISTS withdrawal_never_changed BEFORE UPDATE ON withdrawals
    BEGIN SELECT RAISE(ABORT, 'annotations are never changed'); END""",
    """CREATE TRIGGER IF NOT EXISTS withdrawal_never_removed BEFORE DELETE ON withdrawals
    BEGIN SELECT RAISE(ABORT, 'annotations are never removed'); END""",
)
DETAILS: Final = (  # and these, by the first annotation that has a severity or a span
    """CREATE TABLE IF NOT EXISTS details (
    annotation INTEGER PRIMARY KEY REFERENCES annotations (id), severity TEXT NOT NULL,
    span_start INTEGER, span_end INTEGER
)""",
    """CREATE TRIGGER IF NOT EXISTS detail_never_changed BEFORE UPDATE ON details
    BEGIN SELECT RAISE(ABORT, 'annotations are never changed'); END""",
    """CREATE TRIGGER IF NOT EXISTS detail_never_removed BEFORE DELETE ON details
    BEGIN SELECT RAISE(ABORT, 'annotations are never removed'); END""",
)
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
    *IMPORTS,
)


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotator's verdict on one trace.

    ``verdict``: ``error`` with the 0-based first wrong ``step``, ``none`` (no step is wrong) or ``unsure``. ``blind``:
    given before the model's own answer was shown. ``severity`` and the span of the wrong words in the completion
    (``span_start``, ``span_end``) may be said of an error. ``text_sha256``: see `text_hash`. ``created``: UTC, ISO
    8601; empty until it is stored.

    Raises:
        AnnotationError: a value outside its limits.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    run: str
    trace_id: str
    text_sha256: str
    problem_id: str
    annotator: str
    verdict: Verdict
    step: Whole | None = None
    category: str = ""
    note: str = ""
    blind: Flag = True
    created: str = ""
    importer: str = ""
    severity: str = ""
    span_start: Whole | None = None
    span_end: Whole | None = None

    def __post_init__(self) -> None:
        for name, limit in (("run", MOST_ID), ("trace_id", MOST_ID), ("annotator", MOST_NAME)):
            value = getattr(self, name)
            if not value.strip() or len(value) > limit:
                raise AnnotationError(f"{name} is empty or longer than {limit:,} characters; shorten it")
        if len(self.note) > MOST_NOTE:
            raise AnnotationError(f"the note has {len(self.note):,} characters, the limit is {MOST_NOTE:,}; shorten it")
        if self.verdict not in VERDICTS:
            raise AnnotationError(f"the verdict is {self.verdict[:40]!r}; it is one of {', '.join(VERDICTS)}")
        if (self.verdict == "error") != (self.step is not None):
            raise AnnotationError("a step belongs to the verdict 'error', and to no other")
        if self.step is not None and not 0 <= self.step < MOST_STEPS:
            raise AnnotationError(f"the step is {self.step}; it lies between 0 and {MOST_STEPS - 1:,}")
        if self.severity not in SEVERITIES:
            known = ", ".join(filter(None, SEVERITIES))
            raise AnnotationError(f"the severity is {self.severity[:40]!r}; it is one of {known}, or empty")
        start, end = self.span_start, self.span_end
        if (start is None) != (end is None) or (start is not None and not 0 <= start < (end or 0) <= MOST_SPAN):
            raise AnnotationError(f"the span is {start} to {end}; it begins before it ends, within {MOST_SPAN:,}")
        if self.detailed and self.verdict != "error":
            raise AnnotationError("a severity and a span belong to the verdict 'error', and to no other")
        if self.category not in CATEGORIES:
            known = ", ".join(filter(None, CATEGORIES))
            raise AnnotationError(f"the category is {self.category[:40]!r}; it is one of {known}, or empty")

    @property
    def detailed(self) -> bool:
        """Whether a severity or a span is said."""
        return bool(self.severity) or self.span_start is not None

    @property
    def own(self) -> bool:
        """Whether nobody else has imported it in the annotator's name."""
        return self.importer in ("", self.annotator)

    def repeats(self, other: Annotation) -> bool:
        """Whether it says of a text what another one of the annotator's says, and counts no more than that."""
        said = ("text_sha256", "annotator", "verdict", "step", "category", "note", *SAID)
        same = all(getattr(self, name) == getattr(other, name) for name in said)
        return same and (other.blind or not self.blind)

    @property
    def time(self) -> datetime:
        """``created`` as a time, in UTC where it names no other zone; the earliest of all where it is none."""
        try:
            time = datetime.fromisoformat(self.created)
        except ValueError:
            return EARLIEST
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    @property
    def label(self) -> str:
        """``none``, ``unsure`` or ``step 3``, which counts from 1."""
        return f"step {self.step + 1}" if self.step is not None else self.verdict


def text_hash(problem: str, text: str) -> str:
    """sha256 of a problem and a completion: the identity of a trace across scored runs."""
    return hashlib.sha256(json.dumps([problem, text]).encode()).hexdigest()


def now() -> str:
    """The time in UTC, ISO 8601, to the microsecond, which orders an annotator's annotations."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def time_after(before: datetime) -> str:
    """The time as `now` gives it, and at least a microsecond after another one, though the clock says less."""
    if before < datetime.now(UTC):
        return now()
    return (before.astimezone(UTC) + timedelta(microseconds=1)).isoformat(timespec="microseconds")


# ------------------------------------------------------------------------------------------------------- the file

EXPECTED: Final = "a file of annotations is expected, which Failures or irl-lens export --to labels has written"
MARKS_OF_ONE: Final = frozenset({"text_sha256", "annotator"})  # fields that only an annotation has
NUMBER: Final = "step_number"  # in exports alone
SAID: Final = ("severity", "span_start", "span_end")  # in a table of their own
NAMES: Final = tuple(field.name for field in fields(Annotation) if field.name not in ("importer", *SAID))


class Annotations(Database):
    """The annotations in one SQLite file, created with the first one."""

    def __init__(self, path: Path) -> None:
        fix = "nothing is written to it. Move it away and import the last export into a new one"
        super().__init__(path, SCHEMA, VERSION, AnnotationError, fix)

    def add(self, annotation: Annotation) -> Annotation:
        """Store one annotation, dated now where it has no time; returns it as stored.

        It is dated after what the annotator said of this text before, though the clock was set back since: the order of
        storing is that of the times, here and in every export. Where it says what the annotator's last one here said,
        nothing is stored, and that one is returned: a second click is no second answer.
        """
        with self.writing() as connection:
            if not annotation.created:
                key = (annotation.text_sha256, annotation.annotator)
                said = [one for one in select(connection, "text_sha256 = ? AND annotator = ?", key) if one.own]
                if said and annotation.repeats(said[-1]):
                    return said[-1]
                annotation = replace(annotation, created=time_after(max((one.time for one in said), default=EARLIEST)))
            insert(connection, [annotation])
        return annotation

    def add_all(self, annotations: Sequence[Annotation], *, importer: str = "") -> int:
        """Store annotations, all or none, except those stored already; returns the number of new ones.

        ``importer``: who imports them, which is kept with each new one; empty for annotations given here.
        """
        with self.writing() as connection:
            for statement in IMPORTS if importer else ():
                connection.execute(statement)
            new = insert(connection, annotations)
            for number in new if importer else ():
                connection.execute("INSERT INTO imports VALUES (?, ?, ?)", (number, importer, now()))
        return len(new)

    def withdraw(self, annotation: Annotation) -> bool:
        """Note down that an annotation was a slip: it stays in the file, and counts nowhere. Whether it was there.

        Raises:
            AnnotationError: it cannot be written.
        """
        values = [getattr(annotation, name) for name in NAMES]
        with self.writing() as connection:
            for statement in WITHDRAWALS:
                connection.execute(statement)
            where = " AND ".join(f"{name} IS ?" for name in NAMES)
            done = connection.execute(
                f"INSERT OR IGNORE INTO withdrawals SELECT id, ? FROM annotations WHERE {where}", [now(), *values]
            )
        return done.rowcount > 0

    def answered(self, text_sha256: str, annotator: str) -> bool:
        """Whether an annotator has answered on a text before, also where that was withdrawn: the model's answer was
        shown then. Raises AnnotationError."""
        if not self.path.exists():
            return False
        with self.reading() as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                return False
            found = connection.execute(
                "SELECT 1 FROM annotations WHERE text_sha256 = ? AND annotator = ? LIMIT 1", (text_sha256, annotator)
            )
            return found.fetchone() is not None

    def all(self) -> list[Annotation]:
        """Every annotation that was not withdrawn, in the order of storing. Raises AnnotationError.

        None in a file that a first write left without any table: it was killed, or the disk was full.
        """
        if not self.path.exists():
            return []
        with self.reading() as connection:
            begun = connection.execute("SELECT 1 FROM sqlite_master").fetchone() or schema_version(connection)
            return select(connection) if begun else []

    def latest(self) -> dict[tuple[str, str], Annotation]:
        """The annotation of each text by each annotator that counts, by (text_sha256, annotator)."""
        return latest(self.all())


def select(connection: sqlite3.Connection, where: str = "1", values: Sequence[str] = ()) -> list[Annotation]:
    """The annotations that meet a condition (SQL of ours, with ``?`` for values) and were not withdrawn, in the order
    of storing."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'withdrawals'").fetchone():
        where = f"({where}) AND id NOT IN (SELECT annotation FROM withdrawals)"
    imports = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'imports'").fetchone()
    importer = "(SELECT importer FROM imports WHERE annotation = id)" if imports else "NULL"
    chosen = f"{', '.join(NAMES)}, ifnull({importer}, '') AS importer"
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'details'").fetchone():
        values_of = "(SELECT {0} FROM details WHERE annotation = id)"
        chosen += f", ifnull({values_of.format('severity')}, '') AS severity"
        chosen += "".join(f", {values_of.format(name)} AS {name}" for name in SAID[1:])
    rows = connection.execute(f"SELECT {chosen} FROM annotations WHERE {where} ORDER BY id", values).fetchall()
    return [Annotation(**dict(row) | {"blind": bool(row["blind"])}) for row in rows]


def insert(connection: sqlite3.Connection, annotations: Iterable[Annotation]) -> list[int]:
    """Add rows, except those that are there already; returns the ids of the new ones."""
    statement = f"INSERT OR IGNORE INTO annotations ({', '.join(NAMES)}) VALUES ({', '.join('?' * len(NAMES))})"
    new = []
    for one in annotations:
        done = connection.execute(statement, [getattr(one, name) for name in NAMES])
        if not done.rowcount:
            continue
        new.append(int(done.lastrowid or 0))
        if one.detailed:
            for made in DETAILS:
                connection.execute(made)
            details = [new[-1], *(getattr(one, name) for name in SAID)]
            connection.execute("INSERT INTO details VALUES (?, ?, ?, ?)", details)
    return new


def rank(one: Annotation) -> tuple[bool, bool, datetime]:
    """What decides between an annotator's annotations of one text; the highest counts."""
    return one.own, one.blind, one.time


def latest(annotations: Iterable[Annotation]) -> dict[tuple[str, str], Annotation]:
    """The annotation that counts by (text_sha256, annotator), of annotations in the order of storing.

    An annotation given here takes precedence over one imported in the annotator's name, then a blind one over one that
    was given with the model's answer in sight, whatever their times; then the newest counts.
    """
    newest: dict[tuple[str, str], Annotation] = {}
    for one in annotations:
        key = (one.text_sha256, one.annotator)
        if key not in newest or rank(one) >= rank(newest[key]):
            newest[key] = one
    return newest


# ---------------------------------------------------------------------------------------------------- JSON lines


def disagreed(annotations: Iterable[Annotation]) -> dict[str, list[Annotation]]:
    """The annotations that count of each text on which sure annotators disagree, the adjudicated one left out."""
    by_text: dict[str, list[Annotation]] = {}
    for one in latest(annotations).values():
        if one.annotator != ADJUDICATED:
            by_text.setdefault(one.text_sha256, []).append(one)
    sure = {key: {one.label for one in of_text if one.verdict != "unsure"} for key, of_text in by_text.items()}
    return {key: of_text for key, of_text in by_text.items() if len(sure[key]) > 1}


def to_jsonl(annotations: Iterable[Annotation]) -> str:
    """JSON Lines: an annotation a line, with all its fields; ``importer`` where it has one, and ``step_number``, which
    is the step as pages number it, from 1."""
    rows = (
        {
            name: value
            for name, value in asdict(one).items()
            if name not in ("importer", *SAID) or value not in ("", None)
        }
        | {NUMBER: None if one.step is None else one.step + 1}
        for one in annotations
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def from_jsonl(text: str) -> list[Annotation]:
    """The annotations in a text as `to_jsonl` makes it; ``created`` is required, ``step_number`` may be missing.

    Raises:
        AnnotationError: a line is no annotation, or one of the future (named by its number), or there are more than
            ``MOST_ROWS``.
    """
    latest_time = datetime.now(UTC) + CLOCKS_DIFFER
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > MOST_ROWS:
        raise AnnotationError(f"{len(lines):,} lines; the limit is {MOST_ROWS:,}: import them in parts")
    annotations: list[Annotation] = []
    for number, line in lines:
        label = f"line {number}: "
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise AnnotationError(f"{label}not JSON; {EXPECTED}") from error
        if not annotations and isinstance(row, dict) and not MARKS_OF_ONE & row.keys():  # another kind of file
            raise AnnotationError(f"{label}this is no annotation; {EXPECTED}")
        number_said = row.pop(NUMBER, None) if isinstance(row, dict) else None
        one = validated(Annotation, row, AnnotationError, label)
        if number_said is not None and (one.step is None or number_said != one.step + 1):
            raise AnnotationError(f"{label}{NUMBER} is not step + 1: step counts from 0, {NUMBER} from 1; correct one")
        try:
            datetime.fromisoformat(one.created)
        except ValueError:
            raise AnnotationError(f"{label}created is {one.created[:40]!r}; a time in ISO 8601 is expected") from None
        if one.time > latest_time:
            raise AnnotationError(f"{label}created is {one.created[:40]!r}, which is still to come; correct the time")
        if re.search(r"[\0\ud800-\udfff]", "".join(value for value in astuple(one) if isinstance(value, str))):
            raise AnnotationError(f"{label}a text holds NUL or half a character")
        annotations.append(one)
    return annotations
