"""What is found of a solution without a model, in words: its equations, its answer line, what it never uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from irl_core.reward.plain_math import plain_math
from irl_core.reward.wording import amount, in_words, left_words, step_name
from irl_core.text.equations import Equation
from irl_core.text.excuses import Excuse
from irl_core.text.quantities import odd_quantities, overruled_result, unused_results, unused_words
from irl_core.types import Trace

MOST_NAMED: Final = 6  # equations in a sentence
By = Literal["arithmetic", "answer", "answer_line", "quantities", "reward", "familiarity"]

# why an equation that is false as read counts as neither true nor false
UNCHECKED: Final[dict[Excuse, str]] = {
    "surroundings": "something beside it belongs to it and was not read",
    "code": "a number in it begins with 0, as a time or a code does",
    "readings": "it can be read in two ways",
    "comparison": "two equals signs ask whether it is so, and do not say it",
    "units": "its two sides may be in different units",
    "rounded": "it is rounded",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one of those asked says of a trace, as a sentence; ``step``: the one that it names, 0-based."""

    by: By
    says: str
    step: int | None = None


def arithmetic(trace: Trace, equations: Sequence[Equation], unchecked: Sequence[Equation], step: int | None) -> Finding:
    """What the checker of equations says; it reads them exactly, apart from the reward.

    Args:
        trace: that they are of.
        equations: those that were checked.
        unchecked: those with an excuse; each is named with it, as far as ``MOST_NAMED``, the false ones too.
        step: the first step with a false one.
    """
    false = [one for one in equations if not one.true]
    if not equations:
        said = "no equation that can be checked exactly" if unchecked else "no equation to check"
    elif not false:
        said = all_hold(len(equations), len(unchecked))
    else:
        count = f"{len(false)} of {len(equations)} equations {'do' if len(false) > 1 else 'does'} not hold"
        named = [in_words(one) + _placed(trace, one) for one in false[:MOST_NAMED]]
        each = "; ".join([*named, *([f"and {len(false) - MOST_NAMED} more"] if len(false) > MOST_NAMED else [])])
        said = f"{'its one equation does not hold' if len(equations) == 1 else count}: {each}"
    sentences = [f"Arithmetic: {said}", *(_excused(trace, one) for one in unchecked[:MOST_NAMED])]
    if len(unchecked) > MOST_NAMED:
        sentences.append(f"Right within rounding or not checked: {len(unchecked) - MOST_NAMED} more")
    return Finding("arithmetic", " ".join(f"{one}." for one in sentences), step)


def all_hold(count: int, unchecked: int = 0) -> str:
    """That all equations that were checked hold, and of how many they are."""
    if unchecked:
        return f"{count} of {count + unchecked} equations hold{'s' if count == 1 else ''} exactly"
    return {1: "its one equation holds", 2: "both equations hold"}.get(count, f"all {count} equations hold")


def answer_line(trace: Trace) -> str:
    """That the answer line states another number than the last calculation, as a clause; empty where it does not."""
    last = overruled_result(trace)
    if last is None:
        return ""
    answer = " ".join((trace.answer or "").split())
    return (
        f"the answer line says {answer}, but the last calculation comes to {amount(last.stated)}{_placed(trace, last)}"
    )


def unused(trace: Trace) -> str:
    """What the solution does not use of what it has, as a clause; empty where it uses all."""
    results = [
        f"the {one.text}" if place is None else f"the {one.text} of {step_name(trace.steps, place, of=False)}"
        for one in unused_results(trace.text)
        for place in [_step_at(trace, one.start)]
    ]
    return unused_words(odd_quantities(trace.problem, trace.text), results)


def _excused(trace: Trace, equation: Equation) -> str:
    """An equation that counts as neither true nor false: which, and why."""
    where = _placed(trace, equation)
    if equation.excuse == "rounded":
        exact, given = amount(equation.value), plain_math(equation.text).rpartition("=")[2].strip()
        return f"Right within rounding{where}: {left_words(equation)} is {exact}, given as {given}"
    why = UNCHECKED[equation.excuse or "surroundings"]
    return f"Not checked{where}: {plain_math(equation.text)}, since {why}"


def _placed(trace: Trace, equation: Equation) -> str:
    """The step of an equation, in brackets behind what is said of it; empty where it stands in none."""
    place = _step_at(trace, equation.start)
    return "" if place is None else f" ({step_name(trace.steps, place, of=False)})"


def _step_at(trace: Trace, character: int) -> int | None:
    return next((at for at, step in enumerate(trace.steps) if step.start <= character < step.end), None)
