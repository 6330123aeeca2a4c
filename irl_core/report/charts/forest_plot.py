"""A chart of estimates beside each other: a line an estimate, a mark a scored run, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go

from irl_core.report.charts.style import SYMBOLS, colours, cycled, folded, styled, text
from irl_core.statistics.bootstrap import Estimate
from irl_core.statistics.wording import true_minus

ROW_PIXELS: Final = 26
RUN_PIXELS: Final = 12
EDGES: Final = 130
LEAST_WIDTH: Final = 620  # pixels: the labels take half of a narrower chart


def intervals(
    marks: Sequence[tuple[str, str, Estimate]],
    *,
    unit: str,
    reference: float | None = None,
    reference_words: str = "",
    theme: str = "light",
) -> go.Figure:
    """Estimates with their intervals along one axis.

    Args:
        marks: (scored run, label, estimate); lines in the order of the labels. An estimate without a value is written
            'undefined' on its line, and once for a scored run that has none at all.
        unit: the title of the axis.
        reference: where a dotted line stands.
        reference_words: what that line is.
        theme: ``light`` or ``dark``.
    """
    look, figure = colours(theme), go.Figure()
    labels, runs = list(dict.fromkeys(label for _, label, _ in marks)), list(dict.fromkeys(run for run, _, _ in marks))
    row_pixels = ROW_PIXELS + RUN_PIXELS * (len(runs) - 1)
    some = {run for run, _, estimate in marks if estimate.defined}
    for number, run in enumerate(runs):
        shift = (number - (len(runs) - 1) / 2) * RUN_PIXELS / row_pixels
        colour, symbol = cycled(look.series, number), cycled(SYMBOLS, number)
        if run not in some:  # a point nowhere, for its word in the legend
            name = folded(f"{run}: undefined")
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=name, marker={"color": colour}))
            continue
        known = [(label, one) for of, label, one in marks if of == run and one.defined]
        figure.add_trace(
            go.Scatter(
                x=[one.value for _, one in known],
                y=[labels.index(label) + shift for label, _ in known],
                error_x={
                    "type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 4,
                    "array": [one.high - one.value if one.interval else 0.0 for _, one in known],
                    "arrayminus": [one.value - one.low if one.interval else 0.0 for _, one in known],
                },
                mode="markers", marker={"color": colour, "symbol": symbol, "size": 9}, name=folded(run),
                hovertext=[
                    f"{text(run)}<br>{text(label)}<br>{text(true_minus(str(one)))}" for label, one in known
                ],
                hoverinfo="text",
            )
        )  # fmt: skip
    for place, label in enumerate(labels):
        gone = [run for run, of, estimate in marks if of == label and not estimate.defined and run in some]
        if gone:
            figure.add_annotation(
                x=0, xref="paper", xanchor="left", y=place, text=text(f"undefined: {', '.join(gone)}"),
                showarrow=False, font={"size": 11}, bgcolor=look.paper, borderpad=0,
            )  # fmt: skip
    words = unit if reference is None else f"{unit}<br>(dotted: {reference_words})"
    styled(figure, theme, words, "", height=row_pixels * len(labels) + EDGES)
    figure.update_layout(showlegend=len(runs) > 1 or len(some) < len(runs))
    figure.update_yaxes(
        range=[len(labels) - 0.4, -0.6], tickvals=list(range(len(labels))), ticktext=[text(label) for label in labels],
        tickfont_size=12, zeroline=False,
    )  # fmt: skip
    if reference is not None:
        figure.add_vline(reference, line={"dash": "dot", "width": 1, "color": look.text})
    return figure
