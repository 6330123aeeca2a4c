"""How the parts of a verdict are worded: steps, scores, exact values, rules. Runs no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Final

from irl_core.reward.plain_math import plain_math
from irl_core.text.equations import Equation
from irl_core.text.step_numbers import count_steps, step_numbers
from irl_core.types import Localisation, Step

REDUCED: Final = {"min": "lowest", "mean": "mean", "sum": "summed", "last": "last"}
SIGNALS: Final = {
    "credit": "credit", "raw": "reward", "standardised": "standardised reward", "discounted": "discounted reward",
    "logprob": "log-probability",
}  # fmt: skip
CHOSEN: Final = {"argmin": "the step with the lowest {}", "first_below": "the first step below the threshold by its {}"}
DIVISIONS: Final = ("/", "\u00f7")
PLACES: Final = 6  # decimals that an exact value is written with at most


def lowest_step(where: Localisation, steps: Sequence[Step]) -> int | None:
    """The step whose score the decision is made by: the lowest of those that may be named; None without a score."""
    named = [
        (score, place)
        for place, (score, step) in enumerate(zip(where.step_scores, steps, strict=True))
        if math.isfinite(score) and (step.role != "answer" or where.rule.endswith("+answer"))
    ]
    return min(named)[1] if named else None


def step_name(steps: Sequence[Step], index: int, *, of: bool = True) -> str:
    """'step 3 of 5', or 'the answer line': what the margin calls the step; without ``of`` 'step 3'.

    It is called by the text's own number where that has one; ``of`` then tells its position too: 'step 4, no. 3 of 5'.
    """
    if steps[index].role == "answer":
        return "the answer line"
    name = f"step {step_numbers(steps)[index]}"
    if not of:
        return name
    place = "" if is_called_by_position(steps, index) else f", no. {index + 1}"
    return f"{name}{place} of {count_steps(step.role for step in steps)}"


def is_called_by_position(steps: Sequence[Step], index: int) -> bool:
    """Whether the number that a step is called by is its position, from 1."""
    return step_numbers(steps)[index] == index + 1


def in_words(equation: Equation) -> str:
    """A false equation in words: '23 * 3 is 69, not 79'; '50 / 3 is about 16.666667, and 17 only when rounded'."""
    left, value, stated = left_words(equation), amount(equation.value), amount(equation.stated)
    if (way := rounding_of(equation)) and any(sign in left for sign in DIVISIONS):
        return f"{left} is {value}, and {stated} only when {way}"
    return f"{left} is {value}, not {stated}"


def left_words(equation: Equation) -> str:
    """The left side of an equation on one line, without the commands of LaTeX."""
    return plain_math(equation.text[: equation.left[1] - equation.start])


def rounding_of(equation: Equation) -> str:
    """How its value would have to be rounded to give the whole number stated, in words; empty where it does not."""
    value, stated = equation.value, equation.stated
    if abs(value) < 1 or value.denominator == 1 or stated not in (floor(value), ceil(value)):
        return ""
    if abs(value - stated) * 2 < 1:
        return "rounded"
    return "rounded up" if abs(stated) > abs(value) else "rounded down"


def amount(value: Fraction) -> str:
    """An exact value in digits: '69', '2.5'; 'about 0.666667' where the decimals do not end."""
    if value.denominator == 1:
        return signed_digits(str(abs(value.numerator)), value)
    digits = f"{float(abs(value)):.{PLACES}f}".rstrip("0").rstrip(".")
    exact = Fraction(digits) == abs(value)
    return ("" if exact else "about ") + signed_digits(digits, value)


def signed_digits(digits: str, value: Fraction) -> str:
    """Digits with the minus sign of the value that they are of."""
    return ("\u2212" if value < 0 else "") + digits


def signed(value: float | None, digits: int = 2) -> str:
    """``value`` with its sign (a true minus), or 'no signal' where it is not a number."""
    if value is None or math.isnan(value):
        return "no signal"
    if math.isinf(value):
        return "infinite" if value > 0 else "\u2212infinite"
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("\u2212" if value < 0 else "+") + text


def score_words(name: str) -> tuple[str, str]:
    """What a localisation rule scores a step by ('lowest reward of its tokens'), and the signal that it reads ('raw');
    both empty for a name that is no rule."""
    signal, _, rest = name.partition("/")
    reduction = rest.partition("/")[0]
    if signal not in SIGNALS or reduction not in REDUCED:
        return "", ""
    return f"{REDUCED[reduction]} {SIGNALS[signal]} of its tokens", signal


def rule_words(name: str) -> str:
    """A localisation rule in words ('the step with the lowest credit of a token'); what is none stays as it is."""
    body, _, answer = name.partition("+")
    parts = body.split("/")
    if len(parts) != 3 or parts[0] not in SIGNALS or parts[1] not in REDUCED or parts[2] not in CHOSEN:
        return name
    signal, reduction, choice = parts
    of = f"{REDUCED[reduction]} {SIGNALS[signal]}"
    if choice == "argmin":
        of = SIGNALS[signal] + (" of a token" if reduction == "min" else f", {REDUCED[reduction]} over its tokens")
    return CHOSEN[choice].format(of) + (", closing lines too" if answer else "")
