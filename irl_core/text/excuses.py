"""Why an equation that is false as read is not called false: it was not read whole, or its units or roundings may
explain it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import Final, Literal

from irl_core.text.surroundings import converted, has_remainder, is_approximate, unread_after, unread_before
from irl_core.text.tokens import Token
from irl_core.types import Span

Excuse = Literal["surroundings", "code", "readings", "comparison", "units", "rounded"]

_CODE: Final = re.compile("0[0-9]")  # a time or a number of a form: 0900
_SMALL_UNIT: Final = re.compile(
    r"\b(?:cents?|minutes?|seconds?|inch(?:es)?|days?|months?|ounces?|grams?|[cm]?m|ml)\b|¢"
)
_RATIOS: Final = {Fraction(n) for n in (7, 10, 12, 16, 24, 60, 100, 365, 1000, 3600)}


def excuse_for(
    sides: tuple[Fraction, Fraction],
    span: Span,
    tokens: Sequence[Token],
    places: tuple[int, int, int],
    text: str,
    noted: bool,
) -> Excuse | None:
    """The excuse of an equation that is false as read; None where it was read whole and nothing explains it.

    Args:
        sides: value of the left side, and the value stated.
        span: of the equation in the text.
        tokens: the tokens of its line.
        places: indices of the first token of the left side, of the equals sign, of the token behind the right side.
        text: the text that the spans are of.
        noted: whether it is a calculator annotation.
    """
    (value, stated), (start, end), (first, equals, after) = sides, span, places
    inside = tokens[first:after]
    if unread_before(tokens, first):
        return "surroundings"
    if _is_rounded(value, stated, span, tokens, places, text if not noted else text[:end]):
        return "rounded"
    if unread_after(tokens, after, text):
        return "surroundings"
    if any(token.kind == "number" and len(token.text) > 1 and _CODE.match(token.text) for token in inside):
        return "code"
    if _is_ambiguous(inside):
        return "readings"
    if tokens[equals].text == "==":
        return "comparison"
    additive = any(token.text in ("+", "-") for token in tokens[first:equals])
    if additive and _two_currencies(text[max(0, start - 2) : end + 8]):
        return "units"
    if in_other_unit(text[start : end + 8], value, stated) or _is_converted(tokens, places):
        return "units"
    return None


def _is_rounded(
    value: Fraction, stated: Fraction, span: Span, tokens: Sequence[Token], places: tuple[int, int, int], text: str
) -> bool:
    """Whether the right side is the left one to a whole number, and it is usual or said that it is not exact: 2/3 is
    67% to everyone, and 66% to some; '17 / 5 = 3 remainder 2'."""
    first, equals, after = places
    if tokens[after - 1].kind == "percent" and 100 % (value * 100).denominator and abs(value - stated) * 100 < 1:
        return True
    divided = any(token.text == "/" or token.kind == "fraction" for token in tokens[first:equals])
    whole = divided and value.denominator != 1 and stated in (floor(value), ceil(value))
    return whole and (has_remainder(text, span[1]) or is_approximate(text, *span))


def in_other_unit(around: str, value: Fraction, stated: Fraction) -> bool:
    """Whether the sides differ by a usual conversion and a small unit is named: '4 * 25 cents = $1' is no falsehood."""
    if not stated or not value or not _SMALL_UNIT.search(around):
        return False
    return value / stated in _RATIOS or stated / value in _RATIOS


def _is_converted(tokens: Sequence[Token], places: tuple[int, int, int]) -> bool:
    """Whether the sum holds once the units of its terms are converted."""
    first, equals, after = places
    end = after
    while end < len(tokens) and end < after + 2 and tokens[end].kind == "word":
        end += 1
    return bool(converted(tokens[first:equals], tokens[equals + 1 : end]))


def _two_currencies(text: str) -> bool:
    """Whether dollars and cents, pounds and pence stand in one sum."""
    return bool(
        re.search(r"[$£€]", text) and re.search(r"¢|\b(?:cents?|penn\w+|pence|nickels?|dimes?|quarters?)\b", text)
    )


def _is_ambiguous(tokens: Sequence[Token]) -> bool:
    """Whether a side can be read in two ways: a product without a sign under a slash, '6 / 2(1+2)'; '5 / 10% rise'."""
    if any(sign.kind == "percent" and word.kind == "word" for sign, word in pairwise(tokens)):
        return True
    for slash, number, opening in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if slash.text == "/" and number.kind == "number" and opening.kind == "open" and not opening.spaced:
            return True
    return False
