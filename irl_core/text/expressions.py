r"""Recursive-descent parser of arithmetic expressions as people write them, with exact values.

Plain text, Markdown and LaTeX (``\frac``, ``\times``, ``\sqrt``, ``^{}``) are one notation here. The number of tokens,
the digits of a number and the size of every value are bounded; nothing is ever executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import isqrt

from irl_core.text.tokens import SCALE_WORDS, SET_WORDS, Token, is_unit, is_whole_number, tokenise

MAX_TOKENS = 48  # in one side of an equation
MAX_EXPONENT = 20
MAX_BITS = 400  # of a numerator or denominator: 120 digits; larger values are not worked out
MAX_UNIT_WORDS = 3
OPERAND_KINDS = ("number", "open", "fraction", "root")


@dataclass(frozen=True, slots=True)
class Operation:
    """``left op right`` with ``op`` one of ``+ - * / ^``; each side is a number or another operation."""

    op: str
    left: Expression
    right: Expression


Expression = Fraction | Operation


class NoParseError(Exception):
    """The tokens are no expression, or one whose value is undefined or too large."""


# ---------------------------------------------------------------- values


def apply(op: str, left: Fraction, right: Fraction) -> Fraction | None:
    """``left op right``, exactly; None where it is undefined, irrational or too large (``MAX_BITS``)."""
    if op == "^":
        return raise_to(left, right)
    if op == "/" and not right:
        return None
    result = left + right if op == "+" else left - right if op == "-" else left * right if op == "*" else left / right
    return result if max(result.numerator.bit_length(), result.denominator.bit_length()) <= MAX_BITS else None


def raise_to(base: Fraction, exponent: Fraction) -> Fraction | None:
    """``base`` to a whole exponent of at most ``MAX_EXPONENT``; None for any other or where the value is too large."""
    if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT or (base == 0 and exponent < 0):
        return None
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    return Fraction(base ** int(exponent)) if size * abs(int(exponent)) <= MAX_BITS else None


def value(expression: Expression) -> Fraction | None:
    """The exact value of an expression; None where ``apply`` has none for one of its operations."""
    if isinstance(expression, Fraction):
        return expression
    left, right = value(expression.left), value(expression.right)
    return None if left is None or right is None else apply(expression.op, left, right)


def literals(expression: Expression) -> list[Fraction]:
    """The numbers in an expression, from left to right."""
    if isinstance(expression, Fraction):
        return [expression]
    return literals(expression.left) + literals(expression.right)


# ---------------------------------------------------------------- parser


@dataclass(frozen=True, slots=True)
class Reading:
    """An interpretation of ambiguous notation. The first of ``readings`` is the most usual."""

    share: bool = True  # 20% is 1/5, not 20
    tight: bool = True  # 25 / 1/5 divides by a fifth
    of: bool = True  # 1/3 of 150 is 50; else the expression ends before 'of'
    scaled: bool = True  # 2 dozen is 24; else 'dozen' is a unit
    sets: bool = True  # 2 pairs are 4; else 'pairs' is a unit


def readings(tokens: Sequence[Token]) -> Iterator[Reading]:
    """The ways to read the tokens: a choice only where they hold something ambiguous."""
    kinds = {token.kind for token in tokens}
    choices = (
        "percent" in kinds,
        sum(token.text == "/" for token in tokens) > 1,
        "of" in kinds,
        any(token.kind == "word" and token.text.lower() in SCALE_WORDS for token in tokens),
        any(token.kind == "word" and token.text.lower() in SET_WORDS for token in tokens),
    )
    for flags in product(*[(True, False) if choice else (True,) for choice in choices]):
        yield Reading(*flags)


@dataclass(slots=True)
class _Parser:
    """Recursive descent over one window of tokens: sum > product > sign > power > number or group."""

    tokens: Sequence[Token]
    reading: Reading
    at: int = 0
    operators: int = 0
    percentage: bool = False  # the last product was nothing but a percentage
    last_end: int = 0
    unit_words: int = 0

    def kind(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.tokens[index].kind if index < len(self.tokens) else "end"

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        self.last_end = token.end
        return token

    def operator(self, signs: str) -> str | None:
        """Take the operator here, if it is one of the signs and an operand follows."""
        if self.kind() != "operator" or self.tokens[self.at].text not in signs:
            return None
        signed = self.kind(1) == "operator" and self.tokens[self.at + 1].text == "-" and self.kind(2) in OPERAND_KINDS
        if not signed and self.kind(1) not in OPERAND_KINDS:
            return None
        self.operators += 1
        return self.take().text

    def sum(self) -> Expression:
        total = self.product()
        while sign := self.operator("+-"):
            term = self.product()
            whole = value(total) if self.percentage and self.reading.share else None
            share = value(term)
            if whole is not None and share is not None and abs(whole) > 1:  # 50 - 10% is 10 % less than 50
                total = Operation("*", total, 1 + share if sign == "+" else 1 - share)
            else:
                total = Operation(sign, total, term)
            self.percentage = False
        return total

    def product(self) -> Expression:
        result = self.signed()
        percentage = self.percentage
        while True:
            sign = self.operator("*/")
            if sign is None and not self.implicit():
                break
            factor = self.tight_fraction() if sign == "/" else None
            result = Operation(sign or "*", result, self.signed() if factor is None else factor)
            percentage = False
        self.percentage = percentage
        return result

    def tight_fraction(self) -> Expression | None:
        """The third of '25 / 1/3', written without blanks; None where none stands here."""
        window = self.tokens[self.at : self.at + 3]
        if [token.kind for token in window] != ["number", "operator", "number"] or not self.reading.tight:
            return None
        if window[1].text != "/" or not window[0].spaced or window[1].spaced or window[2].spaced:
            return None
        over, _, under = self.take(), self.take(), self.take()
        return self.with_unit(Operation("/", over.value, under.value))

    def implicit(self) -> bool:
        """Whether a product without a sign follows: '20% of 50', '1/2 of 8', '2(3+4)', 'a group times a fraction'."""
        before = self.tokens[self.at - 1]
        if self.kind() == "of" and self.kind(1) in OPERAND_KINDS:
            fraction = (self.at > 1 and self.tokens[self.at - 2].text == "/") or before.text == "}"
            if not self.reading.of or not (before.kind == "percent" or fraction):
                return False
            self.take()
        elif not (
            self.kind() == "open" and not self.tokens[self.at].spaced and before.kind in ("number", "close")
        ) and not (self.kind() in ("fraction", "root") and before.kind == "close" and before.text == ")"):
            return False
        self.operators += 1
        return True

    def signed(self) -> Expression:
        """A power with its sign, which binds less than the power: -2^2 is -4."""
        if self.kind() == "operator" and self.tokens[self.at].text == "-" and self.kind(1) in OPERAND_KINDS:
            self.take()
            inner = self.signed()
            return -inner if isinstance(inner, Fraction) else Operation("-", Fraction(0), inner)
        return self.power()

    def power(self) -> Expression:
        base = self.atom()
        if self.kind() == "power":
            return self.with_unit(Operation("^", base, self.take().value))
        if self.operator("^"):
            return self.with_unit(Operation("^", base, self.signed()))
        return self.with_unit(base)

    def atom(self) -> Expression:
        if self.kind() == "number":
            return self.number()
        if self.kind() == "fraction":
            self.take()
            self.operators += 1
            return Operation("/", self.argument(), self.argument())
        if self.kind() == "root":
            self.take()
            self.operators += 1
            return square_root(self.argument())
        return self.group()

    def argument(self) -> Expression:
        r"""What ``\frac`` and ``\sqrt`` apply to: a number or a group."""
        return self.take().value if self.kind() == "number" else self.group()

    def group(self) -> Expression:
        if self.kind() != "open":
            raise NoParseError
        opening = self.take()
        inner = self.sum()
        self.units(closing=True)
        if self.kind() != "close" or (opening.text == "{") != (self.tokens[self.at].text == "}"):
            raise NoParseError
        self.take()
        return inner

    def number(self) -> Expression:
        r"""A number, or a mixed one: '1 1/2', '1 and 1/2', '1\frac{1}{2}', '2½'."""
        first = self.take()
        joined = int(self.kind() == "word" and self.tokens[self.at].text == "and")
        window = self.tokens[self.at + joined : self.at + joined + 3]
        if first.value.denominator != 1 or not window:
            return first.value
        if window[0].vulgar:
            self.at += joined
            return first.value + self.take().value
        if window[0].kind == "fraction":
            self.at += joined + 1
            part = value(Operation("/", self.argument(), self.argument()))
            if part is None or not 0 < part < 1:
                raise NoParseError
            return first.value + part
        if [token.kind for token in window] != ["number", "operator", "number"] or window[1].text != "/":
            return first.value
        whole = all(is_whole_number(token.text) for token in (window[0], window[2]))
        if not whole or not 0 < window[0].value < window[2].value or not window[0].spaced:
            return first.value
        for _ in range(joined + 3):
            self.take()
        return first.value + window[0].value / window[2].value

    def with_unit(self, inner: Expression) -> Expression:
        """What stands behind a value: a percent sign, a scale word, words for its unit."""
        self.percentage = self.kind() == "percent"
        if self.percentage:
            self.take()
            inner = Operation("/", inner, Fraction(100)) if self.reading.share else inner
        multiples = (SCALE_WORDS if self.reading.scaled else {}) | (SET_WORDS if self.reading.sets else {})
        while self.kind() == "word" and self.tokens[self.at].text.lower() in multiples:
            inner = Operation("*", inner, Fraction(multiples[self.take().text.lower()]))
            self.unit_words += 1
        self.units(closing=False)
        return inner

    def units(self, closing: bool) -> None:
        """Pass over unit words, where an operator, the end or ')' follows them."""
        ahead = 0
        while self.kind(ahead) in ("word", "per") and ahead < MAX_UNIT_WORDS:
            token = self.tokens[self.at + ahead]
            if not is_unit(token, self.tokens[self.at + ahead - 1]):
                return
            ahead += 1
        following = self.kind(ahead)
        if following not in ("operator", "end", "close") or (closing and following != "close"):
            return
        if following != "operator" or self.kind(ahead + 1) in (*OPERAND_KINDS, "per"):
            self.unit_words += ahead
            self.at += ahead


def square_root(inner: Expression) -> Expression:
    """The square root of a perfect square."""
    square = value(inner)
    if square is None or square < 0:
        raise NoParseError
    root = Fraction(isqrt(square.numerator), isqrt(square.denominator))
    if root * root != square:
        raise NoParseError
    return root


# ---------------------------------------------------------------- public


@dataclass(frozen=True, slots=True)
class Side:
    """One side of an equation: its value under each reading, its span, what it is made of."""

    values: tuple[Fraction, ...]
    start: int
    end: int
    operators: int
    unit_words: int
    source: str
    expression: Expression


def read_side(tokens: Sequence[Token], text: str, whole: bool) -> Side | None:
    """The expression at the start of the tokens; with ``whole`` it must use them all. None where there is none."""
    side: Side | None = None
    for reading in readings(tokens):
        parser = _Parser(tokens, reading)
        try:
            expression = parser.sum()
        except NoParseError:
            continue
        result = value(expression)
        if result is None or (whole and parser.at != len(tokens)):
            continue
        start, end = tokens[0].start, parser.last_end
        if side is None:
            counts = (parser.operators, parser.unit_words)
            side = Side((result,), start, end, *counts, text[start:end], expression)
        else:
            side = Side(
                (*side.values, result), start, side.end, side.operators, side.unit_words, side.source,
                side.expression,
            )  # fmt: skip
    return side


def read_number(tokens: Sequence[Token]) -> tuple[Fraction, int] | None:
    r"""The number that the tokens begin with, and how many of them it takes; None where they begin with none.

    A number may be a fraction, a power, ``3 \times 10^5``, in percent or with a scale word; no other product is one.
    """
    parser = _Parser(tokens, Reading(share=False, tight=False, sets=False))
    try:
        number = value(parser.product())
    except NoParseError:
        return None
    used = tokens[: parser.at]
    shape = "".join(token.text if token.kind in ("operator", "open", "of") else token.kind[0] for token in used)
    powers_of_ten = re.sub(r"\*n[\^p]", "", shape, count=1) if any(token.text == "10" for token in used) else shape
    if number is None or "*" in powers_of_ten or "(" in shape or "of" in shape or shape.count("/") > 1:
        return None
    return number, parser.at


def parse(text: str) -> Expression | None:
    """The expression that the whole of ``text`` is, percentages as shares; None where it is none, or too long."""
    if len(text) > 1000:
        return None
    tokens = tokenise(text, 0, len(text))
    side = read_side(tokens, text, whole=True) if 0 < len(tokens) <= MAX_TOKENS else None
    return side.expression if side else None


def evaluate(text: str) -> Fraction | None:
    """The exact value of an expression such as ``3*(4+1)``, ``20% of 50``; None where it is none or too large.

    Percentages are shares: ``20%`` is 1/5.
    """
    expression = parse(text)
    return None if expression is None else value(expression)
