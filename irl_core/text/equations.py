"""Arithmetic checker: the equations of a text with their spans, evaluated exactly.

It is a baseline beside the reward. An equation that was not read completely is never called false: see
``excuses``. Each equals sign is evaluated within bounded windows of tokens around it, so the time is linear in the
length of the text; nothing is ever executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from irl_core.text.excuses import Excuse, excuse_for
from irl_core.text.expressions import MAX_TOKENS, Side, read_side
from irl_core.text.tokens import MAX_DIGITS, Token, number_value, tokenise
from irl_core.types import Span, Trace

RESIDUE_DIGITS = 9  # of a number that a calculator wrote with all its digits
RESIDUE = Fraction(1, 10**9)  # relative error that floating point may leave in it


@dataclass(frozen=True, slots=True)
class Equation:
    """``left = right`` as written at ``text[start:end]``.

    Attributes:
        value: of the left side, exactly.
        stated: the value that the right side states.
        true: whether they agree, up to the rounding that the right side is written with.
        left, right: spans of the two sides.
        noted: whether it is a calculator annotation ``<<3*4=12>>``.
        excuse: why one that is false as read is not called false; None where it is judged.
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
    excuse: Excuse | None = None


# ---------------------------------------------------------------- sides of an equation

_PARTS = {"number", "percent", "operator", "of", "open", "close", "power", "per", "word", "fraction", "root"}
_OPERANDS = ("number", "open", "fraction", "root")


def left_sides(tokens: Sequence[Token], equals: int, text: str) -> Iterator[tuple[int, Side]]:
    """Expressions that end at the equals sign, with the index of their first token.

    The longest among the last ``MAX_TOKENS`` tokens of the line; also those that begin at a minus sign attached to
    its number after a word, which may be the number's own: 'the sum is -48 + 21'.
    """
    low = equals
    while low > 0 and equals - low < MAX_TOKENS and tokens[low - 1].kind in _PARTS:
        low -= 1
    any_found = False
    for start in range(low, equals):
        token = tokens[start]
        own_sign = token.text == "-" and start > low and tokens[start - 1].kind == "word" and token.spaced
        if (not any_found or own_sign) and may_start(tokens, start):
            side = read_side(tokens[start:equals], text, whole=True)
            if side:
                any_found = True
                yield start, side


def may_start(tokens: Sequence[Token], start: int) -> bool:
    """Whether an expression can start here: not behind an operator, whose left operand is then unknown."""
    token = tokens[start]
    before = tokens[start - 1] if start and not token.first else None
    if token.kind == "operator":
        attached = start + 1 < len(tokens) and not tokens[start + 1].spaced
        free = before is None or before.kind in ("equals", "open", "word") or before.text in (":", ",")
        return token.text == "-" and attached and free
    if token.kind not in _OPERANDS:
        return False
    if before is None or before.kind == "close":
        return True
    if token.text == "{" and before.text == "]":  # the argument of a command: \sqrt[3]{8}
        return False
    if before.kind in ("operator", "of", "power", "per", "number", "percent", "fraction", "root"):
        return before.kind == "of" and token.spaced
    earlier = tokens[start - 2] if start > 1 else before
    if before.kind == "open":
        return earlier.kind not in ("operator", "fraction", "root") and before.text != "{"
    inside_number = before.kind == "other" and before.text in ".,:" and earlier.kind == "number"
    return token.spaced or not (inside_number or before.kind == "word")


def right_side(tokens: Sequence[Token], equals: int, text: str) -> tuple[int, Side] | None:
    """The expression that starts after the equals sign, with the index of the token behind it."""
    high = equals + 1
    while high < len(tokens) and high - equals <= MAX_TOKENS and tokens[high].kind in _PARTS:
        high += 1
    side = read_side(tokens[equals + 1 : high], text, whole=False)
    if side is None:
        return None
    after = equals + 1
    while after < len(tokens) and tokens[after].start < side.end:
        after += 1
    return None if _is_variable_term(tokens[after : after + 2]) else (after, side)


def _is_variable_term(rest: Sequence[Token]) -> bool:
    """Whether an expression continues in a variable or in another group of digits: '3x', '24/Y', '30 + M', '16 000'."""
    if not rest:
        return False
    after = rest[0]
    variable = after.kind == "word" and len(after.text) == 1 and not after.spaced
    quotient = after.kind == "per" and len(after.text.lstrip("/ ")) == 1
    term = after.kind == "operator" and len(rest) > 1 and rest[1].kind == "word" and len(rest[1].text) == 1
    return variable or quotient or (term and rest[1].text not in "aI") or (after.kind == "number" and after.spaced)


# ---------------------------------------------------------------- truth

_LITERAL = re.compile(r"[-−–]?\s?[\\$€£]{0,2}\s?([0-9,]*\.?[0-9]+)\s?\\?%?")


def places(number: str) -> int:
    """Number of decimals that a number is written with: 2 for ``1,000.50``, 0 for ``12``."""
    return len(number.partition(".")[2])


def rounds_to(value: Fraction, stated: Fraction, decimals: int) -> bool:
    """Whether ``value`` rounds to ``stated`` at that many decimals; a value half way rounds to either."""
    return bool(abs(value - stated) * 2 * 10**decimals <= 1)


def cut_to(value: Fraction, stated: Fraction, decimals: int) -> bool:
    """Whether ``stated`` is ``value`` with the digits behind at least two decimals left out: 0.66 for 2/3."""
    return decimals >= 2 and 0 <= abs(value) - abs(stated) < Fraction(1, 10**decimals) and value * stated >= 0


def has_residue(text: str) -> bool:
    """Whether a text holds a number with as many digits as a calculator shows."""
    return any(
        len(decimal.replace(".", "").strip("0")) >= RESIDUE_DIGITS for decimal in re.findall(r"[0-9]*\.[0-9]+", text)
    )


def residue_of(value: Fraction) -> Fraction:
    """The error that floating point may leave in a number of this size."""
    return RESIDUE * max(Fraction(1), abs(value))


def matches(value: Fraction, stated: Fraction, source: str, approximate: bool, residue: bool) -> bool:
    """Whether a side written as ``source``, worth ``stated``, can stand for ``value``.

    Equal, or equal once rounded or cut to the decimals that are written; whole numbers only where ``approximate``.
    ``residue`` allows for what floating point leaves in a number.
    """
    if value == stated or (residue and abs(value - stated) <= residue_of(value)):
        return True
    literal = _LITERAL.fullmatch(source)
    if not literal or ("." not in literal[1] and not approximate):
        return False
    decimals = places(literal[1])
    slack = residue_of(value) if residue else Fraction(0)
    if rounds_to(value, stated, decimals) or cut_to(value, stated, decimals):
        return True
    if slack and (cut_to(value + slack, stated, decimals) or cut_to(value - slack, stated, decimals)):
        return True
    return approximate and abs(value - stated) * 10**decimals < 1


def compare_sides(left: Side, right: Side, approximate: bool, residue: bool) -> tuple[Fraction, Fraction, bool]:
    """Value, stated value, and whether some reading of the two sides makes them equal."""
    percent = right.source.rstrip().endswith("%")
    for value in left.values:
        for index, stated in enumerate(right.values):
            scale = 100 if percent and index == 0 else 1
            if matches(value * scale, stated * scale, right.source, approximate, residue):
                return value, stated, True
    return left.values[0], right.values[0], False


# ---------------------------------------------------------------- equations


def equation_at(tokens: Sequence[Token], equals: int, text: str, noted: bool) -> Equation | None:
    """The equation around one equals sign, with its excuse where it is false as read; None where there is none."""
    behind = right_side(tokens, equals, text)
    if behind is None:
        return None
    after, right = behind
    recognised: Equation | None = None
    for first, left in left_sides(tokens, equals, text):
        if left.operators == 0 and (
            _names(left, tokens, first) or not (right.operators or _in_chain(tokens, equals, first))
        ):
            continue
        approximate = tokens[equals].text in ("≈", "≅", "\\approx")
        residue = has_residue(text[left.start : right.end])
        value, stated, true = compare_sides(left, right, approximate, residue)
        span, sides = (left.start, right.end), ((left.start, left.end), (right.start, right.end))
        equation = Equation(*span, text[slice(*span)], value, stated, true, *sides, noted)
        if true:
            return equation
        if why := excuse_for((value, stated), span, tokens, (first, equals, after), text, noted):
            return replace(equation, excuse=why)
        recognised = recognised or equation
    return recognised


def _names(left: Side, tokens: Sequence[Token], first: int) -> bool:
    """Whether a bare left side only names something: 'Week 1 = 3 * 4', '2 dozen = 24', '4 - 2 = 2 hours = 120'."""
    alone = tokens[first].first or tokens[first - 1].kind in ("open", "equals")
    return left.unit_words > 0 or not alone


def _in_chain(tokens: Sequence[Token], equals: int, first: int) -> bool:
    """Whether the left side is itself stated by an equals sign before it: 'a = b = c', with some operator in a."""
    if first < 2 or tokens[first - 1].kind != "equals":
        return False
    window = tokens[max(0, first - 1 - MAX_TOKENS) : first - 1]
    return any(token.kind in ("operator", "fraction", "root") for token in window) and window[-1].kind in _PARTS


# ---------------------------------------------------------------- public


_LINE = re.compile(r"[^\r\n]+")
_RELATION = re.compile(r"[=≈≅]|\\approx")
_NOTE = re.compile(r"<<([^<>\r\n]{1,200})>>")


def read_equations(text: str) -> tuple[Equation, ...]:
    """Every equation of the text in order of its start, annotations and the visible ones around them alike."""
    return _all_equations(text)[0]


def unchecked_equations(text: str) -> list[Equation]:
    """The equations that are false as read and have an excuse, in order: they count as neither true nor false. Those
    that share a stretch of text with one that is judged, such as the annotation within them, are not listed."""
    judged, excused = _all_equations(text)
    kept: list[Equation] = []
    for one in excused:
        if not any(one.start < other.end and other.start < one.end for other in (*judged, *kept)):
            kept.append(one)
    return kept


@lru_cache(maxsize=32)  # verdict, checker and quantities read the same text one after the other
def _all_equations(text: str) -> tuple[tuple[Equation, ...], tuple[Equation, ...]]:
    """The equations that are judged and those that have an excuse, each in order of its start."""
    equations: list[Equation] = []
    for line in _LINE.finditer(text):
        if _RELATION.search(text, *line.span()):
            equations += _equations_between(text, *line.span(), noted=False)
    for note in _NOTE.finditer(text):
        equations += _equations_between(text, note.start(1), note.end(1), noted=True)
    equations.sort(key=lambda equation: (equation.start, -equation.end))
    judged = tuple(one for one in equations if one.excuse is None)
    return judged, tuple(one for one in equations if one.excuse is not None)


def _equations_between(text: str, start: int, end: int, noted: bool) -> list[Equation]:
    tokens = tokenise(text, start, end)
    spots = [index for index, token in enumerate(tokens) if token.kind == "equals"]
    equations = (equation_at(tokens, index, text, noted) for index in spots)
    return [equation for equation in equations if equation]


_SHOWN = re.compile(
    r"\s?(?:\\?[$€£])?\s?((?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?![.,]?[0-9]|\s?/\s?[0-9]|[ ][0-9]{3}(?![0-9])|\.\.|…)"
)


def shown_after(text: str, noted: Equation) -> Span | None:
    """Where the number is that stands right after an annotation: the 12 behind ``<<3*4=12>>``; None where none does."""
    shown = _SHOWN.match(text, noted.end + len(">>"))
    return shown.span(1) if shown and len(shown[1]) <= MAX_DIGITS else None


def contradiction_of(text: str, noted: Equation) -> Equation | None:
    """The false equation between an annotation's result and another number shown behind it, if there is one."""
    span = shown_after(text, noted)
    if span is None:
        return None
    written = text[slice(*span)]
    shown = number_value(written)
    residue = has_residue(text[slice(*noted.right)])
    exact = (noted.stated, noted.stated * 100, noted.stated / 100)  # 0.5 shown as 50%, cents as dollars
    decimals = min(places(written), places(text[slice(*noted.right)]))
    if any(matches(stated, shown, written, False, residue) for stated in exact[:1]) or shown in exact:
        return None
    if rounds_to(noted.stated, shown, places(written)) or rounds_to(shown, noted.stated, decimals):
        return None
    start, end = noted.start, span[1]
    return Equation(start, end, text[start:end], noted.stated, shown, False, noted.right, span)


def find_equations(text: str) -> list[Equation]:
    r"""The equations of the text, in order, each with its exact value, the value stated, and whether it is true.

    Read are ``3 * 4 = 12``, ``$3 x 4 = $12``, ``<<3*4=12>>``, ``× ÷ −``, LaTeX (``\frac{6}{2} &= 3``), percentages
    (``20% of 50 = 10``), chains (``3+4=7*2=14``: one equation an equals sign), parentheses, thousands separators,
    scale words, units between the numbers (``3 boxes * 4 = 12``). A stated decimal is true when the exact value rounds
    to it, or is cut, at the precision it is written with, and where it is a calculator's residue
    (``54.00000000000001``); an integer must be exact, except after ``≈``. What is false as read is listed only where
    nothing that touches it was left unread. An annotation that only repeats the visible equation around it is not
    listed twice; one that the number behind it contradicts gives a false equation.
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
        contradiction = None if around else contradiction_of(text, note)
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
