"""The figures of several scored runs beside each other, on the Runs page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import streamlit as st

from app.analysis import chooser, panel
from app.components import cards
from app.components.markdown import plain
from app.runs import table
from app.runs.table import Run

BESIDE: Final = {
    "right": "Of the solutions of which it is known, how many have the right answer.",
    table.JUDGED: table.JUDGED_MEANS,
    table.PASS: "How often a solution of a problem, taken at random, is right: the mean over problems.",
    table.BEST: "By the reward: how often the solution of a problem that the reward puts highest is right; with "
    "intervals on Reranking. Empty where no problem has two solutions.",
}
SHARES: Final = (table.PASS, table.BEST)


def show(scored: Sequence[Run]) -> None:
    """The figures of scored runs beside each other."""
    by_name = {run.name: run for run in scored}
    shown = panel.read(info for info in chooser.catalogue() if info.name in by_name and not info.reason)
    figures = panel.section("reranking", shown)
    rows = [table.beside(by_name[run.name], figures[run.listed].figures) for run in shown if run.listed in figures]
    st.subheader("Beside each other")
    for run in shown:
        if not run.sample.whole:
            st.caption(plain(f"{run.listed}: {run.sample.words()}."))
    columns = {name: st.column_config.Column(help=meaning) for name, meaning in BESIDE.items()}
    share = {name: st.column_config.NumberColumn(format="percent", help=BESIDE[name]) for name in SHARES}
    when = {table.WRITTEN: st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm")}
    cards.table(rows, "scored_beside", title="Beside each other", columns=columns | share | when)
