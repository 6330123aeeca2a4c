"""Formats whose steps are given, each with its first error: ProcessBench, and MR-GSM8K in its two spellings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from irl_core.data.fields import (
    NO_ERROR,
    FieldError,
    Row,
    first_value,
    flag,
    identifier,
    limited,
    one_based_step,
    reference_answer,
    steps_field,
    text_field,
    whole_number,
)
from irl_core.text.segmentation import make_trace
from irl_core.types import Step, Trace, Truth


def trace_of_steps(problem: str, steps: Sequence[str], truth: Truth, **known: Any) -> Trace:
    """A trace of given steps, joined by newlines, with the spans that this gives; roles as the segmentation says.

    A blank step keeps its number, but has no text and so no score of its own: its span is empty, where the next step
    with text starts.
    """
    trace = make_trace(problem, "\n".join(steps), **known)
    kept: list[Step] = []
    following = end = len(trace.text)
    for text in reversed(steps):
        start = end - len(text)
        if text.strip():
            roles = {step.role for step in trace.steps if step.start < end and start < step.end}
            kept.append(Step(start, end, text, "answer" if roles == {"answer"} else "reasoning"))
            following = start
        else:
            kept.append(Step(following, following, ""))
        end = start - 1
    return replace(trace, steps=tuple(reversed(kept)), truth=truth)


def read_processbench(row: Row) -> Trace:
    """A row of ProcessBench: ``label`` is 0-based, -1 for no error; ``final_answer_correct`` may be missing."""
    steps = steps_field(row, "steps")
    label = whole_number(row, "label")
    if not -1 <= label < len(steps):
        raise FieldError(
            "label", f"{label}; -1 (no error) to {len(steps) - 1} is expected, there are {len(steps)} steps"
        )
    truth = Truth(None if label == -1 else label)
    trace = trace_of_steps(text_field(row, "problem"), steps, truth, trace_id=identifier(row, "id"))
    known = row.get("final_answer_correct") is not None
    extra = {"generator": identifier(row, "generator")} if "generator" in row else {}
    return replace(trace, correct=flag(row, "final_answer_correct") if known else None, extra=extra)


def read_mr_gsm8k(row: Row) -> Trace:
    """A row of MR-GSM8K: the first error step is 1-based, ``N/A`` for none."""
    steps = steps_field(row, "model_output_steps", "steps")
    field, value = first_value(row, "model_output_solution_first_error_step", "first_error_step")
    first = one_based_step(field, value, len(steps))
    verdict = row.get("model_output_solution_correctness")
    if (verdict, first) == ("wrong", None):
        raise FieldError(field, f"{value!r}, but model_output_solution_correctness is 'wrong'")
    if verdict == "correct" and first is not None:
        raise FieldError(field, f"{value!r}, but model_output_solution_correctness is 'correct'")
    names = ("model_output_solution_first_error_reason", "error_reason")
    given = [name for name in names if isinstance(row.get(name), str) and row[name].strip().lower() not in NO_ERROR]
    trace = trace_of_steps(
        text_field(row, "question"),
        steps,
        Truth(first, note=limited(given[0], row[given[0]]) if given else ""),
        trace_id=identifier(row, "uuid"),
        reference_answer=reference_answer(row, "ground_truth_answer", "answer"),
    )
    stated = row.get("model_output_answer_correctness")
    return replace(trace, correct=stated == "correct") if stated in ("correct", "incorrect", "wrong") else trace
