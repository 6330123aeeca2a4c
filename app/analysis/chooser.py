"""The chooser of scored runs that all pages share; what is chosen stays while other pages are looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import streamlit as st

from app.analysis import catalogue as scored_runs
from app.analysis.catalogue import RunInfo
from app.components.markdown import plain
from app.inspect import scoring_queue
from irl_core.checkpoints.manifest import MANIFEST

STATE: Final = "scored_runs"
MOST_RUNS: Final = 6
SECONDS_KEPT: Final = 5


@st.cache_data(ttl=SECONDS_KEPT, show_spinner=False)
def catalogue() -> list[RunInfo]:
    """The runs there are, looked up every few seconds at most."""
    return scored_runs.catalogue()


def choose(multiple: bool) -> list[RunInfo]:
    """Draw the chooser; the chosen runs. Where nothing was chosen yet, the first that the checkpoint of the sidebar has
    scored, or the first of all."""
    found = catalogue()
    usable = {info.name: info for info in found if not info.reason}
    for info in found:
        if info.reason:
            st.caption(plain(f"Not offered: {info.listed}. {info.reason}"))
    if not usable:
        st.info("There is no scored run yet. Upload solutions, or make one with irl-lens score or irl-lens evaluate.")
        return []
    names = list(usable)
    by_it = [name for name in names if scored_by(usable[name], st.session_state.get("checkpoint", ""))]
    first = (by_it or names)[:1]
    kept = [name for name in st.session_state.get(STATE, first) if name in names]  # chosen before, and still there
    if multiple:
        chosen: list[str] = st.multiselect(
            "Scored runs", names, kept, key="runs_shown", max_selections=MOST_RUNS, placeholder="Choose runs",
            format_func=lambda name: usable[name].listed,
        )  # fmt: skip
        if not chosen:
            st.info("Choose a scored run to see it.")
    else:
        at = names.index((kept or names)[0])
        chosen = [
            st.selectbox(
                "Scored run", names, at, key="run_shown", label_visibility="collapsed",
                format_func=lambda name: usable[name].listed,
            )
        ]  # fmt: skip
    st.session_state[STATE] = chosen
    runs = [usable[name] for name in chosen]
    # of one run the page names the checkpoint itself, and a reviewer judges texts, not figures
    if multiple and (words := of_others(runs, st.session_state.get("checkpoint", ""))):
        st.info(plain(words))
    return runs


def of_others(runs: list[RunInfo], checkpoint: str) -> str:
    """That runs were scored by another checkpoint than the one chosen in the sidebar, whose figures these are not;
    empty where they were not, or where it is not known."""
    if (own := sha_of(checkpoint)) is None:
        return ""
    others = [run for run in runs if run.provenance.get("checkpoint_sha256") not in (None, own)]
    if not others:
        return ""
    told = ", ".join(f"{run.listed} by {checkpoint_of(run.provenance) or 'another checkpoint'}" for run in others)
    return f"Scored by another checkpoint than {checkpoint}, which the sidebar has chosen: {told}."


def checkpoint_of(known: Mapping[str, Any]) -> str:
    """The name of the checkpoint that scored a run: as the sidebar lists it, where it is that very one, by its sha256;
    else as it calls itself. Empty where the run does not say."""
    listed = listed_names().get(str(known.get("checkpoint_sha256")))
    return listed or str(known.get("checkpoint") or "")


@st.cache_data(ttl=SECONDS_KEPT, show_spinner=False)
def listed_names() -> dict[str, str]:
    """The names of the checkpoints in the sidebar's list, by the sha256 of their manifests."""
    names = [info.name for info in scoring_queue.catalogue() if info.verified]
    return {sha: name for name in names if (sha := sha_of(name)) is not None}


def scored_by(run: RunInfo, checkpoint: str) -> bool:
    """Whether a run says that this very checkpoint, by its name, has scored it."""
    return (own := sha_of(checkpoint)) is not None and run.provenance.get("checkpoint_sha256") == own


def sha_of(checkpoint: str) -> str | None:
    """The sha256 of a checkpoint's manifest, by its name; None where there is none."""
    info = next((info for info in scoring_queue.catalogue() if info.name == checkpoint), None)
    manifest = None if info is None else info.path / MANIFEST
    if manifest is None or not manifest.is_file():
        return None
    return hashlib.sha256(manifest.read_bytes()).hexdigest()
