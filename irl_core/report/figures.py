"""Headlines and tables as HTML, the same on a page of the app and in a report: values to the right, n once, intervals
as bars, and every term with what it means. Every text in them is data, never markup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from irl_core.evaluation.section import Cell, Difference, Table
from irl_core.report.headlines import Headline
from irl_core.report.tables import shown, templates
from irl_core.report.terms import term_of
from irl_core.statistics.bootstrap import Estimate
from irl_core.statistics.wording import true_minus, verdict

Span = tuple[float, float]
NARROW = 1e-12  # a column whose intervals span less has no scale


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval on its column's scale, in hundredths of the width: its ends, its value, and where 0 lies (None: not
    in sight)."""

    left: float
    right: float
    middle: float
    zero: float | None


@dataclass(frozen=True, slots=True)
class View:
    """A cell as it is shown: its value, what stands smaller beside it, and its bar."""

    value: str
    beside: str = ""
    bar: Bar | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading, what its term means, whether it holds numbers, and the n of most of them."""

    head: str
    term: str
    numeric: bool
    n: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row's label, what its term means, and its cells."""

    label: str
    term: str
    cells: list[View]


@dataclass(frozen=True, slots=True)
class Laid:
    """A table as it is shown; ``n`` says it once where every estimate has the same."""

    title: str
    columns: list[Column]
    rows: list[Row]
    n: str
    note: str


def headline_html(headline: Headline) -> str:
    """A headline: the sentence, then its numbers with interval and n."""
    return _macro("headline", headline)


def table_html(table: Table) -> str:
    """A table to read."""
    return _macro("table", laid(table))


@cache
def stylesheet() -> str:
    """The style that headlines and tables need."""
    return Path(__file__).with_name("figures.css").read_text(encoding="utf-8")


def _macro(name: str, value: Headline | Laid) -> str:
    module = templates().get_template("figures.html").module
    return str(getattr(module, name)(value))


def laid(table: Table) -> Laid:
    """A table as it is shown. n stands once where all have the same, in a column where every row has one, else under
    each heading, with those that differ in their cells."""
    sizes = [{one.n for one in map(estimate_of, row[1:]) if one is not None} for row in table.rows]
    every: set[int] = set().union(*sizes)
    once = len(every) == 1
    by_row = not once and bool(every) and all(len(size) <= 1 for size in sizes)
    held = list(zip(*table.rows, strict=True)) or [()] * len(table.head)
    usual = [None if once or by_row else usual_n(column) for column in held]
    columns = [
        Column(head, term_of(head), place > 0 and numeric(column), "" if n is None else f"n {n:,}")
        for place, (head, column, n) in enumerate(zip(table.head, held, usual, strict=True))
    ]
    views = [
        [view(cell, of, None if once or by_row else n) for cell in column]
        for column, of, n in zip(held, [None if table.mixed else scale(column) for column in held], usual, strict=True)
    ]
    if by_row:
        columns.append(Column("n", "The number of solutions, pairs or problems behind the row.", True))
        views.append([View(f"{next(iter(size)):,}" if size else "") for size in sizes])
    rows = [
        Row(shown(row[0]), term_of(shown(row[0])), [column[place] for column in views[1:]])
        for place, row in enumerate(table.rows)
    ]
    n = f"n is {next(iter(every)):,} for every figure." if once else ""
    return Laid(table.title, columns, rows, n, table.note)


def usual_n(column: Sequence[Cell]) -> int | None:
    """The n that most estimates of a column have; None without one."""
    counted = Counter(one.n for one in map(estimate_of, column) if one is not None)
    return counted.most_common(1)[0][0] if counted else None


def estimate_of(cell: Cell) -> Estimate | None:
    """The estimate that a cell holds, if any."""
    held = cell.estimate if isinstance(cell, Difference) else cell
    return held if isinstance(held, Estimate) else None


def numeric(column: Sequence[Cell]) -> bool:
    """Whether a column holds numbers and nothing else."""
    return any(cell is not None for cell in column) and not any(isinstance(cell, str) for cell in column)


def scale(column: Sequence[Cell]) -> Span | None:
    """The ends of a column's intervals; None where it has fewer than two."""
    spans = [one.interval for one in map(estimate_of, column) if one is not None and one.defined and one.interval]
    if len(spans) < 2:
        return None
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    return (low, high) if high - low > NARROW else None


def view(cell: Cell, of: Span | None, usual: int | None) -> View:
    """A cell as it is shown, with a bar on the scale ``of`` its column, and its n where it is not the ``usual`` one."""
    one = estimate_of(cell)
    if one is None:
        return View(shown(cell) if isinstance(cell, str) else true_minus(shown(cell)))
    n = f"n {one.n:,}" if usual is not None and one.n != usual else ""
    if not one.defined:
        return View("undefined", "; ".join(part for part in (one.reason, n) if part))
    told = true_minus(one.words)
    value, _, interval = told.partition(" ") if one.interval else (told, "", "")
    words = verdict(one, cell.better, cell.worse) if isinstance(cell, Difference) else ""
    bar = None
    if of is not None and one.interval is not None:
        places = [100 * (place - of[0]) / (of[1] - of[0]) for place in (*one.interval, one.value, 0.0)]
        left, right, middle, zero = (round(place, 2) for place in places)
        bar = Bar(left, right, middle, zero if 0 <= zero <= 100 else None)
    return View(value, ", ".join(part for part in (interval, n, words) if part), bar)
