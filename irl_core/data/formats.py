"""Readers of every outside format as ``Trace``; the only place that knows other conventions of step numbers.

A bad row does not stop the reading: it gives a ``RowError`` that names file, line and field.
JSONL is read line by line, so memory does not grow with the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from irl_core.data.chats import one_filter, read_completions, read_inspect, read_lm_eval, read_messages
from irl_core.data.fields import FieldError, Row, RowError, flag, identifier, reference_answer, text_field
from irl_core.data.intake import Intake
from irl_core.data.labelled_formats import read_mr_gsm8k, read_processbench
from irl_core.data.scored_rows import FIELDS as SCORED_FIELDS
from irl_core.data.scored_rows import labels_by, read_scored
from irl_core.data.sources import Columns, TraceSource, open_source, rows_of
from irl_core.data.step_labels import STEP_MARK, read_math_shepherd, read_prm800k, read_stepwise
from irl_core.data.trace_format import TRACE_FORMAT, read_trace
from irl_core.errors import DatasetError, UnknownFormatError
from irl_core.files import escaped
from irl_core.text.segmentation import make_trace, segment
from irl_core.types import Source, Trace

Format = Literal[
    "auto", "gsm8k", "processbench", "mr-gsm8k", "prm800k", "math-shepherd", "stepwise", "messages", "completions",
    "lm-eval", "inspect", "solutions", "plain", "demo", "trace", "scored-run",
]  # fmt: skip
PEOPLE = "people"
UNKNOWN_AUTHOR = "whoever made the rows"
LABELS_BY = {
    "processbench": PEOPLE,
    "mr-gsm8k": PEOPLE,
    "prm800k": PEOPLE,
    "math-shepherd": "rollouts, not people",
    "scored-run": "whoever gave them to the run",
}


# --------------------------------------------------------------------------------------------------- reading


def read(path: Path, format: Format = "auto", columns: Columns | None = None) -> Iterator[Trace | RowError]:
    """The rows of a source in order, each a ``Trace`` or a ``RowError``; blank lines are skipped.

    ``trace_id`` is the row's own, else a hash of problem and text; a repeated one gets ``-L<line>``.

    Args:
        path: a file, a folder of files of one kind, or a data set of the hub (`irl_core.data.sources`).
        format: how a row is read; auto tells it by the fields of the first readable row.
        columns: the columns in which a format's fields stand under other names.

    Raises:
        DatasetError: at once where the source is missing or its format is not recognised.
    """
    return read_counted(path, format, columns)[1]


def read_counted(
    path: Path, format: Format = "auto", columns: Columns | None = None
) -> tuple[Intake, Iterator[Trace | RowError]]:
    """What `read` gives, and the counts of what has been taken of it so far. Arguments and errors as there."""
    source = open_source(path)
    name = _format_of_source(source, columns) if format == "auto" else format
    if name not in READERS:
        raise DatasetError(f"format {name!r} is not known; one of auto, {', '.join(READERS)} is expected")
    said = labels_by(source.files) if name == "scored-run" else ""
    intake = Intake(name, said or LABELS_BY.get(name, UNKNOWN_AUTHOR))
    return intake, intake.counting(_read(source, name, columns, intake))


def _read(source: TraceSource, format: Format, columns: Columns | None, intake: Intake) -> Iterator[Trace | RowError]:
    reader = one_filter(read_lm_eval) if format == "lm-eval" else READERS[format]
    seen = _Seen()
    for number, file in enumerate(source.files, 1):
        part = f"F{number}" if len(source.files) > 1 else ""
        rows = intake.counting_rows(rows_of(file, source.kind, columns))
        yield from traces_of(file.name, rows, reader, seen, part)


def detect_format(path: Path, columns: Columns | None = None) -> Format:
    """The format of a source by the fields of its first readable row. Raises DatasetError that says why none fits."""
    return _format_of_source(open_source(path), columns)


def _format_of_source(source: TraceSource, columns: Columns | None) -> Format:
    fields: list[str] = []
    reason = ""
    for line, row in islice(rows_of(source.files[0], source.kind), 50):
        if isinstance(row, str):
            reason = reason or f"line {line}: {row}"
            continue
        fields = fields or sorted(map(str, row))
        if columns and (missing := sorted({name for name in columns.values() if name.partition(".")[0] not in row
                                           and name not in row})):  # fmt: skip
            names = escaped(", ".join(fields)[:200])
            raise DatasetError(f"{source.name} has no column {escaped(', '.join(missing))[:80]}; it has {names}")
        break
    for _, row in islice(rows_of(source.files[0], source.kind, columns), 50):
        if not isinstance(row, str) and (name := format_of(row)):
            return name
    if not source.files[0].stat().st_size:
        raise DatasetError(f"{source.name}: the file is empty; a JSON object a line is expected")
    seen = f"its fields are {', '.join(fields)[:200]}" if fields else "it has no row that is a JSON object"
    raise UnknownFormatError(source.name, "; ".join(filter(None, (seen, reason))))


def format_of(row: Row) -> Format | None:
    """The format that a row has by its fields; None where it has none that is known."""
    keys = row.keys()
    if row.get("format") == TRACE_FORMAT:
        return "trace"
    if keys >= SCORED_FIELDS:
        return "scored-run"
    if isinstance(row.get("question"), Mapping) and isinstance(row.get("label"), Mapping):
        return "prm800k"
    if isinstance(row.get("input"), str) and STEP_MARK in row["input"] and "label" in keys:
        return "math-shepherd"
    for needed, name in _FIELDS:
        if needed <= keys:
            return name
    if "model_output_steps" in keys:
        return "mr-gsm8k"
    if "solution" in keys and keys & {"question", "problem"}:
        return "plain"
    return "gsm8k" if {"question", "answer"} <= keys else None


# Fields that say which format a row has, the first that fits.
_FIELDS: tuple[tuple[set[str], Format], ...] = (
    ({"problem", "steps", "label"}, "processbench"),
    ({"question", "steps", "first_error_step"}, "mr-gsm8k"),
    ({"prompt", "completions", "labels"}, "stepwise"),
    ({"doc_id", "doc", "resps"}, "lm-eval"),
    ({"epoch", "input", "target", "output"}, "inspect"),
    ({"question", "solution", "is_correct"}, "solutions"),
    ({"text", "solution", "quantities"}, "demo"),
    ({"messages"}, "messages"),
    ({"prompt", "completion"}, "completions"),
)


# What values of odd kinds and sizes raise in a reader, whatever the format: such a row is a bad row, and no more.
UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)


def traces_of(
    file: str,
    rows: Iterable[tuple[int, dict[str, Any] | str]],
    reader: Callable[[Row], Trace | list[Trace]],
    seen: _Seen | None = None,
    part: str = "",
) -> Iterator[Trace | RowError]:
    """Numbered rows as traces with ids, each bad one as a RowError.

    Args:
        file: the name of the file, for errors.
        rows: the rows with their line numbers, or why a line is none.
        reader: makes one trace of a row, or several.
        seen: the ids given before, of other files of the source.
        part: the file's number among them, in an id that is repeated.
    """
    seen = _Seen() if seen is None else seen
    for line, row in rows:
        if isinstance(row, str):
            yield RowError(file, line, "", row)
            continue
        try:
            found = reader(row)
        except FieldError as error:
            yield RowError(file, line, error.field, str(error))
        except UNREADABLE as error:
            yield RowError(file, line, "", escaped(str(error) or type(error).__name__)[:300])
        else:
            for trace in [found] if isinstance(found, Trace) else found:
                trace_id = trace.trace_id or _hash(trace.problem, trace.text)
                if seen.before(trace_id):
                    trace_id = f"{trace_id}-{part}L{line}"
                yield replace(trace, trace_id=trace_id, problem_id=trace.problem_id or _hash(trace.problem))


def _hash(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


class _Seen:
    """The ids seen so far, in constant memory (a Bloom filter of 4 MB): a false 'yes' only lengthens an id."""

    def __init__(self) -> None:
        self.bits = bytearray(1 << 22)

    def before(self, name: str) -> bool:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        known = True
        for start in range(0, 16, 4):
            byte, bit = divmod(int.from_bytes(digest[start : start + 4], "little") % (8 * len(self.bits)), 8)
            known = known and bool(self.bits[byte] >> bit & 1)
            self.bits[byte] |= 1 << bit
        return known


# --------------------------------------------------------------------------------------------------- formats


def read_gsm8k(row: Row) -> Trace:
    """A row of GSM8K: the expert solution, its reference the last line, ``#### 12``."""
    solution = text_field(row, "answer")
    reference = segment(solution)[2]
    if reference is None:
        raise FieldError("answer", "no final answer; a last line such as '#### 12' is expected")
    return make_trace(text_field(row, "question"), solution, reference_answer=reference, source=Source.EXPERT)


def read_solutions(row: Row) -> Trace:
    """A published model solution with its verdict, ``is_correct``."""
    reference = text_field(row, "reference", blank=True) if "reference" in row else ""
    extra = {"model": identifier(row, "model"), "reference_solution": reference}
    trace = make_trace(
        text_field(row, "question"),
        text_field(row, "solution"),
        reference_answer=segment(reference)[2] if reference.strip() else None,
        problem_id=identifier(row, "problem_id"),
        extra={name: value for name, value in extra.items() if value},
    )
    return replace(trace, correct=flag(row, "is_correct"))


def read_plain(row: Row) -> Trace:
    """A problem with a solution and, where known, a reference answer."""
    return make_trace(
        text_field(row, "question", "problem"),
        text_field(row, "solution"),
        reference_answer=reference_answer(row, "answer"),
        trace_id=identifier(row, "id", "trace_id"),
        problem_id=identifier(row, "problem_id"),
    )


def read_demo(row: Row) -> Trace:
    """A problem of our generator with its expert solution."""
    return make_trace(
        text_field(row, "text"),
        text_field(row, "solution"),
        reference_answer=reference_answer(row, "answer"),
        source=Source.EXPERT,
        problem_id=identifier(row, "problem_id"),
        extra={"family": identifier(row, "family")},
    )


READERS: dict[str, Callable[[Row], Trace | list[Trace]]] = {
    "gsm8k": read_gsm8k,
    "processbench": read_processbench,
    "mr-gsm8k": read_mr_gsm8k,
    "prm800k": read_prm800k,
    "math-shepherd": read_math_shepherd,
    "stepwise": read_stepwise,
    "messages": read_messages,
    "completions": read_completions,
    "lm-eval": read_lm_eval,
    "inspect": read_inspect,
    "solutions": read_solutions,
    "plain": read_plain,
    "demo": read_demo,
    "trace": read_trace,
    "scored-run": read_scored,
}
