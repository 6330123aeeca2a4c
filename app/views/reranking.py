"""The Reranking page: what choosing among samples by the reward gains, and the samples that it saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import streamlit as st

from app.analysis import neighbours, panel, sections
from app.components import chart
from app.components.markdown import plain
from irl_core.evaluation.scores import TITLES
from irl_core.report import figure_tables, headlines
from irl_core.report.charts import evaluation

if TYPE_CHECKING:
    from irl_core.evaluation.pass_at_k import PassAtK
    from irl_core.evaluation.reranking import Reranking
    from irl_core.evaluation.section import Section


def show() -> None:
    """Draw the page."""
    st.header("What does choosing by the reward gain?")
    runs = panel.opened()
    told, solved = panel.section("reranking", runs), panel.section("pass_at_k", runs)
    found = {name: section.figures for name, section in told.items()}
    runs = [run for run in runs if run.listed in found]
    if not runs:
        return
    judged = {name: one for name, one in found.items() if one.by_score}
    panel.headlines({name: headlines.headline("reranking", one) for name, one in told.items()})
    if judged:
        rule = next(iter(judged.values())).vote
        chosen = (
            "chosen on calibration problems, not on these"
            if rule.chosen_on_calibration
            else "that of the published method"
        )
        several = [run for run in runs if run.listed in judged and judged[run.listed].vote.score == rule.score]
        for run in (run for run in runs if run.listed in judged):
            if words := sections.lone_words(run.sample.frame):
                st.caption(plain(f"{run.listed}: {words}" if len(judged) > 1 else words))
        curves(judged)
        neighbours.show("reranking", several, rule.score, TITLES[rule.score], chosen)
    figures(judged, told)
    if not judged:
        st.info("Choosing needs several samples of a problem: irl-lens evaluate --samples 16 makes them, and an upload "
                "may hold many solutions of the same question.")  # fmt: skip
    solved_by_k({name: one for name, one in solved.items() if one.figures.problems})
    if judged:
        panel.surprising([run for run in runs if run.listed in judged], rule.score)


def curves(found: Mapping[str, Reranking]) -> None:
    """Draw the accuracy of each way to choose among 1 to N samples."""
    chart.draw(
        evaluation.reranking(found, theme=chart.theme()),
        evaluation.reranking_table(found),
        key="reranking",
        alt="Accuracy of each way to choose among 1 to N samples, by run; the table has values and intervals.",
        least=620,
    )
    st.caption(next(iter(found.values())).ties)


def figures(found: Mapping[str, Reranking], told: Mapping[str, Section[Reranking]]) -> None:
    """Offer every way to choose and the samples that each needs as tables, and all of it in words."""
    tables = {}
    if found:
        tables["ways-to-choose"] = figure_tables.choices_summary(found), figure_tables.choices_table(found)
        tables["samples-needed"] = figure_tables.saved_summary(found), figure_tables.saved_table(found)
    panel.figures_of(tables, told)


def solved_by_k(solved: Mapping[str, Section[PassAtK]]) -> None:
    """Draw pass@k: what there is to choose from."""
    if not solved:
        return
    found = {name: section.figures for name, section in solved.items()}
    st.subheader("What there is to choose from: pass@k")
    panel.headlines({name: headlines.headline("pass_at_k", one) for name, one in solved.items()})
    chart.draw(
        evaluation.pass_at_k(found, theme=chart.theme()),
        evaluation.pass_at_k_table(found),
        key="pass-at-k",
        alt="The share of problems that k samples solve, by run; the table has values and intervals.",
    )
    with st.expander("In full words"):
        panel.paragraphs(solved)


show()
