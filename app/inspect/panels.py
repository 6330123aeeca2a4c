"""What is folded away on the Inspect page: many solutions at once, and steps set by hand."""

from __future__ import annotations

import hashlib
import json
from typing import Final

import streamlit as st

from app.components.markdown import plain
from app.inspect import examples, history, many
from app.inspect.request import Inspection
from app.inspect.steps import DASHES, StepsError, marked, read_marked

MANY_OPEN: Final = "many_open"  # the keys of the popovers: whether they are open; an action closes its own
SAMPLED: Final = 4  # rows of the example
STEPS_OPEN: Final = "steps_open"


def paste_many() -> None:
    """Ask for a file of solutions that are inspected one after the other."""
    with st.popover("Many at once", icon=":material/playlist_add:", key=MANY_OPEN, on_change="rerun"):
        st.caption(
            f"JSON lines as the Upload page takes them, at most {many.MOST}; or solutions of the problem in the form, "
            f"with a line of {DASHES} between them."
        )
        st.text_area("Paste a file", key="pasted", height=200)
        st.button(
            "Put in an example", type="tertiary", icon=":material/edit_note:",
            on_click=lambda: st.session_state.update(pasted=sample()),
        )  # fmt: skip

        def take() -> None:
            state = st.session_state
            try:
                history.begin_batch(many.read_pasted(state["pasted"], state["problem"], state["answer"].strip()))
            except many.ManyError as error:
                state["many_error"] = str(error)
            else:
                state[MANY_OPEN] = False

        st.button("Inspect them all", on_click=take, type="primary")
    if "many_error" in st.session_state:
        st.error(plain(st.session_state.pop("many_error")))


def sample() -> str:
    """Some rows to try: the first problems that the chosen checkpoint knows, wrong and right in turns."""
    known, _ = examples.load(examples.file_of(st.session_state.get("checkpoint", "")))
    rows = []
    for place, one in enumerate(known[:SAMPLED]):
        solution = one.solution if place % 2 else one.wrong_solution or one.solution
        rows.append({"question": one.problem, "solution": solution, "answer": one.answer})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def steps_by_hand(inspection: Inspection) -> None:
    """Split and join the steps of a pasted solution; they are numbered anew."""
    trace = inspection.scored[0].trace
    said = marked(trace.text, trace.steps)
    key = "marked_" + hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:16]

    def take() -> None:
        try:
            spans = read_marked(trace.text, st.session_state[key])
        except StepsError as error:
            st.session_state["steps_error"] = str(error)
        else:
            st.session_state.update({"hand_steps": (trace.text, spans), "run_now": True, STEPS_OPEN: False})

    def forget() -> None:
        st.session_state.update({"hand_steps": ("", ()), "run_now": True, STEPS_OPEN: False})

    if "steps_error" in st.session_state:
        st.error(plain(st.session_state.pop("steps_error")))
    with st.popover("Steps by hand", icon=":material/format_list_numbered:", key=STEPS_OPEN, on_change="rerun"):
        st.caption(f"A line of {DASHES} stands between two steps: add one to split a step, take it away to join two.")
        st.text_area("Steps", said, key=key, height=220, label_visibility="collapsed")
        with st.container(horizontal=True):
            st.button("Use these steps", on_click=take, type="primary")
            st.button("As they were read", on_click=forget, disabled=not inspection.request.steps)
