"""The equations that one step of a solution states, with their expressions: parsed exactly, never run as code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from irl_core.text.expressions import Expression, literals, parse

MAX_CHARACTERS = 120
MAX_NUMBER = 12  # characters

_ANNOTATION = re.compile(r"<<([^<>\n]*)>>[ \t]*\$?[ \t]*(-?\d[\d,.]{0,20})?")
_BARE = re.compile(r"(?<![\w.])\$?[\d(][\d\s.,$()+\-*/x×÷−]{0,80}=\s{0,3}\$?\s{0,3}-?\d[\d,.]{0,20}")
_FOUR_OPERATIONS = re.compile(r"(?!.*\*\s*\*)[0-9\s.,$()+\-*/x×÷−]+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class StatedEquation:
    """``expression = stated`` and, for ``<<..>>``, the number after it; ``expression`` None means unreadable."""

    expression: Expression | None
    stated: Fraction | None
    repeated: Fraction | None = None


def stated_equations(text: str) -> list[StatedEquation]:
    """The equations of one step in order: those in ``<<..>>`` or, where it has none, bare ``a*b=c``."""
    if "<<" not in text:
        return [_equation(match.group(), None) for match in _BARE.finditer(text)]
    noted = [(match.group(1), match.group(2)) for match in _ANNOTATION.finditer(text)]
    equations = [_equation(inside, None if behind is None else number(behind)) for inside, behind in noted]
    return equations or [StatedEquation(None, None)]


def _equation(text: str, repeated: Fraction | None) -> StatedEquation:
    if len(text) > MAX_CHARACTERS or text.count("=") != 1:
        return StatedEquation(None, None)
    left, right = text.split("=")
    return StatedEquation(four_operations(left), number(right), repeated)


def four_operations(text: str) -> Expression | None:
    """The expression in ``text``: non-negative numbers joined by ``+ - * /``; None where it is anything else."""
    if not _FOUR_OPERATIONS.fullmatch(text):
        return None
    expression = parse(text.replace("$", " "))
    too_long = expression is not None and any(len(str(literal)) > MAX_NUMBER for literal in literals(expression))
    return None if expression is None or too_long or min(literals(expression)) < 0 else expression


def number(text: str) -> Fraction | None:
    """``1,000`` or ``2.5`` as an exact fraction; None where it is no number of at most ``MAX_NUMBER`` characters."""
    digits = text.strip().rstrip(".,").replace(",", "").lstrip("$ ")
    if len(digits) > MAX_NUMBER or not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", digits):
        return None
    return Fraction(digits)
