"""An inspection as plain data: what pages, exports and ``irl-lens inspect --json`` are made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, NotRequired, TypedDict, cast

from irl_core.policy.familiarity import Familiarity
from irl_core.reward.token_scores import DEFAULT_GAMMA, named_signals, trace_score
from irl_core.reward.verdict import VerdictRecord, to_record, verdict_on
from irl_core.reward.wording import step_name
from irl_core.storage.rows import judge_of
from irl_core.text.equations import find_equations
from irl_core.text.quantities import odd_quantities
from irl_core.types import Decision, Floats, Localisation, ScoredTrace, number_of


class InspectedToken(TypedDict):
    """A token: its span in characters of the trace's text, its rewards in four views, and the policy's log-probability.

    A value is None where it is not finite. ``id``: only where `with_ids` added it.
    """

    start: int
    end: int
    text: str
    raw: float | None
    standardised: float | None
    discounted: float | None
    credit: float | None
    logprob: float | None
    id: NotRequired[int]


class InspectedStep(TypedDict):
    """A step: its number, from 1, what it is called ('step 4' where the text numbers it so, whatever its position), its
    span in characters of the trace's text, and its score."""

    number: int
    name: str
    start: int
    end: int
    text: str
    score: float | None
    role: Literal["reasoning", "answer"]


class FalseEquation(TypedDict):
    """An equation that does not hold: its span, its exact value, and the value that is stated."""

    start: int
    end: int
    text: str
    value: float | None
    stated: float | None


class QuantityRecord(TypedDict):
    """A quantity of the problem that the solution never uses, or uses more than once: its span in the problem."""

    start: int
    end: int
    text: str
    uses: int


class FamiliarityRecord(TypedDict):
    """A `Familiarity` as JSON data."""

    score: float
    percentile: float | None
    unknown_share: float
    familiar: bool | None
    reason: str


class RewardRecord(TypedDict):
    """What the reward decides by itself, whatever else was found: None where the model cannot judge the text."""

    decision: Decision | None
    first_error_step: int | None
    first_error_step_number: int | None
    confidence: float | None


class InspectedTrace(TypedDict):
    """A trace with what was found in it: the verdict, and behind it what the reward and the checker found.

    ``verdict`` is what all of it comes to; ``reward`` what the reward alone says, which may be no error where the
    checker found one. ``decision``, ``first_error_step`` and ``confidence`` say the same as ``reward``.
    Steps are indices of ``steps`` (0-based); a name that ends in ``_number`` counts from 1, as pages do. ``arithmetic``
    the false equations; ``quantities`` those of the problem that the solution never uses or
    uses more than once; ``familiarity`` None where it was not measured.
    """

    text: str
    answer: str | None
    correct: bool | None
    verdict: VerdictRecord
    familiarity: FamiliarityRecord | None
    cannot_judge: bool | None
    trace_score: float | None
    reward: RewardRecord
    decision: Decision | None
    first_error_step: int | None
    first_error_step_number: int | None
    confidence: float | None
    rule: str
    threshold: float | None
    steps: list[InspectedStep]
    tokens: list[InspectedToken]
    arithmetic: list[FalseEquation]
    quantities: list[QuantityRecord]


class InspectionResult(TypedDict):
    """The traces of one problem, inspected with one checkpoint."""

    checkpoint: str
    problem: str
    traces: list[InspectedTrace]


def to_json(
    scored: Sequence[ScoredTrace],
    localisations: Sequence[Localisation],
    *,
    problem: str,
    checkpoint: str,
    familiarity: Sequence[Familiarity | None],
    gamma: float = DEFAULT_GAMMA,
    kind: str = "minimum",
) -> InspectionResult:
    """The result of an inspection, ready for ``json.dumps``; a number that is not finite becomes None.

    Args:
        scored: traces of one problem.
        localisations: the first error of each of them.
        problem: the problem's text.
        checkpoint: name of the checkpoint that scored them.
        familiarity: of each of them; None where it was not measured.
        gamma: discount of the discounted rewards, and of trace scores that discount.
        kind: the trace score, one of ``irl_core.reward.rewards.TRACE_SCORES``.
    """
    traces = [
        inspected(one, where, known, gamma, kind)
        for one, where, known in zip(scored, localisations, familiarity, strict=True)
    ]
    return {"checkpoint": checkpoint, "problem": problem, "traces": traces}


def with_ids(result: InspectionResult, scored: Sequence[ScoredTrace]) -> InspectionResult:
    """The result of ``to_json`` with each token's ``id`` added, for pages that show them."""
    for trace, one in zip(result["traces"], scored, strict=True):
        for token, identity in zip(trace["tokens"], one.encoded.completion_ids, strict=True):
            token["id"] = identity
    return result


def inspected(
    scored: ScoredTrace, where: Localisation, familiarity: Familiarity | None, gamma: float, kind: str
) -> InspectedTrace:
    """One trace of an inspection; the arguments are those of ``to_json``."""
    trace, views = scored.trace, {name: json_numbers(view) for name, view in named_signals(scored, gamma).items()}
    judge = judge_of(scored, familiarity)
    judged = judge.can is not False
    alone: RewardRecord = {
        "decision": where.decision if judged else None,
        "first_error_step": where.first_error_step if judged else None,
        "first_error_step_number": number_of(where.first_error_step) if judged else None,
        "confidence": json_number(where.confidence) if judged else None,
    }
    return {
        "text": trace.text,
        "answer": trace.answer,
        "correct": trace.correct,
        "verdict": to_record(verdict_on(trace, where, judge)),
        "familiarity": None if familiarity is None else cast(FamiliarityRecord, asdict(familiarity)),
        "cannot_judge": None if judge.can is None else not judge.can,
        "trace_score": json_number(trace_score(scored, kind, gamma)),
        "reward": alone,
        **alone,
        "rule": where.rule,
        "threshold": json_number(where.threshold),
        "steps": [
            {
                "number": number,
                "name": step_name(trace.steps, number - 1, of=False),
                "start": step.start,
                "end": step.end,
                "text": step.text,
                "score": json_number(score),
                "role": step.role,
            }
            for number, (step, score) in enumerate(zip(trace.steps, where.step_scores, strict=True), start=1)
        ],
        "tokens": [
            {
                "start": start,
                "end": end,
                "text": trace.text[start:end],
                "raw": views["raw"][index],
                "standardised": views["standardised"][index],
                "discounted": views["discounted"][index],
                "credit": views["credit"][index],
                "logprob": views["logprob"][index],
            }
            for index, (start, end) in enumerate(scored.encoded.spans)
        ],
        "arithmetic": false_arithmetic(trace.text),
        "quantities": [cast(QuantityRecord, asdict(one)) for one in odd_quantities(trace.problem, trace.text)],
    }


def false_arithmetic(text: str) -> list[FalseEquation]:
    """The equations in ``text`` that do not hold; empty where all hold."""
    return [
        {
            "start": equation.start,
            "end": equation.end,
            "text": equation.text,
            "value": json_number(equation.value),
            "stated": json_number(equation.stated),
        }
        for equation in find_equations(text)
        if not equation.true
    ]


def json_numbers(values: Floats) -> list[float | None]:
    """Numbers of a signal, None for what is not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def json_number(value: Any) -> int | float | None:
    """A JSON number: whole values as int where they were exact, None for what is not finite."""
    if getattr(value, "denominator", None) == 1:
        return int(value)
    try:
        number = float(value)
    except OverflowError:  # an exact fraction beyond the largest float
        return None
    return number if math.isfinite(number) else None
