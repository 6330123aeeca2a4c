"""Steps by hand: a line of dashes between two steps of a solution says where it is split. Knows no streamlit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from irl_core.errors import UserError
from irl_core.types import Span, Step, Trace

DASHES: Final = "---"
_BETWEEN: Final = re.compile(r"^[ \t]*-{3,}[ \t]*$", re.MULTILINE)


class StepsError(UserError, ValueError):
    """A marked text that is not the solution; the message says where it differs."""


def marked(text: str, steps: Sequence[Step | Span]) -> str:
    """The steps of a text, with a line of dashes between them."""
    spans = [(step.start, step.end) if isinstance(step, Step) else step for step in steps]
    return f"\n{DASHES}\n".join(text[start:end] for start, end in spans)


def read_marked(text: str, said: str) -> tuple[Span, ...]:
    """The spans in ``text`` of the steps that are marked in ``said``.

    Raises:
        StepsError: no step, or one whose words do not stand in the text behind those of the step before.
    """
    spans: list[Span] = []
    position = 0
    for number, part in enumerate(filter(None, (part.strip() for part in _BETWEEN.split(said))), start=1):
        start = text.find(part, position)
        if start < 0:
            raise StepsError(
                f"Step {number} is not in the solution as it is written here; leave its words, and only move, add or "
                f"remove lines of {DASHES}"
            )
        position = start + len(part)
        spans.append((start, position))
    if not spans:
        raise StepsError("There is no step; leave at least one")
    return tuple(spans)


def fits(text: str, spans: Sequence[Span]) -> bool:
    """Whether the spans are steps of the text: in order, apart, none of them blank."""
    position = 0
    for start, end in spans:
        if not position <= start < end <= len(text) or not text[start:end].strip():
            return False
        position = end
    return True


def with_steps(trace: Trace, spans: Sequence[Span]) -> Trace:
    """The trace with other steps; one that holds nothing but a closing line stays one."""
    answers = [step for step in trace.steps if step.role == "answer"]

    def closes(start: int, end: int) -> bool:
        return any(step.start <= start and end <= step.end for step in answers)

    steps = tuple(
        Step(start, end, trace.text[start:end], "answer" if closes(start, end) else "reasoning") for start, end in spans
    )
    return replace(trace, steps=steps)
