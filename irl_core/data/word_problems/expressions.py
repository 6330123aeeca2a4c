"""Equations in the text of a solution, parsed exactly and with bounds: never evaluated as code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from irl_core.data.word_problems.quantities import apply

MAX_CHARACTERS = 120
MAX_NUMBER = 12
MAX_DEPTH = 20

_ANNOTATION = re.compile(r"<<([^<>\n]*)>>[ \t]*\$?[ \t]*(-?\d[\d,.]{0,20})?")
_BARE = re.compile(r"(?<![\w.])\$?[\d(][\d\s.,$()+\-*/x×÷−]{0,80}=\s{0,3}\$?\s{0,3}-?\d[\d,.]{0,20}")
_TOKEN = re.compile(r"\s*(?:(\d[\d,]*(?:\.\d+)?)|([-+*/()]))")
_PLAIN = str.maketrans({"×": "*", "x": "*", "÷": "/", "−": "-", "$": " "})


@dataclass(frozen=True, slots=True)
class Operation:
    """``left op right``; each side is a literal number or another operation."""

    op: str
    left: Expression
    right: Expression


Expression = Fraction | Operation


@dataclass(frozen=True, slots=True)
class Equation:
    """``expression = stated`` and, for ``<<..>>``, the number after it; ``expression`` None means unreadable."""

    expression: Expression | None
    stated: Fraction | None
    repeated: Fraction | None = None


def equations(text: str) -> list[Equation]:
    """The equations of one step in order: those in ``<<..>>`` or, where it has none, bare ``a*b=c``."""
    if "<<" in text:
        found = [_annotated(match) for match in _ANNOTATION.finditer(text)]
        return found or [Equation(None, None)]
    return [_equation(match.group(), None) for match in _BARE.finditer(text)]


def number(text: str) -> Fraction | None:
    """``1,000`` or ``2.5`` as an exact fraction; None where it is no number of at most ``MAX_NUMBER`` digits."""
    digits = text.strip().rstrip(".,").replace(",", "").lstrip("$ ")
    if len(digits) > MAX_NUMBER or not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", digits):
        return None
    return Fraction(digits)


def parse(text: str) -> Expression | None:
    """The expression in ``text``, or None where it is not one (or is longer or deeper than the limits)."""
    tokens = _tokens(text)
    if not tokens:
        return None
    position, expression = _sum(tokens, 0, 0)
    return expression if position == len(tokens) else None


def value(expression: Expression) -> Fraction | None:
    """The exact value of an expression; None for a division by zero."""
    if isinstance(expression, Fraction):
        return expression
    left, right = value(expression.left), value(expression.right)
    return None if left is None or right is None else apply(expression.op, left, right)


def literals(expression: Expression) -> list[Fraction]:
    """The numbers in an expression, from left to right."""
    if isinstance(expression, Fraction):
        return [expression]
    return literals(expression.left) + literals(expression.right)


def _annotated(match: re.Match[str]) -> Equation:
    repeated = match.group(2)
    return _equation(match.group(1), None if repeated is None else number(repeated))


def _equation(text: str, repeated: Fraction | None) -> Equation:
    if len(text) > MAX_CHARACTERS or text.count("=") != 1:
        return Equation(None, None)
    left, right = text.split("=")
    return Equation(parse(left), number(right), repeated)


def _tokens(text: str) -> list[str]:
    plain = text.translate(_PLAIN).strip()
    found: list[str] = []
    position = 0
    while position < len(plain) and len(plain) <= MAX_CHARACTERS:
        match = _TOKEN.match(plain, position)
        if match is None:
            return []
        found.append(match.group().strip())
        position = match.end()
    return found


def _sum(tokens: list[str], position: int, depth: int) -> tuple[int, Expression | None]:
    position, left = _product(tokens, position, depth)
    while left is not None and position < len(tokens) and tokens[position] in "+-":
        op = tokens[position]
        position, right = _product(tokens, position + 1, depth)
        left = None if right is None else Operation(op, left, right)
    return position, left


def _product(tokens: list[str], position: int, depth: int) -> tuple[int, Expression | None]:
    position, left = _atom(tokens, position, depth)
    while left is not None and position < len(tokens) and tokens[position] in "*/":
        op = tokens[position]
        position, right = _atom(tokens, position + 1, depth)
        left = None if right is None else Operation(op, left, right)
    return position, left


def _atom(tokens: list[str], position: int, depth: int) -> tuple[int, Expression | None]:
    if position >= len(tokens) or depth > MAX_DEPTH:
        return position, None
    if tokens[position] == "(":
        position, inside = _sum(tokens, position + 1, depth + 1)
        closed = position < len(tokens) and tokens[position] == ")"
        return position + 1, inside if closed else None
    return position + 1, number(tokens[position])
