"""Charts of localisation: how well the first wrong step is found, by which kind, how far away, with what confidence."""

from __future__ import annotations

from typing import Final

import plotly.graph_objects as go

from irl_core.evaluation.first_error import Localisation
from irl_core.report.charts.style import (
    SYMBOLS,
    colours,
    curve,
    cycled,
    dots,
    height_of,
    note,
    styled,
    text,
    titled,
    whole_numbers,
)

MEASURES: Final = {
    "f1": "F1",
    "error_acc": "error found at its step",
    "correct_acc": "correct solutions cleared",
    "exact": "step named, when one must be",
}


def localisation(estimates: Localisation, *, theme: str = "light") -> go.Figure:
    """How well each way finds the first wrong step, with 95 % intervals."""
    look, figure = colours(theme), go.Figure()
    methods = estimates.methods or {}
    for place, (measure, title) in enumerate(MEASURES.items()):
        rows = [(estimates.titles[name], one[measure]) for name, one in methods.items()]
        dots(figure, rows, name=title, colour=cycled(look.series, place), symbol=cycled(SYMBOLS, place))
    styled(figure, theme, "share (95 % intervals, over problems)", "", height=height_of(len(methods)))
    figure.update_yaxes(autorange="reversed", categoryorder="array",
                        categoryarray=[text(estimates.titles[name]) for name in methods])  # fmt: skip
    if not methods:
        note(figure, f"undefined: {estimates.reason or 'no solution has a known first wrong step'}")
    return figure


def kinds(estimates: Localisation, *, theme: str = "light") -> go.Figure:
    """The share of first wrong steps named exactly, by kind of mistake and way."""
    look, figure = colours(theme), go.Figure()
    by_kind = estimates.on_labels.kinds if estimates.on_labels else {}
    names = [name for name in estimates.titles if any(name in one for one in by_kind.values())]
    for place, name in enumerate(names):
        rows = [(kind, one[name]) for kind, one in by_kind.items()]
        dots(
            figure, rows, name=estimates.titles[name], colour=cycled(look.series, place), symbol=cycled(SYMBOLS, place)
        )
    styled(figure, theme, "share named exactly (95 % intervals)", "", height=height_of(len(by_kind)))
    figure.update_yaxes(autorange="reversed")
    if not figure.data:
        note(figure, "undefined: the kinds of mistakes are not known")
    return figure


def distance(estimates: Localisation, *, theme: str = "light") -> go.Figure:
    """How many steps too early (below 0) or too late the named step is, in wrong traces."""
    look, figure = colours(theme), go.Figure()
    counts = estimates.on_labels.distance.distribution if estimates.on_labels else {}
    if counts:
        figure.add_bar(
            x=list(counts), y=list(counts.values()), marker={"color": look.series[0]},
            hovertemplate="%{x} steps: %{y:,} solutions<extra></extra>",
        )  # fmt: skip
    styled(figure, theme, f"named step less the true one (n {sum(counts.values()):,} wrong solutions)", "solutions")
    whole_numbers(figure, counts)
    if not counts:
        note(figure, "undefined: no wrong solution with a known first wrong step")
    return figure


def reliability(estimates: Localisation, *, theme: str = "light") -> go.Figure:
    """The share of right decisions against the confidence that was stated; on the diagonal the two are equal."""
    look, figure = colours(theme), go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="as stated", line={"color": look.unknown, "dash": "dot"},
        hoverinfo="skip",
    )  # fmt: skip
    held = estimates.on_labels.reliability if estimates.on_labels else None
    drawn = (
        [(one.confidence, one.right) for one in held.bins if one.right.defined and one.confidence is not None]
        if held
        else []
    )
    if drawn:
        curve(
            figure, [confidence for confidence, _ in drawn], [right for _, right in drawn], name="decisions",
            colour=look.series[0], dash="solid", symbol="circle",
        )  # fmt: skip
    styled(figure, theme, "confidence stated", "share of decisions that are right")
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(range=[0, 1])
    if held:
        titled(figure, x=f"confidence stated<br>{text(f'(expected calibration error {held.ece})')}")
    return figure
