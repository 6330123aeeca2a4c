"""Arithmetic expressions as people write them, read by a lexer and a recursive-descent parser, exactly.

Length, depth and the size of numbers are bounded; nothing is ever executed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

MAX_TOKENS = 48  # a side of an equation
MAX_DIGITS = 30
MAX_EXPONENT = 20
MAX_BITS = 4096
MAX_UNIT_WORDS = 3

PercentReading = Literal["share", "plain"]  # 20% as 1/5, or as 20

_LEXEMES = re.compile(
    r"(?P<note><<[^<>\r\n]{1,200}>>)"
    r"|(?P<line>[\r\n]+)"
    r"|(?P<skip>\\left|\\right|\\boxed\{|\\[,!;()\[\]]|\.{3}|…|(?<![0-9)])\*\*|\*\*(?![0-9(])|\\?[$€£])"
    r"|(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<bad><=|>=|!=|=>|->|≠|<|>)"
    r"|(?P<equals>=+|≈|≅)"
    r"|(?P<percent>\\?%|percent\b)"
    r"|(?P<per>/[ ]?[A-Za-z]+)"
    r"|(?P<operator>\\times|\\cdot|\\div|\*\*|[-+*/^×÷·∗−–]|[xX](?=[ \t]?[\\$€£(]{0,3}[ \t]?\.?[0-9]))"
    r"|(?P<of>of\b)"
    r"|(?P<open>\()|(?P<close>\))"
    r"|(?P<power>[²³])"
    r"|(?P<word>[^\W\d_]+(?:['’-][^\W\d_]+)*)"
    r"|(?P<blank>[^\S\r\n]+)"
    r"|(?P<other>[\s\S])"
)
_OPERATORS = {"\\times": "*", "×": "*", "·": "*", "∗": "*", "x": "*", "X": "*", "\\cdot": "*"} | {
    "\\div": "/",
    "÷": "/",
    "−": "-",
    "–": "-",
    "**": "^",
}
_IGNORED = {"note", "skip", "blank"}


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    start: int
    end: int
    spaced: bool  # a blank, or nothing, stands before it
    first: bool  # first of its line


class NoParse(Exception):
    """The tokens are no expression."""


# ---------------------------------------------------------------- lexer


def _kind(found: re.Match[str]) -> str:
    kind = found.lastgroup or "other"
    if kind == "number" and len(found[0]) > MAX_DIGITS:
        return "other"
    return kind


def tokenise(text: str, start: int, end: int) -> list[Token]:
    """The tokens of ``text[start:end]`` that matter; a bullet at the start of a line is none."""
    tokens: list[Token] = []
    spaced, first = True, True
    for found in _LEXEMES.finditer(text, start, end):
        kind = _kind(found)
        if kind == "line":
            spaced, first = True, True
        bullet = first and kind == "operator" and text[found.end() : found.end() + 1].isspace()
        if kind in _IGNORED or bullet:
            spaced = spaced or kind != "skip"
            continue
        tokens.append(Token(kind, _OPERATORS.get(found[0], found[0]), found.start(), found.end(), spaced, first))
        spaced = False
        first = kind == "line"
    return tokens


def _is_unit(token: Token, before: Token) -> bool:
    """Whether a word after a number can be its unit: not a variable such as the y of 2y."""
    apart = token.spaced or before.kind != "word"
    return (token.kind == "per" and token.text[-2] not in "/ ") or (
        token.kind == "word" and len(token.text) > 1 and apart
    )


# ---------------------------------------------------------------- parser


@dataclass(slots=True)
class _Parser:
    """Recursive descent over one window of tokens: sum > product > power > number or parenthesis."""

    tokens: Sequence[Token]
    percent: PercentReading = "share"
    at: int = 0
    operators: int = 0
    bare_percent: bool = False  # the last product was nothing but a percentage
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
        if self.kind() == "operator" and self.tokens[self.at].text in signs and self.operand_follows():
            self.operators += 1
            return self.take().text
        return None

    def operand_follows(self) -> bool:
        after = self.kind(1)
        signed = after == "operator" and self.tokens[self.at + 1].text == "-" and self.kind(2) == "number"
        return after in ("number", "open") or signed

    def sum(self) -> Fraction:
        total = self.product()
        while sign := self.operator("+-"):
            term = self.product()
            relative = self.bare_percent and self.percent == "share" and abs(total) > 1
            term = total * term if relative else term  # 50 - 10% is 10 % less than 50
            total = total + term if sign == "+" else total - term
            self.bare_percent = False
        return total

    def product(self) -> Fraction:
        value = self.power()
        bare = self.bare_percent
        while True:
            sign = self.operator("*/")
            if sign is None and not self.implicit():
                break
            factor = self.fraction() if sign == "/" and self.tight_fraction() else self.power()
            if sign == "/" and factor == 0:
                raise NoParse
            value = value / factor if sign == "/" else value * factor
            bare = False
        self.bare_percent = bare
        return value

    def tight_fraction(self) -> bool:
        """'25 / 1/3' divides by a third."""
        window = self.tokens[self.at : self.at + 3]
        shape = [token.kind for token in window] == ["number", "operator", "number"]
        return shape and window[0].spaced and window[1].text == "/" and not (window[1].spaced or window[2].spaced)

    def fraction(self) -> Fraction:
        over, under = self.take(), (self.take(), self.take())[1]
        if not Fraction(under.text.replace(",", "")):
            raise NoParse
        return self.scaled(Fraction(over.text.replace(",", "")) / Fraction(under.text.replace(",", "")))

    def implicit(self) -> bool:
        """'20% of 50', '1/2 of 8', '2(3+4)': a product without a sign."""
        before = self.tokens[self.at - 1]
        if self.kind() == "of" and self.kind(1) in ("number", "open"):
            fraction = self.at > 1 and self.tokens[self.at - 2].text == "/"
            if before.kind != "percent" and not fraction:
                return False
            self.take()
        elif not (self.kind() == "open" and not self.tokens[self.at].spaced and before.kind in ("number", "close")):
            return False
        self.operators += 1
        return True

    def power(self) -> Fraction:
        base = self.atom()
        if self.kind() == "power":
            return _power(base, Fraction("²³".index(self.take().text) + 2))
        if self.operator("^"):
            return _power(base, self.power())
        return base

    def atom(self) -> Fraction:
        if self.kind() == "operator" and self.tokens[self.at].text == "-" and self.kind(1) in ("number", "open"):
            self.take()
            return -self.atom()
        if self.kind() == "open":
            self.take()
            value = self.sum()
            self.units(closing=True)
            if self.kind() != "close":
                raise NoParse
            self.take()
        elif self.kind() == "number":
            value = self.number()
        else:
            raise NoParse
        return self.scaled(value)

    def number(self) -> Fraction:
        """A number, or a mixed one: '1 1/2', '1 and 1/2'."""
        value = Fraction(self.take().text.replace(",", ""))
        joined = int(self.kind() == "word" and self.tokens[self.at].text == "and")
        window = self.tokens[self.at + joined : self.at + joined + 3]
        if [token.kind for token in window] != ["number", "operator", "number"] or window[1].text != "/":
            return value
        over, under = window[0].text, window[2].text
        proper = over.isdecimal() and under.isdecimal() and 0 < int(over) < int(under)
        if not proper or value.denominator != 1 or not window[0].spaced:
            return value
        for _ in range(joined + 3):
            self.take()
        return value + Fraction(int(over), int(under))

    def scaled(self, value: Fraction) -> Fraction:
        self.bare_percent = self.kind() == "percent"
        if self.bare_percent:
            self.take()
            value = value / 100 if self.percent == "share" else value
        self.units(closing=False)
        return value

    def units(self, closing: bool) -> None:
        """Pass over unit words, where an operator, '=' or ')' follows them."""
        ahead = 0
        while self.kind(ahead) in ("word", "per") and ahead < MAX_UNIT_WORDS:
            if not _is_unit(self.tokens[self.at + ahead], self.tokens[self.at + ahead - 1]):
                return
            if ahead == 0 and not self.tokens[self.at].spaced and len(self.tokens[self.at].text) == 1:
                return
            ahead += 1
        if self.kind(ahead) in ("operator", "end", "close") and not (closing and self.kind(ahead) != "close"):
            joined = self.kind(ahead) != "operator" or self.kind(ahead + 1) in ("number", "open", "per")
            if joined:
                self.unit_words += ahead
                self.at += ahead


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT or (base == 0 and exponent < 0):
        raise NoParse
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if size * abs(int(exponent)) > MAX_BITS:
        raise NoParse
    return Fraction(base ** int(exponent))


@dataclass(frozen=True, slots=True)
class Side:
    """One side of an equation: its value under each reading of percent signs, its span, what it is made of."""

    values: tuple[Fraction, ...]
    start: int
    end: int
    operators: int
    unit_words: int
    source: str


def parse(tokens: Sequence[Token], text: str, whole: bool) -> Side | None:
    """The expression at the start of the tokens; with ``whole`` it must use them all. None where there is none."""
    if not tokens:
        return None
    readings: tuple[PercentReading, ...] = ("share", "plain")
    has_percent = any(token.kind == "percent" for token in tokens)
    values: list[Fraction] = []
    parser = _Parser(tokens)
    for reading in readings if has_percent else readings[:1]:
        parser = _Parser(tokens, reading)
        try:
            values.append(parser.sum())
        except NoParse:
            return None
    if whole and parser.at != len(tokens):
        return None
    start, end = tokens[0].start, parser.last_end
    return Side(tuple(values), start, end, parser.operators, parser.unit_words, text[start:end])


def evaluate(expression: str) -> Fraction | None:
    """The exact value of an expression such as ``3*(4+1)``, ``20% of 50``; None where it is none or too large.

    Percentages are shares: ``20%`` is 1/5.
    """
    tokens = tokenise(expression, 0, min(len(expression), 1000))
    if len(tokens) > MAX_TOKENS or len(expression) > 1000:
        return None
    side = parse(tokens, expression, whole=True)
    return side.values[0] if side else None
