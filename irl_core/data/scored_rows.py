"""The rows of a scored run as traces: what another checkpoint reads again keeps its labels, steps and right answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from irl_core.data.fields import FieldError, Row, identifier, limited, text_field
from irl_core.types import Layout, Source, Step, Trace, Truth

FIELDS: Final = frozenset({"run_id", "trace_id", "problem", "text", "steps", "true_first_error_step", "prompt_reward"})
PROVENANCE_KEY: Final = b"irl_lens.provenance"
NO_ERROR: Final = -1  # as a scored run stores that a trace is known to have none


def read_scored(row: Row) -> Trace:
    """The trace of a row of a scored run. Its tokens are left out: they are those of the checkpoint that scored it.

    Raises:
        FieldError: a field is missing, or of the wrong type.
    """
    text, error = text_field(row, "text", blank=True), row.get("true_first_error_step")
    if error is not None and (type(error) is not int or error < NO_ERROR):
        raise FieldError("true_first_error_step", f"{error!r}; a step from 0, {NO_ERROR} for none, or null is expected")
    extra = {limited("extra", str(key)): limited("extra", str(value)) for key, value in pairs(row.get("extra"))}
    for name in ("family", "reference_solution"):
        if row.get(name) is not None:
            extra[name] = text_field(row, name, blank=True)
    correct = row.get("correct")
    if not isinstance(correct, bool | None):
        raise FieldError("correct", "true, false or null is expected")
    return Trace(
        problem=text_field(row, "problem", blank=True),
        text=text,
        steps=tuple(step_of(text, step, number) for number, step in enumerate(row["steps"], start=1)),
        layout=Layout(row["layout"]),
        source=Source(row["source"]),
        trace_id=identifier(row, "trace_id"),
        problem_id=identifier(row, "problem_id"),
        answer=optional_text(row, "answer"),
        reference_answer=optional_text(row, "reference_answer"),
        correct=correct,
        truth=None if error is None else Truth(None if error == NO_ERROR else error, optional_text(row, "kind")),
        finished=row.get("finished") is not False,
        extra=extra,
    )


def labels_by(files: Iterable[Path]) -> str:
    """Who gave the labels of scored runs, as they say of their own input; empty where they do not, or differ."""
    said = {_labels_by(file) for file in files}
    return said.pop() if len(said) == 1 else ""


def _labels_by(path: Path) -> str:
    try:
        written = json.loads((pq.read_schema(path).metadata or {}).get(PROVENANCE_KEY, b"{}"))
        return str(written.get("intake", {}).get("labels_by", ""))
    except (pa.ArrowException, OSError, ValueError, AttributeError, RecursionError):
        return ""  # its rows were written as another kind of file, which says nothing of where they come from


def pairs(values: Any) -> list[tuple[Any, Any]]:
    """The entries of a column of names and values, which Parquet gives as pairs; none where there is no such column."""
    return list(values.items()) if isinstance(values, Mapping) else [tuple(one) for one in values or []]  # type: ignore[misc]


def step_of(text: str, step: Mapping[str, Any], number: int) -> Step:
    """A step of a row, by its place in the text."""
    start, end, role = step["start"], step["end"], step.get("role")
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= len(text):
        raise FieldError("steps", f"step {number} goes from {start!r} to {end!r}, which is not within the text")
    return Step(start, end, text[start:end], "answer" if role == "answer" else "reasoning")


def optional_text(row: Row, name: str) -> str | None:
    """A text, or None where there is none."""
    return None if row.get(name) is None else text_field(row, name, blank=True)
