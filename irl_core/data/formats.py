"""Readers of every outside format as ``Trace``; the only place that knows other conventions of step numbers.

A bad row does not stop the reading: it gives a ``RowError`` that names file, line and field.
JSONL is read line by line, so memory does not grow with the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from irl_core.data.fields import FieldError, Row, RowError, flag, identifier, reference_answer, text_field
from irl_core.data.jsonl import json_rows, unreadable_kind
from irl_core.data.labelled_formats import read_mr_gsm8k, read_processbench
from irl_core.data.trace_format import TRACE_FORMAT, read_trace
from irl_core.errors import DatasetError
from irl_core.files import escaped
from irl_core.text.segmentation import make_trace, segment
from irl_core.types import Source, Trace

Format = Literal["auto", "gsm8k", "processbench", "mr-gsm8k", "solutions", "plain", "demo", "trace"]


# --------------------------------------------------------------------------------------------------- reading


def read(path: Path, format: Format = "auto") -> Iterator[Trace | RowError]:
    """The rows of a JSONL file (or a JSON array) in order, each a ``Trace`` or a ``RowError``; blank lines are skipped.

    ``trace_id`` is the row's own, else a hash of problem and text; a repeated one gets ``-L<line>``. Raises
    DatasetError at once where the file is missing or its format is not recognised.
    """
    name = detect_format(path) if format == "auto" else format
    if name not in READERS:
        raise DatasetError(f"format {name!r} is not known; one of auto, {', '.join(READERS)} is expected")
    return traces_of(path.name, json_rows(_existing(path)), READERS[name])


def detect_format(path: Path) -> Format:
    """The format of a file by the fields of its first readable row. Raises DatasetError that says why none fits."""
    fields: list[str] = []
    reason = ""
    for line, row in islice(json_rows(_existing(path)), 50):
        if isinstance(row, str):
            reason = reason or f"line {line}: {row}"
            continue
        name = format_of(row)
        if name:
            return name
        fields = fields or sorted(map(str, row))
    if not path.stat().st_size:
        raise DatasetError(f"{path.name}: the file is empty; a JSON object a line is expected")
    seen = f"its fields are {', '.join(fields)[:200]}" if fields else f"it has no row that is a JSON object; {reason}"
    raise DatasetError(f"{path.name}: the format is not recognised ({seen}); question and solution are expected")


def format_of(row: Row) -> Format | None:
    """The format that a row has by its fields; None where it has none that is known."""
    keys = row.keys()
    if row.get("format") == TRACE_FORMAT:
        return "trace"
    if {"problem", "steps", "label"} <= keys:
        return "processbench"
    if "model_output_steps" in keys or {"question", "steps", "first_error_step"} <= keys:
        return "mr-gsm8k"
    if {"question", "solution", "is_correct"} <= keys:
        return "solutions"
    if {"text", "solution", "quantities"} <= keys:
        return "demo"
    if "solution" in keys and keys & {"question", "problem"}:
        return "plain"
    return "gsm8k" if {"question", "answer"} <= keys else None


def _existing(path: Path) -> Path:
    try:
        if path.is_dir():
            raise DatasetError(f"{path.name} is a folder; give one of its files, such as train.jsonl")
        if not path.is_file():
            raise DatasetError(f"the file {path.name!r} is not there, or is not a plain file")
        kind = unreadable_kind(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DatasetError(f"{escaped(path.name)[:80]!r} cannot be read ({reason}); name another file") from error
    if kind:
        raise DatasetError(f"{path.name} is {kind}; a JSON object a line is expected")
    return path


# What values of odd kinds and sizes raise in a reader, whatever the format: such a row is a bad row, and no more.
UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)


def traces_of(
    file: str, rows: Iterable[tuple[int, dict[str, Any] | str]], reader: Callable[[Row], Trace]
) -> Iterator[Trace | RowError]:
    """Numbered rows as traces with ids, each bad one as a RowError."""
    seen = _Seen()
    for line, row in rows:
        if isinstance(row, str):
            yield RowError(file, line, "", row)
            continue
        try:
            trace = reader(row)
        except FieldError as error:
            yield RowError(file, line, error.field, str(error))
        except UNREADABLE as error:
            yield RowError(file, line, "", escaped(str(error) or type(error).__name__)[:300])
        else:
            trace_id = trace.trace_id or _hash(trace.problem, trace.text)
            if seen.before(trace_id):
                trace_id = f"{trace_id}-L{line}"
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


READERS: dict[str, Callable[[Row], Trace]] = {
    "gsm8k": read_gsm8k,
    "processbench": read_processbench,
    "mr-gsm8k": read_mr_gsm8k,
    "solutions": read_solutions,
    "plain": read_plain,
    "demo": read_demo,
    "trace": read_trace,
}
