"""A chart of figures beside each other: a line a figure, a mark a run, with its interval. Knows no streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import plotly.graph_objects as go

from app.charts.style import SYMBOLS, colours, cycled, styled, text

if TYPE_CHECKING:
    import pandas as pd

ROW_PIXELS: Final = 34
RUN_PIXELS: Final = 12
EDGES: Final = 112


def intervals(
    rows: pd.DataFrame, *, unit: str, reference: float | None = None, reference_words: str = "", theme: str = "light"
) -> go.Figure:
    """Figures with their intervals along one axis.

    Args:
        rows: columns ``run``, ``label``, ``value``, ``low``, ``high``, ``n``; lines in the order of the labels. A
            figure without a value is written 'undefined' on its line.
        unit: the title of the axis. reference: where a dotted line stands, ``reference_words`` what it is.
    """
    look, figure = colours(theme), go.Figure()
    labels, runs = list(dict.fromkeys(rows["label"])), list(dict.fromkeys(rows["run"]))
    row_pixels = ROW_PIXELS + RUN_PIXELS * (len(runs) - 1)
    for number, run in enumerate(runs):
        shift = (number - (len(runs) - 1) / 2) * RUN_PIXELS / row_pixels
        colour, symbol = cycled(look.series, number), cycled(SYMBOLS, number)
        figure.add_trace(_marks(rows[rows["run"] == run], labels, shift, colour, symbol))
    for place, label in enumerate(labels):
        gone = rows[(rows["label"] == label) & rows["value"].isna()]["run"]
        words = label + (f" \u2014 undefined: {', '.join(gone)}" if len(gone) else "")
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=place, yanchor="bottom", yshift=2 + RUN_PIXELS * (len(runs) - 1) / 2,
            text=text(words), showarrow=False, font={"size": 12}, bgcolor=look.paper, borderpad=0,
        )  # fmt: skip
    styled(figure, theme, unit, "", height=row_pixels * len(labels) + EDGES)
    figure.update_layout(showlegend=len(runs) > 1)
    figure.update_yaxes(range=[len(labels) - 0.4, -0.75], showticklabels=False, showgrid=False, zeroline=False)
    if reference is not None:
        figure.add_vline(reference, line={"dash": "dot", "width": 1, "color": look.text})
        figure.update_xaxes(title_text=f"{unit} (dotted: {reference_words})")
    return figure


def _marks(rows: pd.DataFrame, labels: Sequence[str], shift: float, colour: str, symbol: str) -> go.Scatter:
    """The figures of a run that have a value, ``shift`` beside the middle of their lines."""
    known = rows[rows["value"].notna()]
    name = text(rows["run"].iloc[0])
    return go.Scatter(
        x=known["value"],
        y=[labels.index(label) + shift for label in known["label"]],
        error_x={
            "type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 4,
            "array": (known["high"] - known["value"]).fillna(0.0),
            "arrayminus": (known["value"] - known["low"]).fillna(0.0),
        },
        mode="markers", marker={"color": colour, "symbol": symbol, "size": 9}, name=name,
        hovertext=[
            f"{name}<br>{text(row.label)}<br>{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]<br>n {row.n:,}"
            for row in known.itertuples()
        ],
        hoverinfo="text",
    )  # fmt: skip
