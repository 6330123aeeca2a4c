"""What became of a source: rows read, traces and labels found, rows left out and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypedDict, TypeVar

from irl_core.data.fields import RowError
from irl_core.files import escaped
from irl_core.types import Trace

MOST_REASONS: Final = 30
MOST_OF_ANSWER: Final = 60  # characters of one that is shown as an example
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d,.]*")


Row = TypeVar("Row")


class IntakeRecord(TypedDict):
    """An intake as a scored run and an evaluation keep it. ``left_out``: how many rows, by the reason."""

    format: str
    rows: int
    traces: int
    labels: int
    labels_with_error: int
    labels_by: str
    answers_known: int
    left_out: dict[str, int]


@dataclass(slots=True)
class Intake:
    """The counts of a source while it is read.

    ``labels``: traces whose first wrong step is known, or that none is; ``labels_by`` who says so. ``answers_known``:
    traces that are known to end right or wrong. ``not_compared``: traces whose answer and right answer, both there,
    cannot be compared, ``not_compared_first`` the two of the first one; ``without_right`` and ``without_answer`` those
    of which it is not known either, for there is no right answer, or no answer was read. ``left_out``: rows by the
    reason, which has no values in it; ``first`` the place of the first one.
    """

    format: str
    labels_by: str
    rows: int = 0
    traces: int = 0
    labels: int = 0
    labels_with_error: int = 0
    answers_known: int = 0
    not_compared: int = 0
    without_right: int = 0
    without_answer: int = 0
    not_compared_first: tuple[str, str] = ("", "")
    left_out: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def counting_rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows as they are, each counted as it is read."""
        for row in rows:
            self.rows += 1
            yield row

    def counting(self, rows: Iterable[Trace | RowError]) -> Iterator[Trace | RowError]:
        """The rows as they are, each counted as it passes."""
        for row in rows:
            if isinstance(row, RowError):
                self._leave_out(row)
            else:
                self.traces += 1
                self.answers_known += row.correct is not None
                self._compare(row)
                self.labels += row.truth is not None
                self.labels_with_error += row.truth is not None and row.truth.first_error_step is not None
            yield row

    def _compare(self, trace: Trace) -> None:
        if trace.correct is not None:
            return
        if not trace.reference_answer:
            self.without_right += 1
        elif not trace.answer:
            self.without_answer += 1
        else:
            self.not_compared += 1
            if self.not_compared == 1:
                self.not_compared_first = (trace.answer, trace.reference_answer)

    def _leave_out(self, row: RowError) -> None:
        reason = _VALUES.sub("...", f"{row.field}: {row.message}" if row.field else row.message)
        if reason not in self.left_out and len(self.left_out) >= MOST_REASONS:
            reason = "other reasons"
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        self.first.setdefault(reason, f"{row.file}, line {row.line}")

    @property
    def lost(self) -> int:
        """The number of rows left out."""
        return sum(self.left_out.values())

    def lines(self) -> Iterator[str]:
        """What became of the source, in words."""
        yield from self.found()
        yield from self.losses()

    def found(self) -> Iterator[str]:
        """What was found in the source, in words."""
        known = f", {self.answers_known:,} known to end right or wrong" if self.answers_known else ""
        yield f"Read as {self.format}: {counted(self.rows, 'row')}, {counted(self.traces, 'solution')}{known}."
        if self.labels:
            wrong, right = self.labels_with_error, self.labels - self.labels_with_error
            counts = f"{self.labels:,}, {wrong:,} with a first wrong step and {right:,} without one"
            yield f"Labels of steps, by {self.labels_by}: {counts}."
        if self.answers_known or self.not_compared or self.without_answer:
            yield from self._not_known()
        if self.not_compared:
            answer, right_one = (repr(escaped(text)[:MOST_OF_ANSWER]) for text in self.not_compared_first)
            yield (
                f"Not known to be right or wrong: {counted(self.not_compared, 'solution')} with a right answer that "
                f"cannot be compared with the solution's, such as {right_one} with {answer}; write both as numbers."
            )

    def _not_known(self) -> Iterator[str]:
        for count, why in (
            (self.without_answer, "in which no final answer was read"),
            (self.without_right, "of which no right answer is given"),
        ):
            if count:
                yield f"Not known to be right or wrong: {counted(count, 'solution')} {why}."

    def losses(self) -> Iterator[str]:
        """The rows left out, in words: each is counted once, under its reason."""
        for reason, count in sorted(self.left_out.items(), key=lambda item: -item[1]):
            yield f"Left out: {counted(count, 'row')}, {reason} (first: {self.first[reason]})."

    def record(self) -> IntakeRecord:
        """What is kept with a scored run."""
        return {
            "format": self.format,
            "rows": self.rows,
            "traces": self.traces,
            "labels": self.labels,
            "labels_with_error": self.labels_with_error,
            "labels_by": self.labels_by if self.labels else "",
            "answers_known": self.answers_known,
            "left_out": dict(self.left_out),
        }


def counted(number: int, noun: str) -> str:
    """A number with its noun: '1 row', '1,200 rows'."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
