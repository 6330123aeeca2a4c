"""An inspection as plain JSON data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from irl_core.reward.token_scores import DEFAULT_GAMMA, named_signals, trace_score
from irl_core.text.equations import find_equations
from irl_core.types import Localisation, ScoredTrace, Trace


def to_json(
    scored: Sequence[ScoredTrace],
    localisations: Sequence[Localisation],
    *,
    problem: str,
    checkpoint: str,
    gamma: float = DEFAULT_GAMMA,
    kind: str = "minimum",
) -> dict[str, Any]:
    """The result of an inspection as plain data, ready for ``json.dumps``; a number that is not finite becomes None.

    Returns:
        ``{checkpoint, problem, traces: [{text, answer, correct, trace_score, decision, first_error_step, confidence,
        rule, threshold, steps: [{start, end, text, score, role}], tokens: [{start, end, text, raw, standardised,
        discounted, credit, logprob}], arithmetic: [{start, end, text, value, stated}]}]}``. Spans are character
        offsets into ``text``; ``first_error_step`` is 0-based; ``arithmetic`` lists the false equations.
    """
    traces = [_trace_json(one, where, gamma, kind) for one, where in zip(scored, localisations, strict=True)]
    return {"checkpoint": checkpoint, "problem": problem, "traces": traces}


def with_ids(result: dict[str, Any], scored: Sequence[ScoredTrace]) -> dict[str, Any]:
    """The result of ``to_json`` with each token's ``id`` added, for pages that show them."""
    for trace, one in zip(result["traces"], scored, strict=True):
        for token, identity in zip(trace["tokens"], one.encoded.completion_ids, strict=True):
            token["id"] = identity
    return result


def _trace_json(scored: ScoredTrace, where: Localisation, gamma: float, kind: str) -> dict[str, Any]:
    trace = scored.trace
    return {
        "text": trace.text,
        "answer": trace.answer,
        "correct": trace.correct,
        "trace_score": _number(trace_score(scored, kind, gamma)),
        "decision": where.decision,
        "first_error_step": where.first_error_step,
        "confidence": _number(where.confidence),
        "rule": where.rule,
        "threshold": _number(where.threshold),
        "steps": _steps_json(trace, where),
        "tokens": _tokens_json(scored, gamma),
        "arithmetic": false_arithmetic(trace.text),
    }


def _steps_json(trace: Trace, where: Localisation) -> list[dict[str, Any]]:
    return [
        {"start": step.start, "end": step.end, "text": step.text, "score": _number(score), "role": step.role}
        for step, score in zip(trace.steps, where.step_scores, strict=True)
    ]


def _tokens_json(scored: ScoredTrace, gamma: float) -> list[dict[str, Any]]:
    values = {name: view for name, view in named_signals(scored, gamma).items()}
    names = ("raw", "standardised", "discounted", "credit", "logprob")
    text = scored.trace.text
    return [
        {"start": start, "end": end, "text": text[start:end], **{name: _number(values[name][index]) for name in names}}
        for index, (start, end) in enumerate(scored.encoded.spans)
    ]


def false_arithmetic(text: str) -> list[dict[str, Any]]:
    """The equations in ``text`` that do not hold: span, text, exact value and stated value; empty where all hold."""
    return [
        {
            "start": equation.start,
            "end": equation.end,
            "text": equation.text,
            "value": _number(equation.value),
            "stated": _number(equation.stated),
        }
        for equation in find_equations(text)
        if not equation.true
    ]


def _number(value: Any) -> int | float | None:
    """A JSON number: whole values as int where they were exact, None for what is not finite."""
    if getattr(value, "denominator", None) == 1:
        return int(value)
    try:
        number = float(value)
    except OverflowError:  # an exact fraction beyond the largest float
        return None
    return number if math.isfinite(number) else None
