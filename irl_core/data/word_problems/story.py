"""A word problem under construction: distinct numbers, derived quantities, sentences and solution lines."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from irl_core.data.word_problems.quantities import Quantity, Role, WordProblem, needed
from irl_core.data.word_problems.words import PEOPLE, Person, Thing

MAX_VALUE = 120
MOSTLY_AT_MOST = 60
UNITS = (7, 10, 12, 60, 100)


class Rejected(Exception):
    """The numbers drawn do not make an easy, unambiguous problem; draw again."""


@dataclass(frozen=True, slots=True)
class Computed:
    """``left op right``, not yet a quantity of the story."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Node:
    """A quantity of the story; formatted as its value, combined with another by an operator."""

    name: str
    value: int

    def __str__(self) -> str:
        return str(self.value)

    def __add__(self, other: Node) -> Computed:
        return Computed("+", self, other)

    def __sub__(self, other: Node) -> Computed:
        return Computed("-", self, other)

    def __mul__(self, other: Node) -> Computed:
        return Computed("*", self, other)

    def __truediv__(self, other: Node) -> Computed:
        return Computed("/", self, other)


class Story:
    """The state of one problem while a family writes it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.quantities: list[Quantity] = []
        self.used: set[int] = set()
        self.wordings: dict[str, str] = {}
        self.sentences: list[str] = []
        self.asides: list[str] = []
        self.question = ""
        self.target = ""
        self._people = list(PEOPLE)
        self._declared = 0

    # numbers
    def draw(self, low: int, high: int, step: int = 1) -> Node:
        """A given number in ``low..high`` that no other quantity of the story has."""
        return self._declare(self._free(low, high, step), "given")

    def divisor(self, of: Node, low: int = 2, high: int = 12) -> Node:
        """A given number that divides another without rest, with a new and easy quotient."""
        fits = [n for n in range(low, high + 1) if n not in self.used and of.value % n == 0]
        easy = [n for n in fits if of.value // n not in self.used | {n} and _in_tables(of.value // n, n)]
        if not easy:
            raise Rejected
        return self._declare(self.rng.choice(easy), "given")

    def given(self, value: int) -> Node:
        """A given number of this value."""
        return self._declare(value, "given")

    def forget(self, node: Node) -> None:
        """Remove a number that the text does not state after all."""
        self.quantities = [quantity for quantity in self.quantities if quantity.name != node.name]
        self.used.discard(node.value)

    def constant(self, value: int) -> Node:
        """A number fixed by its meaning: days in a week, the 2 of 'half', minutes in an hour."""
        known = next((q for q in self.quantities if q.role == "constant" and q.value == value), None)
        return Node(known.name, value) if known else self._declare(value, "constant")

    def derive(self, computed: Computed, *wordings: str) -> Node:
        """A derived quantity, with at most two wordings of its solution line, in which ``{}`` is the equation."""
        value = _easy(computed)
        if value > MAX_VALUE or (value > MOSTLY_AT_MOST and self.rng.random() < 0.8):
            raise Rejected
        node = self._declare(value, "derived", computed)
        self.wordings[node.name] = self.pick(*wordings)
        return node

    # words
    def pick(self, *options: str) -> str:
        """One of the options, at random."""
        return options[int(self.rng.random() * len(options))]

    def pick_pair(self, *options: tuple[Node, str]) -> tuple[Node, str]:
        """One of the named quantities, at random."""
        return self.rng.choice(options)

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.rng.random() < share

    def person(self) -> Person:
        """Somebody who is not in the story yet."""
        return self._people.pop(int(self.rng.random() * len(self._people)))

    def things(self, kinds: Sequence[Thing], count: int) -> list[Thing]:
        """``count`` different things."""
        return self.rng.sample(kinds, count)

    def say(self, *variants: str) -> None:
        """Add the next sentence, in one of its variants."""
        self.sentences.append(self.pick(*variants))

    def facts(self, *sentences: str) -> None:
        """Add sentences whose order does not matter, shuffled."""
        shuffled = list(sentences)
        self.rng.shuffle(shuffled)
        self.sentences += shuffled

    def aside(self, *variants: str, low: int = 2, high: int = 40, share: float = 0.6) -> None:
        """Add, with probability ``share``, a true sentence with a number (``{}``) that nothing needs."""
        if self.rng.random() < share:
            number = self._declare(self._free(low, high, 1), "distractor")
            self.asides.append(self.pick(*variants).replace("{}", str(number)))

    def ask(self, target: Node, *variants: str) -> None:
        """Set the question, in one of its variants, and the quantity that answers it."""
        self.question, self.target = self.pick(*variants), target.name

    def finish(self, problem_id: str, family: str) -> WordProblem:
        """The finished problem.

        Raises:
            Rejected: its solution has fewer than two or more than six steps.
        """
        route = needed(self.quantities, self.target)
        if not 2 <= len(route) <= 6:
            raise Rejected
        sentences = list(self.sentences)
        for aside in self.asides:
            sentences.insert(self.rng.randint(1, len(sentences)), aside)
        text = " ".join([*sentences, self.question])
        kept = self._kept(route, set(re.findall(r"\d+", text)))
        answer = str(next(quantity.value for quantity in route if quantity.name == self.target))
        values = {quantity.name: quantity.value for quantity in self.quantities}
        lines = []
        for quantity in route:
            left, right, value = values[quantity.left], values[quantity.right], quantity.value
            equation = f"<<{left}{quantity.op}{right}={value}>>{value}"
            lines.append(self.wordings[quantity.name].replace("{}", equation))
        solution = "\n".join([*lines, f"#### {answer}"])
        return WordProblem(problem_id, family, text, solution, answer, self.target, kept)

    def _kept(self, route: list[Quantity], stated: set[str]) -> tuple[Quantity, ...]:
        """The quantities that the solution uses and, as distractors, the other numbers that the text states."""
        inputs = {name for quantity in route for name in (quantity.left, quantity.right)}
        kept: list[Quantity] = []
        for quantity in self.quantities:
            if quantity in route or quantity.name in inputs:
                kept.append(quantity)
            elif quantity.role != "derived" and str(quantity.value) in stated:
                role: Role = "constant" if quantity.role == "constant" else "distractor"
                kept.append(Quantity(quantity.name, quantity.value, role))
        return tuple(kept)

    def _free(self, low: int, high: int, step: int) -> int:
        for _ in range(20):
            value = low + step * int(self.rng.random() * ((high - low) // step + 1))
            if value not in self.used:
                return value
        raise Rejected

    def _declare(self, value: int, role: Role, computed: Computed | None = None) -> Node:
        if value in self.used:
            raise Rejected
        self.used.add(value)
        self._declared += 1
        name = f"{role[0]}{self._declared}"
        if computed:
            self.quantities.append(Quantity(name, value, role, computed.op, computed.left.name, computed.right.name))
        else:
            self.quantities.append(Quantity(name, value, role))
        return Node(name, value)


def _easy(computed: Computed) -> int:
    """The value of an operation easy enough for mental arithmetic: times tables, exact divisions, nothing below 2.

    Raises:
        Rejected: any other operation.
    """
    left, right = computed.left.value, computed.right.value
    if computed.op == "+":
        return left + right
    if computed.op == "-":
        value = left - right
    elif computed.op == "*":
        value = left * right if _in_tables(left, right) else 0
    else:
        exact = left % right == 0
        value = left // right if exact and (_in_tables(left // right, right) or right in (2, 4, 5, 10)) else 0
    if value < 2:
        raise Rejected
    return value


def _in_tables(left: int, right: int) -> bool:
    low, high = min(left, right), max(left, right)
    return high <= 12 or (low <= 3 and high <= 30) or (low <= 5 and high <= 20) or (high in UNITS and low <= 12)
