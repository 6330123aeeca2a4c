"""The project's own JSONL format, a complete trace a line: reading gives back equal traces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from irl_core.data.fields import FieldError, Row, flag, identifier, limited, text_field
from irl_core.data.jsonl import kind_of
from irl_core.errors import DatasetError
from irl_core.files import atomic_replacement
from irl_core.types import Layout, Source, Step, Trace, Truth

TRACE_FORMAT = "irl-lens-trace-1"
MAX_NUMBER = 2**31 - 1  # the largest that a column of a scored run holds
CHANGED_TOKEN = "perturbed_from_token"


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
            answer=_optional_text(row, "final_answer"),
            reference_answer=_optional_text(row, "answer"),
            correct=flag(row, "correct") if row["correct"] is not None else None,
            truth=_truth(row["truth"]),
            token_ids=_token_ids(row["token_ids"]),
            logprobs=_logprobs(row["logprobs"]),
            finished=flag(row, "finished"),
            extra=_extra(row["extra"]),
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


def _optional_text(row: Row, name: str) -> str | None:
    value = row[name]
    if value is not None and not isinstance(value, str):
        raise FieldError(name, f"{kind_of(value)} where text or null is expected")
    return None if value is None else limited(name, value)


def _truth(value: Any) -> Truth | None:
    if value is None:
        return None
    first, kind, note = Truth(**value).first_error_step, value.get("kind"), value.get("note", "")
    if first is not None and type(first) is not int:
        raise FieldError("truth", f"first_error_step is {kind_of(first)}; a whole number or null is expected")
    for name, text in (("kind", kind or ""), ("note", note)):
        if not isinstance(text, str):
            raise FieldError("truth", f"{name} is {kind_of(text)} where text is expected")
        limited("truth", text)
    return Truth(first, kind, note)


def _token_ids(values: Any) -> tuple[int, ...] | None:
    if values is None:
        return None
    for number, value in enumerate(_list("token_ids", values), 1):
        if type(value) is not int or not 0 <= value <= MAX_NUMBER:
            said = value if type(value) is int and abs(value) < 10**20 else kind_of(value)
            raise FieldError(
                "token_ids", f"entry {number} is {said}; a whole number from 0 to {MAX_NUMBER:,} is expected"
            )
    return tuple(values)


def _logprobs(values: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    for number, value in enumerate(_list("logprobs", values), 1):
        if type(value) not in (int, float):
            raise FieldError("logprobs", f"entry {number} is {kind_of(value)} where a number is expected")
    return tuple(float(value) for value in values)


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise FieldError(name, f"{kind_of(value)} where a list or null is expected")
    return value


def _extra(values: Mapping[str, Any]) -> dict[str, str]:
    extra = {limited("extra", str(key)): limited("extra", str(value)) for key, value in values.items()}
    changed = extra.get(CHANGED_TOKEN, "0")
    if not (changed.isascii() and changed.isdecimal() and len(changed) < 10):
        raise FieldError("extra", f"{CHANGED_TOKEN} is {changed[:40]!r}; a token's number is expected")
    return extra
