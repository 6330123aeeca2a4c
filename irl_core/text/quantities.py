"""What a solution does with its numbers, as signals of their own: the quantities of the problem and the values
calculated on the way that it does not use, and a last result that its answer line departs from.

The first is a hint, no finding of an error: a problem may state what nobody needs. That a quantity stands in several
calculations is hardly a hint: it is as usual in right solutions as in wrong ones (docs/decisions.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import Final

from irl_core.text.answers import parse_number
from irl_core.text.calculations import Number, numbers_in, operands
from irl_core.text.equations import Equation, read_equations, unchecked_equations
from irl_core.types import Span, Trace

IMPLIED: Final = frozenset(map(Fraction, (1, 2, 100)))  # factors that a calculation may bring along itself
MOST_NAMED: Final = 6


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number that the problem states once, at ``start:end``, and the number of sums that calculate with it."""

    start: int
    end: int
    text: str
    uses: int


@lru_cache(maxsize=32)  # verdict and record ask for the same solution one after the other
def odd_quantities(problem: str, solution: str) -> tuple[Quantity, ...]:
    """The quantities of the problem, in its order, that the solution never uses or uses more than once.

    None where the solution has no equation: what it calculates with cannot be told. A number that stands anywhere in
    the solution counts as used, one that the problem states twice or that is also a result is passed over.
    """
    sums = _sums(read_equations(solution))
    if not sums:
        return ()
    stated = numbers_in(problem, (0, len(problem)))
    times = Counter(number.value for number in stated)
    written = {number.value for number in numbers_in(solution, (0, len(solution)))}
    results = {equation.stated for one in sums for equation in one} | {one.value for parts in sums for one in parts}
    uses: Counter[Fraction] = Counter()
    for one in sums:
        values = {number.value for equation in one for number in operands(solution, equation.left)}
        uses.update(values)
        written |= values
    found = [Quantity(n.start, n.end, n.text, uses[n.value]) for n in stated if times[n.value] == 1]
    by_text = {one: number for one, number in zip(found, (n for n in stated if times[n.value] == 1), strict=True)}
    return tuple(
        one for one, number in by_text.items()
        if _unused(problem, number, written) or (one.uses > 1 and number.value not in results | IMPLIED)
    )  # fmt: skip


def unused_results(solution: str) -> list[Number]:
    """The values that the solution calculates, the last one apart, and never mentions again: a step was skipped. One
    that the next calculation uses rounded is used."""
    sums = _sums(read_equations(solution))
    written = {number.value: number.start for number in numbers_in(solution, (0, len(solution)))}  # its last place
    used = [{n.value for equation in one for n in operands(solution, equation.left)} for one in sums]
    taken = {value: place for place, values in enumerate(used) for value in values}  # the last sum that it is used in
    found = []
    for place, one in enumerate(sums[:-1]):
        end, values = max(equation.end for equation in one), {equation.stated for equation in one}
        rounded = {value for equation in one for value in _roundings(equation)}
        unmentioned = all(written.get(value, -1) < end and taken.get(value, -1) <= place for value in values)
        if unmentioned and used[place + 1].isdisjoint(rounded):
            start, stop = one[-1].right
            found.append(Number(start, stop, solution[start:stop].strip(), one[-1].stated))
    return found


def _roundings(equation: Equation) -> set[Fraction]:
    """What a value may be rounded to, up or down: to a whole number, and to cents. None for a whole number."""
    value = equation.value
    if value.denominator == 1:
        return set()
    return {Fraction(way(value * unit), unit) for unit in (1, 100) for way in (floor, ceil)}


def overruled_result(trace: Trace) -> Equation | None:
    """The last calculation before the answer line, where that line states a number which neither it comes to nor
    anything written between them; None where they agree, up to rounding, cents or percent, or cannot be compared."""
    closing = next((step.start for step in trace.steps if step.role == "answer"), None)
    answer = None if trace.answer is None else parse_number(trace.answer)
    if closing is None or answer is None:
        return None
    sums = [one for one in (*read_equations(trace.text), *unchecked_equations(trace.text)) if one.end <= closing]
    if not sums:
        return None
    last = max(sums, key=lambda one: one.end)
    written = {number.value for number in numbers_in(trace.text, (last.right[0], closing))}
    agree = any(_same_amount(answer, value) for value in {last.value, last.stated} | written)
    return None if agree else last


def _same_amount(answer: Fraction, value: Fraction) -> bool:
    """Whether an answer may stand for a value: with its sign, in cents or percent, or as a rounded number."""
    if answer in (value, -value, value * 100, value / 100):
        return True
    whole = answer.denominator == 1
    return abs(answer - value) < (1 if whole else Fraction(1, 100))


def unused_words(odd: Sequence[Quantity], results: Sequence[str] = ()) -> str:
    """What is never used, as a clause: 'the 12 of the problem is never used'; empty where nothing is.

    Args:
        odd: of `odd_quantities`; those that are used count for nothing here.
        results: of `unused_results`, each in words ('the 24 of step 2').
    """
    never = [one.text for one in odd if not one.uses]
    parts = [f"the {_listed(never)} of the problem"] if never else []
    parts += [_listed(results)] if results else []
    many = len(never) + len(results) > 1
    return f"{' and '.join(parts)} {'are' if many else 'is'} never used" if parts else ""


def _listed(parts: Sequence[str]) -> str:
    named = [*parts[:MOST_NAMED], *([f"{len(parts) - MOST_NAMED} more"] if len(parts) > MOST_NAMED else [])]
    return " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))


def _sums(equations: Sequence[Equation]) -> list[list[Equation]]:
    """The equations, those that share a stretch of text (a visible one and its annotation) together."""
    groups: list[list[Equation]] = []
    reach: Span = (0, 0)
    for equation in equations:
        if groups and equation.start < reach[1]:
            groups[-1].append(equation)
        else:
            groups.append([equation])
        reach = (0, max(reach[1], equation.end))
    return groups


def _unused(problem: str, number: Number, written: set[Fraction]) -> bool:
    """Whether neither the number nor what a percentage of it comes to stands in the solution."""
    value = number.value
    if value in written:
        return False
    if not problem[number.end :].lstrip().startswith(("%", "percent")):
        return True
    share = value / 100
    return not {share, 1 - share, 1 + share, 100 - value, 100 + value} & written
