"""An inspection as a table of tokens (CSV) that no spreadsheet takes for formulas.

Every text is quoted, so that no line end within it begins a row: programs take other characters than a line feed for
one, a bare carriage return above all.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Final, Literal, get_args

import pandas as pd

from irl_core.report.inspection_json import InspectionResult

Signal = Literal["raw", "standardised", "discounted", "credit", "logprob"]
SIGNALS: Final[tuple[Signal, ...]] = get_args(Signal)
COLUMNS = (
    "trace_number", "step_number", "token_number", "start", "end", "id", "text", *SIGNALS, "cannot_judge", "familiar",
)  # fmt: skip
_COMPUTED = re.compile("[\\s\0\u200b-\u200f\u2060\ufeff]*[=+@\uff1d\uff0b\uff0d\uff20-]")  # after what is not seen
_CONTROLS = tuple("\t\r\n")


def safe_cell(text: str) -> str:
    """``text`` with an apostrophe where a spreadsheet would compute it: before it, even after leading blanks, and
    before each of its lines, which would be cells to a program that ends a row there (any of Unicode's line ends)."""
    lines = text.splitlines(keepends=True)
    safe = "".join("'" + line if _COMPUTED.match(line) else line for line in lines)
    return "'" + safe if safe.startswith(_CONTROLS) else safe


def to_csv(result: InspectionResult) -> str:
    """One row a token, with a header; what is numbered counts from 1, as on the page; an empty cell is 'no value'.

    Whether the model can judge the trace, and whether its text is familiar, stand in every row of it: a reader that
    takes some tokens has them with these, and one that filters by them needs no second table."""
    sheet = io.StringIO()
    writer = csv.writer(sheet, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for number, trace in enumerate(result["traces"], start=1):
        known = trace["familiarity"]
        judged = (trace["cannot_judge"], None if known is None else known["familiar"])
        for place_in_it, token in enumerate(trace["tokens"], start=1):
            start, end = token["start"], token["end"]
            overlapping = (
                at for at, step in enumerate(trace["steps"], 1) if start < step["end"] and step["start"] < end
            )
            place = (number, next(overlapping, None), place_in_it, start, end, token.get("id"))
            writer.writerow((*place, safe_cell(token["text"]), *(token[name] for name in SIGNALS), *judged))
    return sheet.getvalue()


def inert(table: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table whose texts and heads no spreadsheet takes for a formula."""
    safe = table.rename(columns=lambda name: safe_cell(str(name)))
    for name in safe.columns:
        safe[name] = safe[name].map(lambda cell: safe_cell(cell) if isinstance(cell, str) else cell)
    return safe


def csv_of(table: pd.DataFrame) -> str:
    """A table as CSV with a header; an empty cell is 'no value', and there is no formula in it."""
    return str(inert(table).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC))
