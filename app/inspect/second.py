"""A pasted solution read by a second checkpoint, beside the first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import streamlit as st

from app import sidebar
from app.components.heatmap import heatmap
from app.inspect import results, scoring_queue, serving
from app.inspect.request import Inspection
from irl_core.report.heatmap.payload import Settings

CHOSEN: Final = "second_checkpoint"
FOUND: Final = "second"


@dataclass(frozen=True, slots=True)
class Second:
    """What a second checkpoint, of that name in the list, says of an inspected solution."""

    of: Inspection
    name: str
    found: Inspection


def choose(inspection: Inspection) -> None:
    """Offer the other checkpoints for a pasted solution, where there are any."""
    current = st.session_state.get("checkpoint")
    names = [info.name for info in scoring_queue.catalogue() if sidebar.offered(info) and info.name != current]
    if not names or not inspection.request.solution or inspection.run:
        return
    if st.session_state.get(CHOSEN) not in names:
        st.session_state[CHOSEN] = None
    st.selectbox(
        "Read by another checkpoint too", names, key=CHOSEN, index=None, placeholder="Beside it: another checkpoint",
        label_visibility="collapsed",
    )  # fmt: skip


def serve() -> None:
    """Have the second checkpoint read what is shown, once."""
    inspection: Inspection | None = st.session_state.get("inspection")
    name = st.session_state.get(CHOSEN)
    found: Second | None = st.session_state.get(FOUND)
    if inspection is None or name is None or not inspection.request.solution:
        st.session_state.pop(FOUND, None)
        return
    if found is not None and found.of is inspection and found.name == name:
        return
    st.session_state.pop(FOUND, None)
    info = next((info for info in scoring_queue.catalogue() if info.name == name and sidebar.offered(info)), None)
    other = (
        None
        if info is None
        else serving.answer(replace(inspection.request, at=None), info, leave, name="second", before=f"By {name}: ")
    )
    if other is not None:
        st.session_state[FOUND] = Second(inspection, name, other)


def leave() -> None:
    """Read by no second checkpoint; called when it is stopped."""
    st.session_state[CHOSEN] = None


def shown(inspection: Inspection) -> Second | None:
    """What the second checkpoint says of an inspection; None where it was not asked."""
    found: Second | None = st.session_state.get(FOUND)
    return found if found is not None and found.of is inspection else None


def draw(second: Second, settings: Settings) -> None:
    """The solution in the colours of the second checkpoint, on the same scale."""
    result = results.to_result(second.found, st.session_state["gamma"])
    description = results.description(second.found, result, 0)
    heatmap(
        result["traces"][0], {**description, "title": f"By {second.name}"}, settings, key="heatmap-second"
    )  # fmt: skip
