"""A table that a narrow screen has as cards, a row a card.

Streamlit draws its tables on a canvas, which a narrow screen can only scroll sideways. So each is drawn twice, and the
width of the window says which of the two is seen (the style is in `app.components.frame`). A row of the table is chosen
by a click, one of the cards in a list below them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import pandas as pd
import streamlit as st

from irl_core.report.csv_export import inert

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

MOST_CARDS: Final = 12
MOST_WORDS: Final = 60  # characters of a row in the list
MOST_STYLED: Final = 5_000  # cells of a table whose numbers have a true minus: each of them is written out here
MINUS: Final = "\u2212"
UNFORMATTED: Final = "%.4g"  # a number of a column without a format of its own
PERCENT: Final = "percent"  # Streamlit's format of a share


def table(
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    key: str,
    *,
    title: str,
    choose: Callable[[int], None] | None = None,
    columns: Mapping[str, Any] | None = None,
    height: int | Literal["auto"] = "auto",
    row_height: int | None = None,
) -> None:
    """Draw a table, and its cards for a narrow screen. No cell of either is a formula or markup.

    Args:
        rows: what it shows.
        key: of the table among the page's widgets.
        title: what it holds, in a word or two.
        choose: called with the place of a row that is chosen; without it none can be.
        columns: how Streamlit draws columns, by their names; their labels head the cards' lines too.
        height: of the table in pixels.
        row_height: of its rows in pixels, for cells of several lines; a line each without it.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    columns = columns or {}

    def take_row() -> None:
        chosen = st.session_state[key]["selection"]["rows"]
        if chosen and choose:
            choose(chosen[0])

    def take_card() -> None:
        chosen = st.session_state[f"card_{key}"]
        if chosen is not None and choose:
            choose(chosen)

    selecting: dict[str, Any] = {"on_select": take_row, "selection_mode": "single-row"} if choose else {}
    drawn, config = with_minus(inert(frame), columns)
    with st.container(key=f"wide_{key}"):
        st.dataframe(
            drawn, hide_index=True, height=height, key=key, column_config=config, placeholder="",
            row_height=row_height, **selecting,
        )  # fmt: skip
    with st.container(key=f"cards_{key}"):
        st.html(html(frame, title, columns))
        if choose:
            names = [name_of(row) for row in frame.itertuples(index=False)]
            st.selectbox(
                f"Choose of {title}", range(len(names)), format_func=names.__getitem__, key=f"card_{key}", index=None,
                placeholder="Choose one", on_change=take_card, label_visibility="collapsed",
            )  # fmt: skip


def with_minus(frame: pd.DataFrame, columns: Mapping[str, Any]) -> tuple[pd.DataFrame | Styler, dict[str, Any]]:
    """A table with the words of its negative numbers, and how its columns are drawn then.

    Streamlit's own formats write a hyphen. What is sorted by and saved stays the number. A table of more than
    ``MOST_STYLED`` cells keeps Streamlit's formats: writing out each of its cells takes too long.
    """
    config = dict(columns)
    formats = {name: format_of(columns, name) for name in frame if frame[name].dtype.kind == "f"}
    if frame.size > MOST_STYLED or not any((frame[name] < 0).any() for name in formats):
        return frame, config
    for name, form in formats.items():
        if form:  # else what is written out here would be passed over
            own = config[str(name)]
            config[str(name)] = {**own, "type_config": {**own["type_config"], "format": None}}
    words: dict[Any, Any] = {name: partial(number_words, form or UNFORMATTED) for name, form in formats.items()}
    return frame.reset_index(drop=True).style.format(words, na_rep=""), config


def format_of(columns: Mapping[str, Any], name: Any) -> str:
    """The format of a column of numbers, printf's or ``PERCENT``; empty where it has none."""
    form = ((columns.get(str(name)) or {}).get("type_config") or {}).get("format") or ""
    return form if form.startswith("%") or form == PERCENT else ""


def number_words(form: str, value: float) -> str:
    """A number in a format of `format_of`, with a true minus."""
    words = f"{round(100 * value, 2):.12g}%" if form == PERCENT else form % value
    return words.replace("-", MINUS)


def html(frame: pd.DataFrame, title: str, columns: Mapping[str, Any]) -> str:
    """The first rows as a table of a report, which a narrow screen shows as cards."""
    from irl_core.evaluation.section import Table
    from irl_core.report import figures

    head = [str((columns.get(str(name)) or {}).get("label") or name) for name in frame]
    formats = [format_of(columns, name) for name in frame]
    cells = [
        [
            None if value is None or value != value else plain_value(value, form)  # NaN is not itself
            for value, form in zip(row, formats, strict=True)
        ]
        for row in frame.head(MOST_CARDS).itertuples(index=False)
    ]
    more = len(frame) - MOST_CARDS
    note = f"and {more:,} more, in a wider window" if more > 0 else ""
    return f"<style>{figures.stylesheet()}</style>{figures.table_html(Table(title, head, cells, note))}"


def plain_value(value: Any, form: str = "") -> str | int | float:
    """A cell of a data frame as a value that a table of a report takes; ``form``: of its number, where it has one."""
    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%d %H:%M")
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and (form or value < 0):
        return number_words(form or UNFORMATTED, value)
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else str(value)


def name_of(row: Sequence[Any]) -> str:
    """A row in the list: what stands in its first cells."""
    words = " \u00b7 ".join(str(plain_value(cell)) for cell in row[:3] if cell is not None and str(cell).strip())
    return words if len(words) <= MOST_WORDS else f"{words[: MOST_WORDS - 1]}\u2026"
