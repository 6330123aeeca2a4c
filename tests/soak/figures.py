"""A row of the table of attacks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.soak.forked import Ended


@dataclass(slots=True)
class Figures:
    """A row of the table: what was done how often, and what did not hold."""

    attack: str
    n: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    megabytes: float = 0.0

    def add(self, outcome: str, ended: Ended | None = None, fault: str = "") -> None:
        """Count one case."""
        self.n += 1
        self.outcomes[outcome] += 1
        if ended is not None:
            self.seconds, self.megabytes = max(self.seconds, ended.seconds), max(self.megabytes, ended.megabytes)
        if fault:
            self.faults.append(fault)

    def row(self) -> str:
        """The row in Markdown."""
        outcomes = ", ".join(f"{count} {name}" for name, count in self.outcomes.most_common())
        cost = f"{self.seconds:.1f} s, {self.megabytes:.0f} MB" if self.seconds else ""
        return f"| {self.attack} | {self.n} | {outcomes} | {cost} | {len(self.faults)} |"
