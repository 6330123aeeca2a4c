"""An arithmetic checker: the equations written in a text, evaluated exactly, false ones found by their span.

It is a signal of its own beside the reward. Each equals sign is judged with the bounded windows of tokens around it,
so the work is linear in the length of the text; nothing is ever executed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from irl_core.text.expressions import MAX_DIGITS, MAX_TOKENS, Side, Token, evaluate, parse, tokenise
from irl_core.types import Span, Trace

__all__ = ["Equation", "evaluate", "find_equations", "first_false_step", "read_equations", "shown_after"]


@dataclass(frozen=True, slots=True)
class Equation:
    """``left = right`` as written at ``text[start:end]``: what the left side is worth, what the right side states.

    ``true`` allows for the rounding that the right side is written with. ``left`` and ``right`` are the spans of the
    sides; ``noted`` marks a calculator annotation ``<<3*4=12>>``.
    """

    start: int
    end: int
    text: str
    value: Fraction
    stated: Fraction
    true: bool
    left: Span
    right: Span
    noted: bool = False


# ---------------------------------------------------------------- sides of an equation

_PARTS = {"number", "percent", "operator", "of", "open", "close", "power", "per", "word"}


def _left_side(tokens: Sequence[Token], equals: int, text: str) -> Side | None:
    """The longest expression that ends at the equals sign, among the last ``MAX_TOKENS`` tokens of its line."""
    low = equals
    while low > 0 and equals - low < MAX_TOKENS and tokens[low - 1].kind in _PARTS:
        low -= 1
    for start in range(low, equals):
        if _may_start(tokens, start):
            side = parse(tokens[start:equals], text, whole=True)
            if side:
                return side
    return None


def _may_start(tokens: Sequence[Token], start: int) -> bool:
    """Whether an expression can start here: not behind an operator, whose left operand is then unknown."""
    token = tokens[start]
    before = tokens[start - 1] if start and not token.first else None
    if token.kind == "operator":
        attached = start + 1 < len(tokens) and not tokens[start + 1].spaced
        return token.text == "-" and attached and (before is None or before.kind in ("equals", "open", "word"))
    if token.kind not in ("number", "open"):
        return False
    if before is None or before.kind == "close":
        return True
    if before.kind in ("operator", "of", "power", "per", "number"):
        return False
    earlier = tokens[start - 2] if start > 1 else before
    if before.kind == "open":
        return earlier.kind != "operator"
    inside_number = before.kind == "other" and before.text in ".,:" and earlier.kind == "number"
    return token.spaced or not (inside_number or before.kind == "word")


def _right_side(tokens: Sequence[Token], equals: int, text: str) -> Side | None:
    """The expression that starts after the equals sign, up to the next one or as far as it goes."""
    high = equals + 1
    while high < len(tokens) and high - equals <= MAX_TOKENS and tokens[high].kind in _PARTS:
        high += 1
    window = tokens[equals + 1 : high]
    side = parse(window, text, whole=False)
    if side is None or _goes_on([token for token in window if token.start >= side.end]):
        return None
    return side


def _goes_on(rest: Sequence[Token]) -> bool:
    """Whether an expression continues in what could not be read: '3x', '24/Y', '30 + M trees', '16 000'."""
    if not rest:
        return False
    after = rest[0]
    variable = after.kind == "word" and len(after.text) == 1 and not after.spaced
    quotient = after.kind == "per" and len(after.text.lstrip("/ ")) == 1
    term = after.kind == "operator" and len(rest) > 1 and rest[1].kind == "word"
    return (
        variable
        or quotient
        or (term and len(rest[1].text) == 1 and rest[1].text not in "aI")
        or (after.kind == "number" and len(after.text) == 3)
    )


# ---------------------------------------------------------------- truth


def places(number: str) -> int:
    """How many decimals a number is written with: 2 for ``1,000.50``, 0 for ``12``."""
    return len(number.partition(".")[2])


def rounds_to(value: Fraction, stated: Fraction, decimals: int) -> bool:
    """Whether ``value`` rounds to ``stated`` at that many decimals; a value half way rounds to either."""
    return bool(abs(value - stated) * 2 * 10**decimals <= 1)


def _matches(value: Fraction, right: Side, stated: Fraction, approximate: bool) -> bool:
    if value == stated:
        return True
    literal = re.fullmatch(r"[-−]?\s?[\\$€£]{0,2}\s?([0-9,]*\.?[0-9]+)\s?\\?%?", right.source)
    if not literal or ("." not in literal[1] and not approximate):
        return False
    percent = right.source.endswith("%") and stated == right.values[0]
    return rounds_to(value, stated, places(literal[1]) + (2 if percent else 0))


def _compare(left: Side, right: Side, approximate: bool) -> tuple[Fraction, Fraction, bool]:
    """Value, stated value, and whether some reading of the percent signs makes the two sides equal."""
    for value in left.values:
        for stated in right.values:
            if _matches(value, right, stated, approximate):
                return value, stated, True
    return left.values[0], right.values[0], False


def _names(left: Side, tokens: Sequence[Token], equals: int) -> bool:
    """Whether a bare left side only names something: 'Week 1 = 3 * 4', '2 dozen = 24', '4 - 2 = 2 hours = 120'."""
    first = next(index for index in range(equals, -1, -1) if tokens[index].start <= left.start)
    alone = tokens[first].first or tokens[first - 1].kind in ("open", "equals")
    return left.unit_words > 0 or not alone


def _equation(tokens: Sequence[Token], equals: int, text: str, noted: bool) -> Equation | None:
    left = _left_side(tokens, equals, text)
    right = _right_side(tokens, equals, text) if left else None
    if left is None or right is None:
        return None
    if left.operators == 0 and (
        _names(left, tokens, equals) or not (right.operators or _in_chain(tokens, equals, left))
    ):
        return None
    value, stated, true = _compare(left, right, tokens[equals].text in "≈≅")
    if not true and _other_unit(text[left.start : right.end + 8], value, stated):
        return None
    span, sides = (left.start, right.end), ((left.start, left.end), (right.start, right.end))
    return Equation(*span, text[slice(*span)], value, stated, true, *sides, noted)


def _in_chain(tokens: Sequence[Token], equals: int, left: Side) -> bool:
    """Whether the left side is itself stated by an equals sign before it: 'a = b = c', with some operator in a."""
    index = equals - 1
    while index > 0 and tokens[index].start > left.start:
        index -= 1
    if index < 2 or tokens[index - 1].kind != "equals":
        return False
    window = tokens[max(0, index - 1 - MAX_TOKENS) : index - 1]
    return any(token.kind == "operator" for token in window) and window[-1].kind in _PARTS


_SMALL_UNIT = re.compile(r"\b(?:cents?|minutes?|seconds?|inch(?:es)?|days?|months?|ounces?|grams?|[cm]?m|ml)\b|¢")
_RATIOS = {Fraction(n) for n in (7, 10, 12, 16, 24, 60, 100, 365, 1000, 3600)}


def _other_unit(around: str, value: Fraction, stated: Fraction) -> bool:
    """Whether the sides differ by a usual conversion and a small unit is named: '4 * 25 cents = $1' is no falsehood."""
    if not stated or not value or not _SMALL_UNIT.search(around):
        return False
    return value / stated in _RATIOS or stated / value in _RATIOS


# ---------------------------------------------------------------- public


def read_equations(text: str) -> list[Equation]:
    """Every equation of the text in order of its start, annotations and the visible ones around them alike."""
    found = _equations_between(text, 0, len(text), noted=False)
    for note in re.finditer(r"<<([^<>\r\n]{1,200})>>", text):
        found += _equations_between(text, note.start(1), note.end(1), noted=True)
    return sorted(found, key=lambda equation: (equation.start, -equation.end))


def _equations_between(text: str, start: int, end: int, noted: bool) -> list[Equation]:
    tokens = tokenise(text, start, end)
    spots = [index for index, token in enumerate(tokens) if token.kind == "equals"]
    equations = (_equation(tokens, index, text, noted) for index in spots)
    return [equation for equation in equations if equation]


_SHOWN = re.compile(
    r"\s?(?:\\?[$€£])?\s?((?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?![.,]?[0-9]|\s?/\s?[0-9])"
)


def shown_after(text: str, noted: Equation) -> Span | None:
    """Where the number is that stands right after an annotation: the 12 behind ``<<3*4=12>>``; None where none does."""
    shown = _SHOWN.match(text, noted.end + len(">>"))
    return shown.span(1) if shown and len(shown[1]) <= MAX_DIGITS else None


def _contradiction(text: str, noted: Equation) -> Equation | None:
    """The false equation between an annotation's result and another number shown behind it, if there is one."""
    span = shown_after(text, noted)
    if span is None:
        return None
    written = text[slice(*span)]
    shown = Fraction(written.replace(",", ""))
    exact = {noted.stated, noted.stated * 100, noted.stated / 100}  # 0.5 shown as 50%, cents as dollars
    decimals = min(places(written), places(text[slice(*noted.right)]))
    if shown in exact or rounds_to(noted.stated, shown, places(written)) or rounds_to(shown, noted.stated, decimals):
        return None
    start, end = noted.start, span[1]
    return Equation(start, end, text[start:end], noted.stated, shown, False, noted.right, span)


def find_equations(text: str) -> list[Equation]:
    """The equations of the text, in order, each with its exact value, the value stated, and whether it is true.

    Read are ``3 * 4 = 12``, ``$3 x 4 = $12``, ``<<3*4=12>>``, ``× ÷ −``, percentages (``20% of 50 = 10``), chains
    (``3+4=7*2=14``: one equation an equals sign), parentheses, thousands separators, units between the numbers
    (``3 boxes * 4 = 12``). A stated decimal is true when the exact value rounds to it at the precision it is written
    with; an integer must be exact, except after ``≈``. An annotation that only repeats the visible equation around
    it is not listed twice; one that the number behind it contradicts gives a false equation.
    """
    everything = read_equations(text)
    visible = [equation for equation in everything if not equation.noted]
    notes = [equation for equation in everything if equation.noted]
    kept: list[Equation] = list(visible)
    position = 0
    for note in notes:
        while position < len(visible) and visible[position].end < note.start:
            position += 1
        around = [other for other in visible[position : position + 2] if other.start < note.start < other.end]
        if not any((other.value, other.stated) == (note.value, note.stated) for other in around):
            kept.append(note)
        contradiction = None if around else _contradiction(text, note)
        if contradiction:
            kept.append(contradiction)
    return sorted(kept, key=lambda equation: (equation.start, equation.end))


def first_false_step(trace: Trace) -> int | None:
    """The index of the first step that holds a false equation, or None: the checker as a baseline without a model."""
    false = [equation.start for equation in find_equations(trace.text) if not equation.true]
    for index, step in enumerate(trace.steps):
        if any(step.start <= start < step.end for start in false):
            return index
    return None
