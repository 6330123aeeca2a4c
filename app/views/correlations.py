"""The Correlations page: what moves with what, and whether the reward is correctness or brevity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from app import chart_panel, figure_tables, overview, run_panel
from app.run_panel import Shown

KINDS = {"pearson": "Pearson", "spearman": "Spearman"}
X, Y = "score_mean_discounted", "length"


def show() -> None:
    st.header("What does the reward move with?")
    runs = run_panel.opened()
    found = run_panel.figures("correlation", runs)
    runs = [run for run in runs if run.name in found]
    if runs:
        _matrix(found)
        run_panel.paragraphs("correlation", found)
        _partials(found)
        _scatter(runs, next(iter(found.values()))["titles"])


def _matrix(found: Mapping[str, dict[str, Any]]) -> None:
    """The matrix of one run; the others are chosen beside the kind of correlation."""
    from app import charts

    left, right = st.columns(2, vertical_alignment="bottom")
    names = list(found)
    run_panel.kept("matrix_run", names[0], names)
    left.selectbox("Run in the matrix", names, key="matrix_run")
    run_panel.keep("matrix_run")
    run_panel.kept("kind", "pearson", list(KINDS))
    right.segmented_control("Correlation", list(KINDS), format_func=KINDS.__getitem__, key="kind", required=True)
    run_panel.keep("kind")
    one, kind = found[st.session_state["matrix_run"]], st.session_state["kind"]
    chart_panel.draw(
        charts.correlation_matrix(one, kind, theme=chart_panel.theme()),
        charts.correlation_matrix_table(one, kind),
        key=f"correlations-{kind}",
        alt=f"Matrix of {KINDS[kind]} correlations between scores, length, likelihood and correctness; the values, "
        "their intervals and n are in the table below.",
        least=740,
    )
    if kind == "spearman":
        st.caption(overview.TIES_OF_RANKS)


def _partials(found: Mapping[str, dict[str, Any]]) -> None:
    st.subheader("With correctness, once length and log-probability are removed")
    run_panel.read(figure_tables.partial_summary(found), "Correlations with correctness, with others removed")
    with st.expander("These figures with their n and method", icon=":material/table:"):
        chart_panel.show_table(figure_tables.partial_table(found), "partial-correlations")


def _scatter(runs: Sequence[Shown], titles: Mapping[str, str]) -> None:
    from app import charts

    st.subheader("Any two, a point a trace")
    left, right = st.columns(2)
    names = list(titles)
    with left:
        x = run_panel.score_chooser(titles, "Across", "scatter_x", names.index(X))
    with right:
        y = run_panel.score_chooser(titles, "Up", "scatter_y", names.index(Y))
    frames = run_panel.frames(runs)
    chart_panel.draw(
        charts.scatter(frames, x, y, theme=chart_panel.theme()),
        charts.scatter_table(frames, x, y),
        key="scatter",
        alt=f"{titles[y]} against {titles[x]}, a point a trace, by run; the values are in the table below.",
        runs=[run.name for run in runs],
    )
    st.caption("Click a point to open its trace in Inspect.")


show()
