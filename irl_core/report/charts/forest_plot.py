"""A chart of figures beside each other: a line a figure, a mark a run, with its interval. Knows no streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from irl_core.report.charts.style import SYMBOLS, colours, cycled, styled, text

if TYPE_CHECKING:
    import pandas as pd

ROW_PIXELS: Final = 26
RUN_PIXELS: Final = 12
EDGES: Final = 112
LEAST_WIDTH: Final = 620  # pixels: the labels take half of a narrower chart


def intervals(
    rows: pd.DataFrame, *, unit: str, reference: float | None = None, reference_words: str = "", theme: str = "light"
) -> go.Figure:
    """Figures with their intervals along one axis.

    Args:
        rows: columns ``run``, ``label``, ``value``, ``low``, ``high``, ``n``; lines in the order of the labels. A
            figure without a value is written 'undefined' on its line, and once for a run that has none at all.
        unit: the title of the axis. reference: where a dotted line stands, ``reference_words`` what it is.
    """
    look, figure = colours(theme), go.Figure()
    labels, runs = list(dict.fromkeys(rows["label"])), list(dict.fromkeys(rows["run"]))
    row_pixels = ROW_PIXELS + RUN_PIXELS * (len(runs) - 1)
    for number, run in enumerate(runs):
        shift = (number - (len(runs) - 1) / 2) * RUN_PIXELS / row_pixels
        colour, symbol = cycled(look.series, number), cycled(SYMBOLS, number)
        figure.add_trace(_marks(rows[rows["run"] == run], labels, shift, colour, symbol))
    some = rows.groupby("run")["value"].transform("count") > 0
    for place, label in enumerate(labels):
        gone = rows[(rows["label"] == label) & rows["value"].isna() & some]["run"]
        if len(gone):
            figure.add_annotation(
                x=0, xref="paper", xanchor="left", y=place, text=text(f"undefined: {', '.join(gone)}"),
                showarrow=False, font={"size": 11}, bgcolor=look.paper, borderpad=0,
            )  # fmt: skip
    styled(figure, theme, unit, "", height=row_pixels * len(labels) + EDGES)
    figure.update_layout(showlegend=len(runs) > 1 or not some.all())
    figure.update_yaxes(
        range=[len(labels) - 0.4, -0.6], tickvals=list(range(len(labels))), ticktext=[text(label) for label in labels],
        tickfont_size=12, zeroline=False,
    )  # fmt: skip
    if reference is not None:
        figure.add_vline(reference, line={"dash": "dot", "width": 1, "color": look.text})
        figure.update_xaxes(title_text=f"{unit} (dotted: {reference_words})")
    return figure


def _marks(rows: pd.DataFrame, labels: Sequence[str], shift: float, colour: str, symbol: str) -> go.Scatter:
    """The figures of a run that have a value, ``shift`` beside the middle of their lines."""
    known = rows[rows["value"].notna()]
    name = text(rows["run"].iloc[0])
    if known.empty:  # a point nowhere, for its word in the legend
        return go.Scatter(x=[None], y=[None], mode="markers", name=f"{name}: undefined", marker={"color": colour})
    return go.Scatter(
        x=known["value"],
        y=[labels.index(label) + shift for label in known["label"]],
        error_x={
            "type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 4,
            "array": (known["high"] - known["value"]).fillna(0.0),
            "arrayminus": (known["value"] - known["low"]).fillna(0.0),
        },
        mode="markers", marker={"color": colour, "symbol": symbol, "size": 9}, name=name,
        hovertext=[f"{name}<br>{text(row['label'])}<br>{_words(row)}" for row in known.to_dict("records")],
        hoverinfo="text",
    )  # fmt: skip


def _words(row: dict[Any, Any]) -> str:
    """'0.800 [0.700, 0.950]' and n; without an interval the value alone."""
    ends = f" [{row['low']:.3f}, {row['high']:.3f}]" if row["low"] == row["low"] else ""  # NaN differs from itself
    return f"{row['value']:.3f}{ends}<br>n {row['n']:,}"
