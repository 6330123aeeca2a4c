"""Our own format: a trace a line, whole, so that what was written is read back equal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from irl_core.data.fields import FieldError, Row, flag, identifier, text_field
from irl_core.data.jsonl import kind_of
from irl_core.errors import DatasetError
from irl_core.files import atomic_replacement
from irl_core.types import Layout, Source, Step, Trace, Truth

TRACE_FORMAT = "irl-lens-trace-1"


def write_jsonl(traces: Iterable[Trace], path: Path) -> int:
    """Write traces, one a line, atomically: ``read`` gives them back equal. Returns their number.

    ``question``, ``solution`` and ``answer`` stand where other programs look for them.

    Raises:
        DatasetError: the file could not be written; an earlier one is untouched.
    """
    count = 0
    with atomic_replacement(path, error=DatasetError) as temporary, temporary.open("w", encoding="ascii") as target:
        for trace in traces:
            target.write(json.dumps(trace_row(trace)) + "\n")
            count += 1
    return count


def trace_row(trace: Trace) -> dict[str, Any]:
    """A trace as one JSON object."""
    truth = trace.truth
    return {
        "format": TRACE_FORMAT,
        "id": trace.trace_id,
        "problem_id": trace.problem_id,
        "question": trace.problem,
        "solution": trace.text,
        "answer": trace.reference_answer,
        "final_answer": trace.answer,
        "correct": trace.correct,
        "layout": trace.layout.value,
        "source": trace.source.value,
        "step_spans": [[step.start, step.end, step.role] for step in trace.steps],
        "truth": truth and {"first_error_step": truth.first_error_step, "kind": truth.kind, "note": truth.note},
        "token_ids": trace.token_ids,
        "logprobs": trace.logprobs,
        "finished": trace.finished,
        "extra": trace.extra,
    }


def read_trace(row: Row) -> Trace:
    """The trace that ``write_jsonl`` wrote. Raises FieldError for a missing field or one of the wrong type."""
    text = text_field(row, "solution", blank=True)
    try:
        return Trace(
            problem=text_field(row, "question", blank=True),
            text=text,
            steps=_spans_to_steps(text, row["step_spans"]),
            layout=Layout(row["layout"]),
            source=Source(row["source"]),
            trace_id=identifier(row, "id"),
            problem_id=identifier(row, "problem_id"),
            answer=_optional(row, "final_answer", str),
            reference_answer=_optional(row, "answer", str),
            correct=_optional(row, "correct", bool),
            truth=Truth(**row["truth"]) if row["truth"] is not None else None,
            token_ids=_tuple(row["token_ids"], int),
            logprobs=_tuple(row["logprobs"], float),
            finished=flag(row, "finished"),
            extra={str(key): str(value) for key, value in row["extra"].items()},
        )
    except KeyError as error:
        raise FieldError(str(error.args[0]), "missing") from error
    except (TypeError, AttributeError) as error:
        raise FieldError("", f"a field has the wrong type ({error})") from error


def _spans_to_steps(text: str, spans: Any) -> tuple[Step, ...]:
    steps = []
    for number, entry in enumerate(spans, 1):
        whole = isinstance(entry, list) and len(entry) == 3 and all(type(place) is int for place in entry[:2])
        if not whole or entry[2] not in ("reasoning", "answer"):
            raise FieldError("step_spans", f"entry {number} is not [start, end, 'reasoning' or 'answer']")
        steps.append(Step(entry[0], entry[1], text[entry[0] : entry[1]], entry[2]))
    return tuple(steps)


def _optional(row: Row, name: str, kind: type) -> Any:
    if row[name] is not None and type(row[name]) is not kind:
        raise FieldError(name, f"{kind_of(row[name])} where {kind.__name__} or null is expected")
    return row[name]


def _tuple(values: Any, kind: type) -> tuple[Any, ...] | None:
    return None if values is None else tuple(kind(value) for value in values)
