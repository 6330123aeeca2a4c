"""Tables of figures as Markdown, as one HTML page without network, and in the terminal."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table as TerminalTable
from rich.text import Text

from irl_core.evaluation.wording import count, shown, verdict

Shown = dict[str, Any]  # value, n, interval, method, reason

# Intraword underscores and brackets that no parenthesis follows are no markup; figures keep theirs readable.
_SPECIAL = re.compile(
    r"[\\`*|$~]|(?<!\w)_|_(?!\w)|!(?=\[)|\](?=[(\[:])|(?<![\w.])@|@(?=[\w-]+\.)|^[#=]|^[+-](?=[\s+-]|$)"
)

STYLE = """
:root { color-scheme: light dark; --line: #8888; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .8rem; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
.note { opacity: .75; }
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the columns' headings, and rows of cells in words; ``note`` stands below."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def cell(figure: Shown | None) -> str:
    """A figure with its interval and n; its reason where it is undefined, nothing where there is none."""
    if figure is None:
        return ""
    if figure["value"] is None:
        return f"undefined: {figure['reason']}"
    return f"{shown(figure)} (n {figure['n']})"


def count_cell(figure: Shown) -> str:
    """A whole number, as a `cell`."""
    return cell(figure) if figure["value"] is None else f"{count(figure)} (n {figure['n']})"


def difference_cell(figure: Shown | None) -> str:
    """A `cell` with what it allows to be said."""
    return "" if figure is None else " ".join(filter(None, (cell(figure), verdict(figure))))


def markdown(table: Table) -> str:
    """The table in Markdown, its title as a heading. Every text in it is data, never markup."""
    lines = [[escaped(text) for text in line] for line in (table.head, *table.rows)]
    lines.insert(1, ["---"] * len(table.head))
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join(part for part in (f"### {escaped(table.title)}", body, escaped(table.note)) if part) + "\n"


def escaped(text: str) -> str:
    """A text as one line of Markdown that shows it as it is: no markup, link, image, formula, mention or table cell."""
    line = _SPECIAL.sub(lambda found: "\\" + found[0], " ".join(text.split()))
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = line.replace("://", ":\\//").replace("www.", "www\\.")
    return "".join(c if c.isprintable() else f"U+{ord(c):04X}" for c in line)


def page(title: str, paragraphs: Sequence[str], tables: Sequence[Table]) -> str:
    """One HTML page; every text in it is data, never markup."""
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(text)}</p>" for text in paragraphs)]
    parts += [_html(table) for table in tables]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}{view}</head>\n<body>\n{body}\n</body></html>\n'


def _html(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in table.head)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(text)}</td>" for text in row[1:])
        + "</tr>\n"
        for row in table.rows
    )
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    title = html.escape(table.title)
    return f"<h2>{title}</h2>\n<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>{note}"


def for_terminal(table: Table) -> TerminalTable:
    """The table for rich; cells are plain text."""
    found = TerminalTable(title=Text(table.title), caption=Text(table.note) if table.note else None)
    for text in table.head:
        found.add_column(Text(text))
    for row in table.rows:
        found.add_row(*(Text(text) for text in row))
    return found
