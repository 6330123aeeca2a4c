"""What is folded away on the Inspect page: how solutions are sampled, many at once, and steps set by hand."""

from __future__ import annotations

import hashlib
import json
from typing import Final

import streamlit as st

from app.components.markdown import plain
from app.inspect import examples, history, many
from app.inspect.request import Inspection
from app.inspect.steps import DASHES, StepsError, marked, read_marked
from irl_core.scorer import MAX_SAMPLES
from irl_core.strategies import STRATEGIES

MANY: Final = "many"  # how many popovers of it there were before this one: a new one is closed, whatever a browser has
SAMPLED: Final = 4  # rows of the example
STEPS_OPEN: Final = "steps_open"  # the key of its popover: whether it is open; its action closes it
WAYS: Final = {
    "": "each on its own",
    "early rejection": "early rejection: begin eight, end two",
    "self-revision": "self-revision: anew from the first error",
    "guided decoding": "guided decoding: the best of four lines",
}


def sampling() -> None:
    """How solutions are written where none is pasted; only the settings that have an effect."""
    state = st.session_state
    way = state["way"]
    with st.expander("Sampling"):  # its label stays: with another one it would be folded away at every choice
        st.selectbox(
            "How they are written", ("", *STRATEGIES), format_func=WAYS.__getitem__, key="way",
            persist_state="session",
            help="All but the first use the reward, and take longer. What each way gains over plain samples of as many "
            "tokens was measured on problems of the demo: see docs/studies.md.",
        )  # fmt: skip
        if not way:
            st.slider("Solutions to write", 1, MAX_SAMPLES, key="n", persist_state="session")
        seed, temperature = st.columns(2)
        seed.number_input(
            "Seed (0 or more)", 0, 2**31 - 1, step=1, key="seed", persist_state="session",
            help="The number that chance starts from: the same one gives the same solutions on a CPU.",
        )  # fmt: skip
        if not way:
            temperature.number_input(
                "Temperature (0.1 to 2)", 0.1, 2.0, step=0.1, key="temperature", persist_state="session",
                help="How much the solutions vary: low, they are much alike; high, they are daring.",
            )  # fmt: skip
    many = f"{state['n']} solutions, seed {state['seed']}, temperature {state['temperature']:g}."
    st.caption(f"One solution by {way}, seed {state['seed']}." if way else many)


def paste_many() -> None:
    """Ask for a file of solutions that are inspected one after the other."""
    key = f"many_open_{st.session_state.setdefault(MANY, 0)}"
    with st.popover("Many at once", icon=":material/playlist_add:", key=key, on_change="rerun"):
        st.caption(
            f"JSON lines, or CSV with a line of column names, as the Upload page takes them, at most {many.MOST} rows; "
            f"or solutions of the problem in the form, with a line of {DASHES} between them."
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
                state[MANY] += 1

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
