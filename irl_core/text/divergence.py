"""Where a solution diverges from the expert's: the first equation, value or final answer that the expert does not have.

Correct solutions differ more in their words than in their equations, and more in their equations than in the values
that these have. Comparing those rather than tokens lets a sampled trace count as the expert's for as long as it
computes what the expert computes, however it is phrased. No label of correctness is used, only the demonstration.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction

from irl_core.text.answers import answers_agree
from irl_core.text.equations import Equation, read_equations
from irl_core.text.expressions import Expression, parse
from irl_core.text.segmentation import segment
from irl_core.text.tokens import Token, tokenise
from irl_core.types import Span


def departure(expert: str, text: str) -> int | None:
    """Character of ``text`` at which it departs from the ``expert`` solution; None where it does not.

    Equations are compared by their operators and values, however they are spelt (``3 \\times 4``, ``$3 * 4``,
    ``3 boxes * 4``); sums and products match in any order. Within the first equation that the expert lacks, the
    departure is where it stops agreeing with the expert's next equation that has not occurred yet. A text without the
    expert's final answer departs at its end.
    """
    wanted = {meaning(equation): equation for equation in read_equations(expert)}
    waiting = dict(wanted)
    for equation in read_equations(text):
        known = meaning(equation)
        if known not in wanted:
            following = next(iter(waiting.values()), None)
            return equation.start if following is None else first_other_character(equation, following)
        waiting.pop(known, None)
    return answer_departure(expert, text)


# Numbers that a solution may use without having them from the problem: small ones, and those of usual conversions.
CONSTANTS = frozenset(map(Fraction, (*range(11), 12, 24, 30, 31, 52, 60, 100, 365, 1000)))


@dataclass(frozen=True, slots=True)
class Calculation:
    """An equation as a step from values to a value: the numbers of its left side, what it states, if it is true."""

    start: int
    end: int
    operands: frozenset[Fraction]
    stated: Fraction
    true: bool


def value_departure(problem: str, expert: str, text: str) -> int | None:
    """Character of ``text`` at which its *values* depart from the ``expert`` solution; None where they do not.

    The first of: an equation that is false, or whose result the expert does not have and which leads to none that the
    expert has; a number outside the equations that neither the problem nor the expert has and that leads nowhere; the
    final answer, where it is another. A text that ends in the expert's answer departs only at a false equation: how it
    came there is as good a way.
    """
    calculations = [calculation_of(text, equation) for equation in read_equations(text)]
    answer = answer_departure(expert, text)
    false = [one.start for one in calculations if not one.true]
    if answer is None:
        return min(false, default=None)
    demonstrated = values_of(expert)
    right = leading_to(demonstrated, calculations)
    wrong = [one.start for one in calculations if one not in right]
    used = {value for one in right for value in (*one.operands, one.stated)}
    known = in_percent(values_of(problem) | demonstrated | CONSTANTS | used)
    inside = [(one.start, one.end) for one in calculations]
    for token in numbers_of(text):
        if token.value not in known and not any(start <= token.start < end for start, end in inside):
            wrong.append(token.start)
            break
    return min([*wrong, answer])


def calculation_of(text: str, equation: Equation) -> Calculation:
    """What an equation of the text calculates."""
    operands = frozenset(token.value for token in numbers_of(text[slice(*equation.left)]))
    return Calculation(equation.start, equation.end, operands, equation.stated, equation.true)


def leading_to(values: Set[Fraction], calculations: Sequence[Calculation]) -> list[Calculation]:
    """The true calculations whose result is one of the values, or is used by a later one that leads to one of them."""
    right: list[Calculation] = []
    for one in reversed(calculations):
        used_later = any(one.stated in other.operands for other in right if other.start >= one.end)
        if one.true and (one.stated in values or used_later):
            right.append(one)
    return right


def numbers_of(text: str) -> list[Token]:
    """The numbers of a text, calculator annotations left out."""
    return [token for token in tokenise(text, 0, len(text)) if token.kind == "number"]


def values_of(text: str) -> set[Fraction]:
    """The values of the numbers of a text, and those that its equations state."""
    return {token.value for token in numbers_of(text)} | {one.stated for one in read_equations(text)}


def in_percent(values: Set[Fraction]) -> set[Fraction]:
    """The values, and each as a percentage and as a share."""
    return set(values) | {value * 100 for value in values} | {value / 100 for value in values}


def meaning(equation: Equation) -> Hashable:
    """The two sides of an equation, unordered: equal for equal operators and values."""
    left, right = equation.left, equation.right
    sides = [equation.text[start - equation.start : end - equation.start] for start, end in (left, right)]
    parsed = [parse(side) for side in sides]
    if parsed[0] is None or parsed[1] is None:
        return "".join(sides).casefold()
    return frozenset(ordered(side) for side in parsed if side is not None)


def ordered(expression: Expression) -> Hashable:
    """An expression with the operands of each sum and product sorted, as nested tuples."""
    if isinstance(expression, Fraction):
        return expression
    if expression.op not in "+*":
        return (expression.op, ordered(expression.left), ordered(expression.right))
    return (expression.op, *sorted(map(ordered, _operands(expression, expression.op)), key=repr))


def _operands(expression: Expression, op: str) -> list[Expression]:
    """The terms of a sum, or the factors of a product, from left to right."""
    if isinstance(expression, Fraction) or expression.op != op:
        return [expression]
    return _operands(expression.left, op) + _operands(expression.right, op)


def first_other_character(equation: Equation, expected: Equation) -> int:
    """Where an equation first differs from the expected one, units and spelling aside: within a number, its digit."""
    ours, theirs = (  # their numbers, operators and brackets
        [sign for sign in tokenise(one.text, 0, len(one.text), bullets=False) if sign.kind not in ("word", "per")]
        for one in (equation, expected)
    )
    for mine, other in zip(ours, theirs, strict=False):
        if mine.kind != other.kind or (mine.kind != "number" and mine.text != other.text):
            return equation.start + mine.start
        if mine.kind == "number" and mine.value != other.value:
            return min(equation.start + mine.start + first_difference(mine.text, other.text), equation.end - 1)
    return equation.start + ours[len(theirs)].start if len(ours) > len(theirs) else equation.end - 1


def answer_departure(expert: str, text: str) -> int | None:
    """Where the final answer departs from the expert's; None where it agrees or the expert has none."""
    (_, _, right), (_, steps, answer) = segment(expert), segment(text)
    if right is None or (answer is not None and answers_agree(answer, right)):
        return None
    if answer is None:
        return len(text)
    at = text.rfind(answer)
    return at + first_difference(answer, right) if at >= 0 else steps[-1].start


def first_difference(first: Sequence[object], second: Sequence[object]) -> int:
    """Index of the first place where two sequences differ; the shorter one's length where it begins the other."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))


def departed_token(spans: Iterable[Span], character: int | None) -> int:
    """Index of the first token that reaches past ``character``; the number of tokens where there is no departure."""
    index = -1
    for index, (_, end) in enumerate(spans):
        if character is not None and end > character:
            return index
    return index if character is not None and index >= 0 else index + 1
