"""The parts of a report's section: its figures, a paragraph that says no more than they do, and typed tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from irl_core.statistics.bootstrap import Estimate
from irl_core.statistics.wording import verdict

Figures = TypeVar("Figures")


@dataclass(frozen=True, slots=True)
class Difference:
    """An estimated difference as a cell, shown with its verdict in these words."""

    estimate: Estimate
    better: str = "higher"
    worse: str = "lower"

    def __str__(self) -> str:
        return ", ".join(filter(None, (str(self.estimate), verdict(self.estimate, self.better, self.worse))))


Cell = str | int | float | Estimate | Difference | None


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the columns' headings, and rows of cells; ``note`` stands below. None is an empty cell. ``mixed``: a
    column holds figures of different kinds, which have no scale in common."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    mixed: bool = False


@dataclass(frozen=True, slots=True)
class Section(Generic[Figures]):
    """A section of the report: what was estimated, and the same in words and in tables."""

    title: str
    figures: Figures
    paragraph: str
    tables: tuple[Table, ...]
    reason: str = ""  # why there are no figures


def difference_cell(estimate: Estimate | None) -> Difference | None:
    """A cell for a difference that may not have been estimated."""
    return None if estimate is None else Difference(estimate)
