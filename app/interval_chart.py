"""A chart of figures beside each other: a line a figure, a mark a run, with its interval. Knows no streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

INK: Final = {"light": "#31333f", "dark": "#fafafa"}
LINES: Final = {"light": "#dcdee4", "dark": "#4a4c55"}
# Okabe and Ito's colours that show on both papers, a symbol with each, so that colour says nothing alone
MARKS: Final = (
    ("#0072b2", "circle"), ("#e69f00", "square"), ("#009e73", "diamond"), ("#cc79a7", "triangle-up"),
    ("#56b4e9", "x"), ("#d55e00", "star"),
)  # fmt: skip
ROW_PIXELS: Final = 34
RUN_PIXELS: Final = 12
EDGES: Final = {"l": 8, "r": 16, "t": 64, "b": 48}


def intervals(
    rows: pd.DataFrame, *, unit: str, reference: float | None = None, reference_words: str = "", theme: str = "light"
) -> Figure:
    """Figures with their intervals along one axis.

    Args:
        rows: columns ``run``, ``label``, ``value``, ``low``, ``high``, ``n``; lines in the order of the labels. A
            figure without a value is written 'undefined' on its line.
        unit: the title of the axis. reference: where a dotted line stands, ``reference_words`` beside it.
    """
    from plotly.graph_objects import Figure

    labels, runs = list(dict.fromkeys(rows["label"])), list(dict.fromkeys(rows["run"]))
    figure = Figure()
    for number, run in enumerate(runs):
        figure.add_trace(_marks(rows[rows["run"] == run], labels, number, len(runs)))
    if reference is not None:
        figure.add_vline(reference, line={"dash": "dot", "width": 1, "color": INK[theme]})
        figure.add_annotation(
            x=reference, y=1, yref="paper", yanchor="bottom", text=escape(reference_words), showarrow=False
        )
    for place, label in enumerate(labels):
        gone = rows[(rows["label"] == label) & rows["value"].isna()]["run"]
        words = label + (f" \u2014 undefined: {', '.join(gone)}" if len(gone) else "")
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=place, yanchor="bottom", yshift=2 + RUN_PIXELS * (len(runs) - 1) / 2,
            text=escape(words), showarrow=False, font={"size": 12}
        )  # fmt: skip
    return _laid_out(figure, len(labels), len(runs), unit, theme)


def _marks(rows: pd.DataFrame, labels: Sequence[str], number: int, runs: int) -> Any:
    from plotly.graph_objects import Scatter

    known = rows[rows["value"].notna()]
    colour, symbol = MARKS[number % len(MARKS)]
    row_pixels = ROW_PIXELS + RUN_PIXELS * (runs - 1)
    shift = (number - (runs - 1) / 2) * RUN_PIXELS / row_pixels
    name = escape(str(rows["run"].iloc[0]))
    return Scatter(
        x=known["value"],
        y=[labels.index(label) + shift for label in known["label"]],
        error_x={
            "type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 4,
            "array": (known["high"] - known["value"]).fillna(0.0),
            "arrayminus": (known["value"] - known["low"]).fillna(0.0),
        },
        mode="markers", marker={"color": colour, "symbol": symbol, "size": 9}, name=name,
        hovertext=[
            f"{name}<br>{escape(row.label)}<br>{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]<br>n {row.n:,}"
            for row in known.itertuples()
        ],
        hoverinfo="text",
    )  # fmt: skip


def _laid_out(figure: Figure, labels: int, runs: int, unit: str, theme: str) -> Figure:
    row = ROW_PIXELS + RUN_PIXELS * (runs - 1)
    figure.update_layout(
        height=row * labels + EDGES["t"] + EDGES["b"],
        margin=EDGES,
        font={"color": INK[theme]},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=runs > 1,
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(title=unit, gridcolor=LINES[theme], zeroline=False)
    figure.update_yaxes(range=[labels - 0.4, -0.75], showticklabels=False, showgrid=False, zeroline=False)
    return figure
