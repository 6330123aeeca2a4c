"""The Correlations page: what moves with what, and whether the reward is correctness or brevity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from app.analysis import neighbours, panel, sections
from app.analysis.panel import Shown
from app.components import chart
from irl_core.evaluation.scores import TITLES
from irl_core.report import figure_tables, headlines
from irl_core.report.charts import evaluation, traces

if TYPE_CHECKING:
    from irl_core.evaluation.correlation import Correlations

KINDS = {"pearson": "Pearson", "spearman": "Spearman"}
X, Y = "score_mean_discounted", "length"


def show() -> None:
    """Draw the page."""
    st.header("What does the reward move with?")
    runs = panel.opened()
    told = panel.section("correlation", runs)
    found = {name: section.figures for name, section in told.items()}
    runs = [run for run in runs if run.listed in found]
    if runs:
        panel.headlines({name: headlines.correlation(one) for name, one in found.items()})
        matrix(found)
        neighbours.show(
            "correlations", runs, X, TITLES[X], "that of the published method; the table above has the others"
        )
        partial = figure_tables.partial_summary(found), figure_tables.partial_table(found)
        panel.figures_of({"partial-correlations": partial}, told)
        scatter(runs, next(iter(found.values())).titles)


def matrix(found: Mapping[str, Correlations]) -> None:
    """Draw the matrix of one scored run, which is chosen beside the kind of correlation."""
    left, right = st.columns(2, vertical_alignment="bottom")
    names = list(found)
    panel.kept("matrix_run", names[0], names)
    left.selectbox("Run in the matrix", names, key="matrix_run")
    panel.keep("matrix_run")
    panel.kept("kind", "pearson", list(KINDS))
    right.segmented_control("Correlation", list(KINDS), format_func=KINDS.__getitem__, key="kind", required=True)
    panel.keep("kind")
    one, kind = found[st.session_state["matrix_run"]], st.session_state["kind"]
    chart.draw(
        evaluation.correlation_matrix(one, kind, theme=chart.theme()),
        evaluation.correlation_matrix_table(one, kind),
        key=f"correlations-{kind}",
        alt=f"Matrix of {KINDS[kind]} correlations between scores, length, likelihood and correctness; the values, "
        "their intervals and n are in the table below.",
        least=740,
    )
    if kind == "spearman":
        st.caption(sections.TIES_OF_RANKS)


def scatter(runs: Sequence[Shown], titles: Mapping[str, str]) -> None:
    """Draw any two columns against each other, a point a trace."""
    st.subheader("Any two, a point a solution")
    left, right = st.columns(2)
    names = list(titles)
    with left:
        x = panel.score_chooser(titles, "Across", "scatter_x", names.index(X))
    with right:
        y = panel.score_chooser(titles, "Up", "scatter_y", names.index(Y))
    frames = panel.frames(runs)
    chart.draw(
        traces.scatter(frames, x, y, theme=chart.theme()),
        traces.scatter_table(frames, x, y),
        key="scatter",
        alt=f"{titles[y]} against {titles[x]}, a point a solution, by run; the values are in the table below.",
        runs=panel.names(runs),
    )
    st.caption("Click a point to open its solution in Inspect.")


show()
