"""The chooser of scored runs that all pages share; what is chosen stays while other pages are looked at."""

from __future__ import annotations

from typing import Final

import streamlit as st

from app.analysis import catalogue as scored_runs
from app.analysis.catalogue import RunInfo
from app.components.markdown import plain

STATE: Final = "scored_runs"
MOST_RUNS: Final = 6
SECONDS_KEPT: Final = 5


@st.cache_data(ttl=SECONDS_KEPT, show_spinner=False)
def catalogue() -> list[RunInfo]:
    """The runs there are, looked up every few seconds at most."""
    return scored_runs.catalogue()


def choose(multiple: bool) -> list[RunInfo]:
    """Draw the chooser; the chosen runs, the first of all where nothing was chosen yet."""
    found = catalogue()
    usable = {info.name: info for info in found if not info.reason}
    for info in found:
        if info.reason:
            st.caption(plain(f"Not offered: {info.name}. {info.reason}"))
    if not usable:
        st.info("There is no scored run yet. Upload traces, or make one with irl-lens score or irl-lens evaluate.")
        return []
    names = list(usable)
    kept = [name for name in st.session_state.get(STATE, names[:1]) if name in names]  # chosen before, and still there
    if multiple:
        chosen: list[str] = st.multiselect(
            "Scored runs", names, kept, key="runs_shown", max_selections=MOST_RUNS, placeholder="Choose runs"
        )
        if not chosen:
            st.info("Choose a scored run to see it.")
    else:
        chosen = [st.selectbox("Scored run", names, names.index((kept or names)[0]), key="run_shown")]
    st.session_state[STATE] = chosen
    return [usable[name] for name in chosen]
