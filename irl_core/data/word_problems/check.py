"""The true first wrong step of any solution of a generated problem, and the kind of mistake.

A step is right when its equation is true *and* means something: each number names a quantity that is given or
computed before, and the expression agrees with a quantity of the problem for other random values of the givens.
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
Signature = tuple[Fraction, ...]


class MistakeKind(StrEnum):
    """What the first wrong step gets wrong."""

    SLIP = "slip of arithmetic"
    OPERAND = "wrong operand"
    OPERATION = "wrong operation"
    SKIPPED = "skipped step"
    QUANTITY = "wrong quantity answered"
    UNREADABLE = "unreadable"
    UNFINISHED = "unfinished"


def first_error(problem: WordProblem, text: str) -> Truth:
    """The first wrong step of ``text``, an index into ``segment(text)``'s steps, with its ``MistakeKind``.

    A correct solution is ``Truth(None)``. A text without any step has no step to blame:
    ``Truth(None, "unfinished")``. Never raises on any text.
    """
    steps = segment(text)[1]
    reading = Reading(_meaning(problem))
    for index, step in enumerate(steps):
        if step.role == "answer":
            return _judge_answer(problem, reading, index, step.text)
        for equation in stated_equations(step.text):
            mistake = reading.mistake(index, equation)
            if mistake:
                return reading.blame(index, mistake)
    return Truth(len(steps) - 1 if steps else None, MistakeKind.UNFINISHED, "no answer line")


def _judge_answer(problem: WordProblem, reading: Reading, index: int, text: str) -> Truth:
    words = text.replace("####", " ").replace("<", " ").replace(">", " ").split()
    stated = next((value for word in reversed(words) if (value := number(word)) is not None), None)
    if stated is None:
        return reading.blame(index, MistakeKind.UNREADABLE)
    if stated == int(problem.answer):
        return Truth(None)
    return reading.blame(index, MistakeKind.QUANTITY)


@dataclass(frozen=True, slots=True)
class Meaning:
    """A problem prepared for checking: names by value, values under each assignment, names by signature."""

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
        signatures[quantity.name] = _signature_of(quantity, signatures, rng)
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


def _signature_of(quantity: Quantity, known: Mapping[str, Signature], rng: random.Random) -> Signature:
    if quantity.role == "constant":
        return (Fraction(quantity.value),) * ASSIGNMENTS
    if quantity.role == "derived":
        return _combine(quantity.op, known[quantity.left], known[quantity.right]) or ()
    return tuple(Fraction(rng.randrange(1000, 1_000_000)) for _ in range(ASSIGNMENTS))


def _combine(op: str, left: Signature, right: Signature) -> Signature | None:
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
                    for op in _same_level(quantity.op)
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


def _same_level(op: str) -> str:
    return "+-" if op in "+-" else "*/"


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
    """What a solution has computed so far; ``pending`` are partial results that no right step has used yet."""

    meaning: Meaning
    computed: set[str] = field(default_factory=set)
    partial: dict[Fraction, Signature] = field(default_factory=dict)
    pending: dict[Fraction, tuple[int, MistakeKind]] = field(default_factory=dict)

    def mistake(self, index: int, equation: StatedEquation) -> MistakeKind | None:
        """What is wrong with one equation, None for a right one, which then counts as computed."""
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
        """The error at ``index``, or at the earlier partial result that no right step went on from."""
        return Truth(*min(self.pending.values(), default=(index, kind)))

    def _signature(self, expression: Expression) -> Signature | None:
        if isinstance(expression, Fraction):
            return self._resolve(expression)
        left, right = self._signature(expression.left), self._signature(expression.right)
        return None if left is None or right is None else _combine(expression.op, left, right)

    def _resolve(self, literal: Fraction) -> Signature | None:
        quantity = self.meaning.names.get(literal)
        if quantity and (quantity.role != "derived" or quantity.name in self.computed):
            return self.meaning.signatures[quantity.name]
        return self.partial.get(literal)

    def _kind(self, expression: Expression) -> MistakeKind:
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
        orders = [(left, right), (right, left)] if op in "+*" else [(left, right)]
        return op == quantity.op and any(
            self._stands_for(a, quantity.left) and self._stands_for(b, quantity.right) for a, b in orders
        )

    def _stands_for(self, name: str, wanted: str) -> bool:
        return name == wanted or (wanted not in self.computed and name in self.meaning.inputs[wanted])
