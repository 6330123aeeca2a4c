"""Tables of typed cells: as Markdown, as one HTML page without network, in the terminal, and as data frames.

Every table is an `irl_core.evaluation.section.Table`, and `shown` is the one way in which a cell becomes text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table as TerminalTable
from rich.text import Text

from irl_core.evaluation.section import Cell, Difference, Table
from irl_core.report.csv_export import safe_cell
from irl_core.statistics.bootstrap import Estimate
from irl_core.text.visible import visible

if TYPE_CHECKING:
    import pandas as pd

# Intraword underscores and brackets that no parenthesis follows are no markup; estimates keep theirs readable.
SPECIAL = re.compile(
    r"[\\`*|$~]|(?<!\w)_|_(?!\w)|!(?=\[)|\](?=[(\[:])|(?<![\w.])@|@(?=[\w-]+\.)|^[#=]|^[+-](?=[\s+-]|$)"
)
NUMBERS = ("value", "low", "high", "n", "method", "undefined because")  # what a data frame holds of an estimate


def shown(cell: Cell) -> str:
    """A cell in text. An estimate has its interval and n, by the rule of digits in `Estimate.words`; a number of its
    own has three significant digits."""
    return "" if cell is None else f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def markdown(table: Table) -> str:
    """The table in Markdown, its title as a heading. Every text in it is data, never markup."""
    lines = [[escaped(shown(cell)) for cell in line] for line in (table.head, *table.rows)]
    lines.insert(1, ["---"] * len(table.head))
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join(part for part in (f"### {escaped(table.title)}", body, escaped(table.note)) if part) + "\n"


def escaped(text: str) -> str:
    """A text as one line of Markdown that shows it as it is: no markup, link, image, formula, mention or table cell."""
    line = SPECIAL.sub(lambda match: "\\" + match[0], " ".join(text.split()))
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = line.replace("://", ":\\//").replace("www.", "www\\.")
    return "".join(c if c.isprintable() else f"U+{ord(c):04X}" for c in line)


def templates() -> Environment:
    """The HTML templates of this room. What they show is escaped, a cell as `shown` writes it; a character that HTML
    does not know is replaced."""

    def finalize(value: object) -> object:
        if isinstance(value, Estimate | Difference | float) or value is None:
            value = shown(value)
        return value if hasattr(value, "__html__") else str(value).replace("\0", "\ufffd")

    return Environment(
        loader=PackageLoader("irl_core.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(title: str, paragraphs: Sequence[str], tables: Sequence[Table]) -> str:
    """One HTML page of paragraphs and tables; every text in it is data, never markup."""
    return templates().get_template("tables.html").render(title=title, paragraphs=paragraphs, tables=tables)


def for_terminal(table: Table) -> TerminalTable:
    """The table for rich; cells are plain text."""
    terminal = TerminalTable(
        title=Text(visible(table.title)), caption=Text(visible(table.note)) if table.note else None
    )
    for head in table.head:
        terminal.add_column(Text(visible(head)))
    for row in table.rows:
        terminal.add_row(*(Text(visible(shown(cell))) for cell in row))
    return terminal


# ------------------------------------------------------------------------------------------------ data frames


def numbers(table: Table) -> pd.DataFrame:
    """A table whose last column holds estimates as numbers, to draw or to save: ``NUMBERS`` in that column's place."""
    import pandas as pd

    rows = []
    for *names, estimate in table.rows:
        assert isinstance(estimate, Estimate)
        held = estimate.to_json()
        low, high = held["interval"] or (None, None)
        rows.append([*names, held["value"], low, high, estimate.n, estimate.method, estimate.reason or None])
    frame = pd.DataFrame(rows, columns=[*table.head[:-1], *NUMBERS])
    for name in ("value", "low", "high"):
        frame[name] = pd.to_numeric(frame[name])
    return frame


def texts(table: Table) -> pd.DataFrame:
    """A table as texts to read, whose names no spreadsheet takes for a formula."""
    import pandas as pd

    rows = [[safe_cell(cell) if isinstance(cell, str) else shown(cell) for cell in row] for row in table.rows]
    return pd.DataFrame(rows, columns=[safe_cell(head) for head in table.head])


def across(table: Table, down: Sequence[str], over: Sequence[str]) -> Table:
    """A table with a row for each value of the columns ``down``, and a column for each value of the columns ``over``,
    in the order in which they appear; its cells are those of the last column."""
    place = {name: index for index, name in enumerate(table.head)}
    cells: dict[tuple[Cell, ...], dict[str, Cell]] = {}
    heads: dict[str, None] = {}
    for row in table.rows:
        head = ", ".join(str(row[place[name]]) for name in over)
        heads.setdefault(head)
        cells.setdefault(tuple(row[place[name]] for name in down), {})[head] = row[-1]
    rows = [[*names, *map(by_head.get, heads)] for names, by_head in cells.items()]
    return Table(table.title, [*down, *heads], rows, table.note, table.mixed)
