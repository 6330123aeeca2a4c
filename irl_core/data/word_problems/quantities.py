"""The quantities of a word problem: numbers that are given, constants of units, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Role = Literal["given", "distractor", "constant", "derived"]
ROLES: tuple[Role, ...] = ("given", "distractor", "constant", "derived")
OPERATORS = ("+", "-", "*", "/")


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a problem. A derived one is ``left op right``, both names of quantities declared before it."""

    name: str
    value: int
    role: Role
    op: str = ""
    left: str = ""
    right: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r} of quantity {self.name!r}; use one of {ROLES}")
        if (self.role == "derived") != (self.op in OPERATORS):
            raise ValueError(
                f"quantity {self.name!r} is {self.role} with operator {self.op!r}; only derived ones have one"
            )


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A problem with its expert solution (GSM8K layout) and the quantities that a checker needs.

    ``target`` names the quantity that is asked for; ``answer`` is its value as text.
    """

    problem_id: str
    family: str
    text: str
    solution: str
    answer: str
    target: str
    quantities: tuple[Quantity, ...]

    def to_json(self) -> dict[str, Any]:
        """The problem as a dict of strings and a list of dicts, fit for one line of JSONL."""
        return asdict(self) | {"quantities": [asdict(quantity) for quantity in self.quantities]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WordProblem:
        """The problem that ``to_json`` wrote. Raises KeyError or TypeError on a missing or unknown field."""
        fields = {name: str(data[name]) for name in ("problem_id", "family", "text", "solution", "answer", "target")}
        return cls(quantities=tuple(Quantity(**quantity) for quantity in data["quantities"]), **fields)


def needed(quantities: Iterable[Quantity], target: str) -> list[Quantity]:
    """The derived quantities that lead to ``target``, itself included, in the order of declaration."""
    everything = list(quantities)
    wanted = {target}
    for quantity in reversed(everything):
        if quantity.name in wanted:
            wanted |= {quantity.left, quantity.right}
    return [quantity for quantity in everything if quantity.role == "derived" and quantity.name in wanted]
