"""One chart on a page: the plotly figure, its values as a table and a CSV, its picture, and a click that opens a trace.

A chart's points that are traces carry ``[run, trace id]``; a click on one opens it on the Inspect page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import streamlit as st

from app.components import cards
from app.components.markdown import plain
from app.inspect import links
from irl_core.report import csv_export
from irl_core.report.terms import term_of

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

INSPECT: Final = Path(__file__).resolve().parents[1] / "views" / "inspect.py"
NOT_NEEDED: Final = ["lasso2d", "select2d", "autoScale2d"]
PICTURE_SCALE: Final = 2
BUTTONS: Final = 40  # pixels above a chart for its buttons, so that they do not cover the legend
LEGEND_BELOW: Final = -64  # pixels from the plot to a legend below it: the axis with its title stands between
TITLE_LINE: Final = 30  # the same for each further line of the title
DIGITS: Final = "%.4g"
CLASS: Final = "Whether the final answer is right: correct, incorrect, or not known."
BINS: Final = {
    "class": CLASS,
    "low": "Where the bar begins; empty where it takes all that is lower.",
    "high": "Where the bar ends; empty where it takes all that is higher.",
    "count": "How many solutions of the class lie in the bar.",
    "share": "The count as a share of the class.",
    "n": "How many solutions the class has.",
    "eval/low": "The lower end of the 95 % interval of pass@1.",
    "eval/high": "The upper end of the 95 % interval of pass@1.",
    "eval/n": "How many problems pass@1 was measured on.",
}
ESTIMATES: Final = {
    "low": "The lower end of the 95 % interval.",
    "high": "The upper end of the 95 % interval.",
    "n": "How many solutions, pairs or problems the value was computed from.",
    "method": "What n counts, and how the interval was computed.",
    "undefined because": "Why there is no value.",
    "k": "How many samples are drawn.",
    "where": "pooled: over all solutions; within problems: only solutions of the same problem are compared.",
    "removed": "What is taken out of both columns before they are correlated.",
}
SCROLLED: Final = """<style>
[class*="st-key-scrolled_LEAST_"] { overflow-x: auto; }
[class*="st-key-scrolled_LEAST_"] > * { min-width: LEASTpx; }
.scroll-hint { margin: 0; font-size: 0.85rem; opacity: 0.7; }
@media (min-width: 800px) { .scroll-hint { display: none; } }
</style>
<p class="scroll-hint">The chart goes on to the right: scroll it sideways.</p>"""


def theme() -> str:
    """``dark`` where the browser shows the page so, else ``light``."""
    return "dark" if st.context.theme.type == "dark" else "light"


def draw(
    figure: Figure,
    table: pd.DataFrame,
    *,
    key: str,
    alt: str,
    runs: Mapping[str, str] | None = None,
    help: str = "",
    least: int = 0,
) -> None:
    """Draw a chart with its table twin under it. ``key`` names its files; ``alt`` says in words what it shows.

    ``runs``: the names in links of the runs that a clicked point may belong to, by what they are called in the chart;
    without them nothing can be clicked. ``least``: the width in pixels below which the chart is scrolled sideways, not
    squeezed.
    """
    from irl_core.report.charts.style import HEIGHT, colours

    edges, above = figure.layout.margin.t or 0, 0
    if figure.layout.legend.yanchor == "bottom":  # above the plot it would grow under the buttons on a narrow screen
        further = (figure.layout.xaxis.title.text or "").count("<br>")
        figure.update_layout(legend={"yanchor": "top", "y": (LEGEND_BELOW - TITLE_LINE * further) / HEIGHT})
    else:
        above = edges
    figure.update_layout(
        paper_bgcolor=colours(theme()).paper,  # a saved picture has the background of its theme
        margin_t=above + BUTTONS,
        height=(figure.layout.height or HEIGHT) + BUTTONS,
    )
    options: dict[str, Any] = {"on_select": "rerun", "selection_mode": "points"} if runs else {}
    if least:
        st.html(SCROLLED.replace("LEAST", str(least)))
    with st.container(key=f"scrolled_{least}_{key}"):
        event = st.plotly_chart(figure, theme=None, key=f"chart_{key}", config=_config(key), alt=alt, **options)
    if runs:
        clicked = chosen_trace(event, runs)
        if clicked is not None:
            open_trace(*clicked)
    with st.expander("The values of this chart as a table", icon=":material/table:"):
        if help:
            st.caption(help)
        show_table(table, key)


def inert_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table for ``st.dataframe``, whose own menu saves what it shows: no cell of it is a formula."""
    import pandas as pd

    return csv_export.inert(pd.DataFrame(rows))


def show_table(table: pd.DataFrame, key: str) -> None:
    """A table, and the button that saves it as CSV."""
    told = meanings(table.columns)
    columns = {
        name: st.column_config.NumberColumn(format=DIGITS, help=told[name])
        if table[name].dtype.kind == "f"
        else st.column_config.Column(help=told[name])
        for name in table.columns
        if table[name].dtype.kind == "f" or told[name]
    }
    cards.table(table, f"table_{key}", title="Values", columns=columns)
    st.download_button(
        "Save as CSV", partial(csv_export.csv_of, table), f"{key}.csv", "text/csv", key=f"csv_{key}", on_click="ignore",
        icon=":material/download:",
    )  # fmt: skip


def meanings(names: Iterable[str]) -> dict[str, str | None]:
    """What the columns of a chart's table hold, for the hovers of their headings; None where the name says it."""
    from irl_core.evaluation.training import TITLES as METRICS

    names = list(names)
    told = ESTIMATES if "method" in names else BINS
    return {name: told.get(name) or METRICS.get(name) or term_of(name) or None for name in names}


def _config(key: str) -> dict[str, Any]:
    return {
        "displaylogo": False,
        "displayModeBar": True,
        "modeBarButtonsToRemove": NOT_NEEDED,
        "toImageButtonOptions": {"format": "png", "filename": key, "scale": PICTURE_SCALE},
    }


def chosen_trace(event: Mapping[str, Any], runs: Mapping[str, str]) -> tuple[str, str] | None:
    """The run, by its name in links, and the trace of the first point of a selection that is a trace of ``runs``."""
    for point in event.get("selection", {}).get("points", []):
        found = point.get("customdata")
        values = list(found.values()) if isinstance(found, dict) else found
        if isinstance(values, list) and len(values) >= 2 and values[0] in runs and isinstance(values[1], str):
            return runs[values[0]], values[1]
    return None


def open_trace(run: str, trace_id: str) -> None:
    """Go to the Inspect page with a trace of a scored run; returns where there can be no link to it, which is said."""
    try:
        address = urlsplit(links.to_trace(run, trace_id))
    except links.LinkError as error:
        st.error(plain(str(error)))
        return
    st.switch_page(INSPECT, query_params=dict(parse_qsl(address.query)))
