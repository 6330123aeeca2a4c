"""Filters as an expression: ``score < -2 and family == "rates"``. Read by Python's parser, never run. No streamlit."""

from __future__ import annotations

import ast
import difflib
import operator
import re
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from app.analysis.catalogue import VERDICT, VERDICT_STEP
from irl_core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_CHARACTERS: Final = 500
MOST_DEPTH: Final = 20
# What can be asked for, and the column of a run's index that it is. Steps count from 1 here, as everywhere one reads.
NAMES: Final = {
    "score": "score_mean_discounted", "lowest_reward": "score_min", "lowest_credit": "score_credit_minimum",
    "log_prob": "log_prob_mean", "confidence": "confidence", "verdict": VERDICT, "verdict_step": VERDICT_STEP,
    "kind": "kind", "true_step": "true_first_error_step", "familiar": "familiar", "cannot_judge": "cannot_judge",
    "false_equations": "arithmetic_false", "family": "family", "length": "length", "steps": "n_steps",
    "correct": "correct", "source": "source", "finished": "finished", "problem": "problem_id",
}  # fmt: skip
NEUTRAL: Final = {"family", "length", "steps", "correct", "source", "finished", "problem"}
TEXTS: Final = {"verdict", "kind", "family", "source", "problem"}
FLAGS: Final = {"familiar", "cannot_judge", "correct", "finished"}
COUNTED_FROM_1: Final = {"true_step", "verdict_step"}
COMPARISONS: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip
EXAMPLE: Final = 'score < -2 and family == "rates"'
CUT: Final = "\u2026"
NEAR: Final = 12  # characters of an expression that are shown from where it can no longer be read
Value = str | float | int | bool | None


class ExpressionError(UserError, ValueError):
    """An expression that is not read; the message names the part, and what is expected there."""


@dataclass(frozen=True, slots=True)
class Read:
    """An expression as a filter of a run's index.

    Attributes:
        filter: the ``pyarrow.dataset`` expression.
        telling: whether it says something of the model's answer or the label.
    """

    filter: Any
    telling: bool


def read(text: str) -> Read:
    """Read an expression: comparisons of the ``NAMES`` with numbers, texts, True, False, None or each other, joined by
    ``and``, ``or`` and ``not``; also ``kind in ("a", "b")``.

    Raises:
        ExpressionError: it is too long, or a part of it is something else.
    """
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(f"The expression has {len(text):,} characters; the limit is {MOST_CHARACTERS}.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        equal = "'is equal' is written ==; " if re.search(r"(?<![<>=!])=(?!=)", text) else ""
        near = _near(text.strip(), error)
        raise ExpressionError(
            f"The expression is not complete, or not one, {near}; {equal}an example: {EXAMPLE}"
        ) from None
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return Read(_condition(tree, 0), not used <= NEUTRAL)


def both(first: str, second: str) -> str:
    """An expression that asks for what two others ask for together; the second where the first is empty.

    Raises:
        SyntaxError: one of the two is none.
    """
    if not first.strip():
        return second
    parts: dict[str, ast.expr] = {}  # by its words: the same condition twice is once
    for text in (first, second):
        tree = ast.parse(text.strip(), mode="eval").body
        joined = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
        parts |= {ast.unparse(one): one for one in joined}
    return " and ".join(f"({words})" if isinstance(one, ast.BoolOp) else words for words, one in parts.items())


def _condition(node: ast.expr, depth: int) -> Any:
    if depth > MOST_DEPTH:
        raise ExpressionError(f"The expression is nested more than {MOST_DEPTH} deep.")
    if isinstance(node, ast.BoolOp):
        joined = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        return reduce(joined, (_condition(part, depth + 1) for part in node.values))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_condition(node.operand, depth + 1)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        parts = [
            _comparison(left, op, right) for left, op, right in zip(sides, node.ops, sides[1:], strict=False)
        ]  # fmt: skip
        return reduce(operator.and_, parts)
    if isinstance(node, ast.Name):  # `correct`, `not finished`
        return _column(node) == True  # noqa: E712 - an expression of pyarrow, not a bool
    raise ExpressionError(f"{_shown(node)} is no condition; compare a name with a value, as in {EXAMPLE}")


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
    if not isinstance(left, ast.Name):
        if not isinstance(right, ast.Name) or type(op) not in COMPARISONS:
            raise ExpressionError(f"{_shown(left)} is no name that is compared{_meant(ast.unparse(left))}")
        value = _value(left, right.id)
        if value is None:
            raise ExpressionError(f"None stands on the right: {right.id} == None")
        return COMPARISONS[type(op)](value, _column(right))
    column = _column(left)
    if isinstance(op, ast.In | ast.NotIn):
        if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
            raise ExpressionError(f'{_shown(right)} is no list of values; {left.id} in ("a", "b") is expected')
        found = reduce(operator.or_, (column == _value(one, left.id) for one in right.elts))
        return found if isinstance(op, ast.In) else ~found
    if isinstance(right, ast.Name):
        other = _column(right)
        if type(op) not in COMPARISONS or kind_of(left.id) != kind_of(right.id):
            kinds = f"{left.id} is a {kind_of(left.id)}, {right.id} a {kind_of(right.id)}"
            raise ExpressionError(f"{left.id} and {right.id} cannot be compared so: {kinds}")
        return COMPARISONS[type(op)](column, other)
    value = _value(right, left.id)
    if value is None and isinstance(op, ast.Eq | ast.Is):
        return column.is_null()
    if value is None and isinstance(op, ast.NotEq | ast.IsNot):
        return ~column.is_null()
    if type(op) not in COMPARISONS or value is None:
        raise ExpressionError(f"{left.id} is compared by <, <=, ==, !=, >=, > or in, with a value")
    return COMPARISONS[type(op)](column, value)


def kind_of(name: str) -> str:
    """What a name's values are, in words."""
    return "text" if name in TEXTS else "yes-or-no" if name in FLAGS else "number"


def _column(node: ast.Name) -> Any:
    import pyarrow.compute as pc

    if node.id not in NAMES:
        raise ExpressionError(f"{node.id[:40]!r} is not known{_meant(node.id)}")
    return pc.field(NAMES[node.id])


def _value(node: ast.expr, name: str) -> Value:
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node, sign = node.operand, -1
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str | float | int | None):
        raise ExpressionError(
            f"{_shown(node)} is no value; a number, a text in quotes, True, False or None is expected"
        )
    if sign < 0 and (isinstance(node.value, bool | str) or node.value is None):
        raise ExpressionError(f"{_shown(node)} has no opposite")
    kind = "yes-or-no" if isinstance(node.value, bool) else "text" if isinstance(node.value, str) else "number"
    if node.value is not None and name in NAMES and kind != kind_of(name):
        said = ast.unparse(node)[:40]
        raise ExpressionError(f"{name} is a {kind_of(name)}, {said} a {kind}: they cannot be compared")
    value: Value = node.value if sign > 0 else -node.value  # type: ignore[operator]
    if name in COUNTED_FROM_1 and isinstance(value, int) and not isinstance(value, bool):
        value -= 1
    return value


def _near(text: str, error: Exception) -> str:
    """Where an expression can no longer be read."""
    place = (error.offset or 0) - 1 if isinstance(error, SyntaxError) else -1
    words = text[max(place, 0) :]
    if place < 0 or not words:
        return "at its end"
    return f"near {(words if len(words) <= NEAR else words[:NEAR] + CUT)!r}"


def _meant(name: str) -> str:
    """The names that a word which is none is closest to."""
    close = difflib.get_close_matches(name, NAMES, 3)
    return f"; did you mean {' or '.join(close)}?" if close else "; the ? beside the field lists the names"


def _shown(node: ast.expr) -> str:
    text = ast.unparse(node)
    return repr(text if len(text) <= 40 else text[:39] + CUT)
