"""The Distributions page: a score of correct and of incorrect traces, pooled and within problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from app.analysis import neighbours, panel, sections
from app.analysis.panel import Shown
from app.components import chart
from irl_core.evaluation.scores import TITLES
from irl_core.report import figure_tables, headlines
from irl_core.report.charts import traces
from irl_core.report.charts.style import titled
from irl_core.report.tables import numbers

if TYPE_CHECKING:
    from irl_core.evaluation.section import Section
    from irl_core.evaluation.separation import SeparationByScore

POOLED = "All solutions"
WITHIN = "Within problems"


def show() -> None:
    """Draw the page."""
    st.header("Do correct solutions score higher?")
    runs = panel.opened()
    told = panel.section("separation", runs)
    found = {name: section.figures for name, section in told.items()}
    runs = [run for run in runs if run.listed in found]
    if runs:
        score = controls(found)
        panel.headlines({name: headlines.separation(one, score) for name, one in found.items()})
        first = next(iter(TITLES))
        chosen = "that of the published method, while no other is chosen above" if score == first else "chosen above"
        draw_charts(runs, score)
        neighbours.show("distributions", runs, score, TITLES[score], chosen)
        show_tests(found, told, score)
        compare_scores(found)
        panel.surprising(runs, score)


def controls(found: Mapping[str, SeparationByScore]) -> str:
    """Draw the choosers of score and view; returns the score's name."""
    left, right = st.columns(2, vertical_alignment="bottom")
    offered = {name: title for name, title in TITLES.items() if all(name in one.scores for one in found.values())}
    with left:
        score = panel.score_chooser(offered)
    panel.kept("compared", POOLED, (POOLED, WITHIN))
    right.segmented_control(
        "Compared",
        (POOLED, WITHIN),
        key="compared",
        required=True,
        help="Within problems: each problem's mean is taken off, so that which problems are easy earns nothing. Only "
        "problems with correct and incorrect solutions are drawn.",
    )
    panel.keep("compared")
    return score


def draw_charts(runs: Sequence[Shown], score: str) -> None:
    """Draw the score's distribution and its traces, by class."""
    theme = chart.theme()
    drawn = panel.frames(runs)
    if st.session_state["compared"] == WITHIN:
        drawn = {name: sections.centred(frame, score) for name, frame in drawn.items()}
    histogram, strip = traces.histogram(drawn, score, theme=theme), traces.strip(drawn, score, theme=theme)
    if st.session_state["compared"] == WITHIN:
        words = f"{traces.title_of(score)}<br>less its problem's mean"
        titled(histogram, x=words)
        titled(strip, y=words)
    # legend and boxes of several runs need the whole width
    first, second = st.columns(2, gap="medium") if len(runs) == 1 else (st.container(), st.container())
    with first:
        chart.draw(
            histogram,
            traces.histogram_table(drawn, score),
            key="distribution",
            alt="Histograms of the score of correct and of incorrect solutions, by run; the table has the values.",
        )
    with second:
        chart.draw(
            strip,
            traces.strip_table(drawn, score),
            key="traces",
            alt="Boxes with a point a solution, of correct and of incorrect ones, by run; the values are in the table.",
            runs=panel.names(runs),
        )
        st.caption("Click a point to open its solution in Inspect.")


def show_tests(
    found: Mapping[str, SeparationByScore], told: Mapping[str, Section[SeparationByScore]], score: str
) -> None:
    """Offer the tests of a score as tables and in words."""
    note = f"{sections.TIES_OF_PAIRS} A figure that does not exist is undefined, with the reason."
    shown = replace(figure_tables.tests_summary(found, score), note=note)
    panel.figures_of({"separation": (shown, figure_tables.separation_table(found, score))}, told)


def compare_scores(found: Mapping[str, SeparationByScore]) -> None:
    """Draw every score beside the others, pooled or within problems as the page is set; of several runs, whose two
    charts above take the room, behind a toggle."""
    from irl_core.report.charts.forest_plot import LEAST_WIDTH, intervals

    title, meanings = "All scores beside each other", panel.meanings(["AUC", "pairs ranked right", *TITLES.values()])
    if len(found) == 1:
        st.subheader(title, help=meanings)
    place = st.container() if len(found) == 1 else st.expander(title, icon=":material/bar_chart:")
    where, unit = ("pooled", "AUC over all solutions") if st.session_state["compared"] == POOLED else (
        "within", "share of the pairs of one problem ranked right")  # fmt: skip
    with place:
        chart.draw(
            intervals(
                figure_tables.ranking_marks(found, where),
                unit=unit,
                reference=0.5,
                reference_words="chance",
                theme=chart.theme(),
            ),
            numbers(figure_tables.scores_table(found)),
            key=f"scores-{where}",
            least=LEAST_WIDTH,
            alt=f"{unit}, for every score with its 95 % interval, by run; the table below has the values.",
        )
        if len(found) > 1:
            st.caption(meanings)


show()
