"""Formats of process-reward data, a label a step: PRM800K, Math-Shepherd, and trl's stepwise rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from irl_core.data.chats import only_question
from irl_core.data.fields import FieldError, Row, first_value, identifier, reference_answer, steps_field, text_field
from irl_core.data.jsonl import kind_of
from irl_core.data.labelled_formats import trace_of_steps
from irl_core.types import Trace, Truth

STEP_MARK = "ки"  # the sign of Math-Shepherd at which a step is judged
_MARKED_END = re.compile(rf"[ \t]*{STEP_MARK}(?:[ \t]*\?)?")
_UNFINISHED = {"give_up": "the labeler gave up", "bad_problem": "the labeler called the problem bad"}


# ----------------------------------------------------------------------------------------------------- PRM800K


def read_prm800k(row: Row) -> Trace:
    """A row of PRM800K, either phase: the path that the labeler took, or the whole solution that was judged.

    A step is wrong where its rating is -1; 0 (neutral) is not. A labeler's own step counts as right. A row that the
    labeler gave up, or whose labels end before a wrong step while steps are left, has no known first error.
    """
    question, label = _object(row, "question"), _object(row, "label")
    reason = label.get("finish_reason")
    if reason in _UNFINISHED:
        raise FieldError("label", f"{_UNFINISHED[reason]} (finish_reason {reason}): no label")
    entries = label.get("steps")
    if not isinstance(entries, list) or not entries:
        raise FieldError("label", "steps is missing or empty; a list of rated steps is expected")
    steps, first = _path(entries)
    given = question.get("pre_generated_steps")
    if isinstance(given, list) and given[: len(steps)] == steps:
        if first is None and len(given) > len(steps):
            raise FieldError("label", f"{len(steps)} of {len(given)} steps are rated, and none of them is wrong")
        steps = steps_field(question, "pre_generated_steps")
    labeler = identifier(row, "labeler")
    trace = trace_of_steps(
        text_field(question, "problem"),
        steps_field({"steps": steps}, "steps"),
        Truth(first),
        reference_answer=reference_answer(question, "ground_truth_answer"),
    )
    return replace(trace, extra={"labeler": labeler} if labeler else {})


def _path(entries: Sequence[Any]) -> tuple[list[str], int | None]:
    """The steps that a labeler went along, and the first of them that is rated wrong.

    A step's text is the chosen completion, else the labeler's own, else the first one rated wrong, with which it ends.
    """
    steps: list[str] = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping):
            raise FieldError("label", f"step {number} is {kind_of(entry)} where an object is expected")
        choices = [one for one in entry.get("completions") or [] if isinstance(one, Mapping)]
        chosen, own = entry.get("chosen_completion"), entry.get("human_completion")
        if type(chosen) is int and 0 <= chosen < len(choices):
            one = choices[chosen]
        elif isinstance(own, Mapping) and own.get("text"):
            one = {"text": own["text"], "rating": 1}
        else:
            wrong = [choice for choice in choices if choice.get("rating") == -1]
            if not (wrong or choices):
                raise FieldError("label", f"step {number} has no completion")
            one = (wrong or choices)[0]
        steps.append(text_field(one, "text"))
        rating = one.get("rating")
        if rating not in (-1, 0, 1) or isinstance(rating, bool):
            raise FieldError("label", f"step {number} has no rating; -1, 0 or 1 is expected")
        if rating == -1:
            return steps, number - 1
    return steps, None


def _object(row: Row, name: str) -> Mapping[str, Any]:
    _, value = first_value(row, name)
    if not isinstance(value, Mapping):
        raise FieldError(name, f"{kind_of(value)} where an object is expected")
    return value


# ----------------------------------------------------------------------------------------------- Math-Shepherd


def read_math_shepherd(row: Row) -> Trace:
    """A row of Math-Shepherd, with the mark in its input and + or - in the same places of its label.

    Its labels are of rollouts, not of people: - says that no solution sampled from there on ended right. The last one
    is therefore whether the final answer is right.
    """
    pieces = _MARKED_END.split(text_field(row, "input"))
    if len(pieces) < 2:
        raise FieldError("input", f"no step ends in the mark {STEP_MARK}")
    *marked, rest = pieces
    if rest.strip():
        raise FieldError("input", f"text after the last mark {STEP_MARK}: {rest.strip()[:40]!r}")
    start = marked[0].rfind("Step 1:")
    if start < 0:
        raise FieldError("input", "no 'Step 1:', where the problem ends and the solution begins")
    problem, steps = marked[0][:start].strip(), [marked[0][start:], *marked[1:]]
    if not problem:
        raise FieldError("input", "no problem before 'Step 1:'")
    labels = _signs(text_field(row, "label"), marked)
    first = labels.index(False) if False in labels else None
    given = steps_field({"input": [step.strip() for step in steps]}, "input")
    trace = trace_of_steps(problem, given, Truth(first))
    task = identifier(row, "task")
    return replace(trace, correct=labels[-1], extra={"task": task} if task else {})


def _signs(label: str, pieces: Sequence[str]) -> list[bool]:
    """Which pieces are followed by +, and which by -; in the label the pieces stand as in the input."""
    rest, signs = label.replace(STEP_MARK, ""), []
    for number, piece in enumerate(pieces, 1):
        rest = rest.lstrip()
        if not rest.startswith(piece.strip()):
            raise FieldError("label", f"its text is not that of the input from step {number} on")
        rest = rest[len(piece.strip()) :].lstrip()
        if rest[:1] not in ("+", "-"):
            raise FieldError("label", f"step {number} ends in neither + nor -")
        signs.append(rest[0] == "+")
        rest = rest[1:]
    return signs


# ---------------------------------------------------------------------------------------------- trl's stepwise


def read_stepwise(row: Row) -> Trace:
    """A row as trl's process-reward trainer takes it: ``prompt``, ``completions`` (the steps), ``labels``."""
    steps = steps_field(row, "completions")
    labels = row.get("labels")
    if not isinstance(labels, list) or len(labels) != len(steps):
        said = f"{len(labels)} of them" if isinstance(labels, list) else kind_of(labels)
        raise FieldError("labels", f"{said}; a label for each of the {len(steps)} completions is expected")
    for number, label in enumerate(labels, 1):
        if label not in (0, 1):  # and so True and False
            raise FieldError("labels", f"label {number} is {kind_of(label)} where true or false is expected")
    first = next((number for number, label in enumerate(labels) if not label), None)
    return trace_of_steps(
        only_question(row, "prompt"),
        steps,
        Truth(first),
        trace_id=identifier(row, "id", "trace_id"),
        problem_id=identifier(row, "problem_id"),
        reference_answer=reference_answer(row, "answer", "reference_answer", "ground_truth"),
    )
