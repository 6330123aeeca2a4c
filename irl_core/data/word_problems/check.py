"""Checker of solutions of generated problems: the first wrong step and the kind of mistake.

A step is correct when its equation is true *and* meaningful: each number names a quantity that was given or computed
before, and the expression equals a quantity of the problem under other random values of the given numbers too.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache

from irl_core.data.word_problems.quantities import Quantity, WordProblem
from irl_core.data.word_problems.stated import StatedEquation, number, stated_equations
from irl_core.text.expressions import Expression, apply, literals, value
from irl_core.text.segmentation import segment
from irl_core.types import Truth

ASSIGNMENTS = 3
Signature = tuple[Fraction, ...]  # the values of an expression under each assignment of random numbers to the givens


class MistakeKind(StrEnum):
    """The kind of mistake of the first wrong step."""

    SLIP = "slip of arithmetic"
    OPERAND = "wrong operand"
    OPERATION = "wrong operation"
    SKIPPED = "skipped step"
    QUANTITY = "wrong quantity answered"
    UNREADABLE = "unreadable"
    UNFINISHED = "unfinished"


def first_error(problem: WordProblem, text: str) -> Truth:
    """The first wrong step of ``text``, an index into ``segment(text)``'s steps, with its ``MistakeKind``.

    A correct solution gives ``Truth(None)``, a text without any step ``Truth(None, "unfinished")``. Does not raise,
    whatever the text.
    """
    steps = segment(text)[1]
    reading = Reading(_meaning(problem))
    for index, step in enumerate(steps):
        if step.role == "answer":
            return _check_answer(problem, reading, index, step.text)
        for equation in stated_equations(step.text):
            mistake = reading.mistake(index, equation)
            if mistake:
                return reading.blame(index, mistake)
    return Truth(len(steps) - 1 if steps else None, MistakeKind.UNFINISHED, "no answer line")


def _check_answer(problem: WordProblem, reading: Reading, index: int, text: str) -> Truth:
    """The verdict on a solution whose reasoning steps are correct, by its answer step."""
    words = text.replace("####", " ").replace("<", " ").replace(">", " ").split()
    stated = next((parsed for word in reversed(words) if (parsed := number(word)) is not None), None)
    if stated is None:
        return reading.blame(index, MistakeKind.UNREADABLE)
    if stated == int(problem.answer):
        return Truth(None)
    return reading.blame(index, MistakeKind.QUANTITY)


@dataclass(frozen=True, slots=True)
class Meaning:
    """A problem prepared for checking.

    Attributes:
        names: the quantity of each value, under the problem's own numbers.
        quantities: by name.
        signatures: by the quantity's name.
        derived: the name of the quantity of each signature.
        rearranged: signatures of intermediate results that a correct solution may compute instead.
        inputs: by the name of a quantity, all those that it is computed from, directly or not.
    """

    names: Mapping[Fraction, Quantity]
    quantities: Mapping[str, Quantity]
    signatures: Mapping[str, Signature]
    derived: Mapping[Signature, str]
    rearranged: frozenset[Signature]
    inputs: Mapping[str, frozenset[str]]


@lru_cache(maxsize=512)
def _meaning(problem: WordProblem) -> Meaning:
    rng = random.Random(problem.text)
    signatures: dict[str, Signature] = {}
    inputs: dict[str, frozenset[str]] = {}
    for quantity in problem.quantities:
        if quantity.role == "constant":
            signature = (Fraction(quantity.value),) * ASSIGNMENTS
        elif quantity.role == "derived":
            signature = _combine(quantity.op, signatures[quantity.left], signatures[quantity.right]) or ()
        else:
            signature = tuple(Fraction(rng.randrange(1000, 1_000_000)) for _ in range(ASSIGNMENTS))
        signatures[quantity.name] = signature
        sides = {quantity.left, quantity.right} - {""}
        inputs[quantity.name] = frozenset(sides).union(*(inputs[side] for side in sides))
    by_name = {quantity.name: quantity for quantity in problem.quantities}
    derived = {signature: name for name, signature in signatures.items()}
    return Meaning(
        names={Fraction(quantity.value): quantity for quantity in problem.quantities},
        quantities=by_name,
        signatures=signatures,
        derived=derived,
        rearranged=frozenset(_rearrangements(by_name, signatures)) - derived.keys(),
        inputs=inputs,
    )


def _combine(op: str, left: Signature, right: Signature) -> Signature | None:
    """``left op right`` under each assignment; None where one of them is undefined (a division by zero)."""
    values = [apply(op, a, b) for a, b in zip(left, right, strict=True)]
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _rearrangements(quantities: Mapping[str, Quantity], signatures: Mapping[str, Signature]) -> list[Signature]:
    """Intermediate results of the same computation in another order, as ``b+c`` for ``(a+b)+c``."""
    rearranged: list[Signature | None] = []
    for quantity in quantities.values():
        sides = [(quantity.left, quantity.right), (quantity.right, quantity.left)] if quantity.op else []
        for inner_name, outer in sides:
            inner = quantities[inner_name]
            if inner.op and (quantity.op in "+-") == (inner.op in "+-"):
                rearranged += [
                    _combine(op, signatures[part], signatures[outer])
                    for part in (inner.left, inner.right)
                    for op in ("+-" if quantity.op in "+-" else "*/")
                ]
                rearranged += [
                    _combine("-", signatures[outer], signatures[part])
                    for part in (inner.left, inner.right)
                    if quantity.op in "+-"
                ]
            elif inner.op and quantity.op in "*/":
                rearranged += [
                    _combine(quantity.op, signatures[part], signatures[quantity.right])
                    for part in (inner.left, inner.right)
                    if inner_name == quantity.left or quantity.op == "*"
                ]
        rearranged += _factored(quantity, quantities, signatures)
    return [signature for signature in rearranged if signature]


def _factored(
    quantity: Quantity, quantities: Mapping[str, Quantity], signatures: Mapping[str, Signature]
) -> list[Signature | None]:
    """``a+b`` for ``a*p + b*p``."""
    if quantity.op not in ("+", "-"):
        return []
    left, right = quantities[quantity.left], quantities[quantity.right]
    if left.op not in ("*", "/") or left.op != right.op:
        return []
    shared = {left.left, left.right} & {right.left, right.right}
    rest = [*({left.left, left.right} - shared), *({right.left, right.right} - shared)]
    return [_combine(quantity.op, signatures[rest[0]], signatures[rest[1]])] if len(rest) == 2 else []


@dataclass(slots=True)
class Reading:
    """What a solution has computed so far.

    Attributes:
        meaning: the problem.
        computed: names of the derived quantities computed so far.
        partial: rearranged intermediate results by value.
        pending: of those, the ones that no correct step has used yet: their step and what is wrong if none does.
    """

    meaning: Meaning
    computed: set[str] = field(default_factory=set)
    partial: dict[Fraction, Signature] = field(default_factory=dict)
    pending: dict[Fraction, tuple[int, MistakeKind]] = field(default_factory=dict)

    def mistake(self, index: int, equation: StatedEquation) -> MistakeKind | None:
        """The mistake in one equation; None for a correct one, whose result then counts as computed."""
        expression = equation.expression
        if expression is None or equation.stated is None:
            return MistakeKind.UNREADABLE
        if value(expression) != equation.stated or equation.repeated not in (None, equation.stated):
            return MistakeKind.SLIP
        signature = self._signature(expression)
        if signature is not None and signature in self.meaning.derived:
            self.computed.add(self.meaning.derived[signature])
        elif signature is not None and signature in self.meaning.rearranged:
            self.partial[equation.stated] = signature
            self.pending.setdefault(equation.stated, (index, self._kind(expression)))
        else:
            return self._kind(expression)
        for literal in literals(expression):
            self.pending.pop(literal, None)
        return None

    def blame(self, index: int, kind: MistakeKind) -> Truth:
        """The error at ``index``, or at the earliest pending partial result before it."""
        return Truth(*min(self.pending.values(), default=(index, kind)))

    def _signature(self, expression: Expression) -> Signature | None:
        """The signature of an expression; None where it names a number that is neither given nor computed."""
        if isinstance(expression, Fraction):
            quantity = self.meaning.names.get(expression)
            if quantity and (quantity.role != "derived" or quantity.name in self.computed):
                return self.meaning.signatures[quantity.name]
            return self.partial.get(expression)
        left, right = self._signature(expression.left), self._signature(expression.right)
        return None if left is None or right is None else _combine(expression.op, left, right)

    def _kind(self, expression: Expression) -> MistakeKind:
        """The kind of mistake of a true equation that means nothing."""
        named = [self.meaning.names.get(literal) for literal in literals(expression)]
        if any(one and one.role == "derived" and one.name not in self.computed for one in named):
            return MistakeKind.SKIPPED
        if isinstance(expression, Fraction) or len(named) != 2 or None in named:
            return MistakeKind.OPERAND
        left, right = (one.name for one in named if one)
        open_ = [q for q in self.meaning.quantities.values() if q.op and q.name not in self.computed]
        if any({left, right} == {quantity.left, quantity.right} for quantity in open_):
            return MistakeKind.OPERATION
        if any(self._skips(quantity, expression.op, left, right) for quantity in open_):
            return MistakeKind.SKIPPED
        return MistakeKind.OPERAND

    def _skips(self, quantity: Quantity, op: str, left: str, right: str) -> bool:
        """Whether ``left op right`` computes ``quantity`` with a step left out."""
        orders = [(left, right), (right, left)] if op in "+*" else [(left, right)]
        return op == quantity.op and any(
            self._stands_for(a, quantity.left) and self._stands_for(b, quantity.right) for a, b in orders
        )

    def _stands_for(self, name: str, wanted: str) -> bool:
        return name == wanted or (wanted not in self.computed and name in self.meaning.inputs[wanted])
