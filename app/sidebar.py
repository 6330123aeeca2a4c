"""The sidebar: checkpoint with its provenance, device, machine, the training form and the jobs."""

from __future__ import annotations

from typing import Final

import streamlit as st

from app import access
from app.components.markdown import plain
from app.inspect import scoring_queue
from app.jobs import machine, panel, training_form
from app.jobs.supervisor import GPU_CONTROL
from irl_core.checkpoints.find import CheckpointInfo, default_roots
from irl_core.home import place_words
from irl_core.models.bundled import BUNDLED, default_checkpoint

OWN_MODEL: Final = """
Put a checkpoint directory (safetensors with its manifest, as training writes it) under `runs/`, and choose it here; or
start the app with the folder that holds it in the environment variable `IRL_LENS_CHECKPOINTS`.
"""


def show() -> None:
    """Draw the sidebar and remember the chosen checkpoint and device in the session."""
    access.show_login()
    known = scoring_queue.catalogue()
    usable = {info.name: info for info in known if offered(info)}
    keep_valid(usable)
    if usable:
        st.selectbox("Checkpoint", list(usable), key="checkpoint", persist_state="session")
        devices = ["auto", "cpu", *(["cuda"] if GPU_CONTROL.exists() else [])]
        st.selectbox(
            "Device", devices, key="device", help="auto takes the GPU where there is one.", persist_state="session"
        )
        st.caption(plain(". ".join(machine.words()) + "."))
        show_provenance(usable[st.session_state["checkpoint"]])
        note = default_checkpoint(default_roots()[0]).note
        if note and st.session_state["checkpoint"] == BUNDLED[-1]:
            st.info(plain(note))
    for info in known:
        if not info.verified:
            st.caption(plain(f"Not offered: {info.name}. {info.reason}"))
    with st.expander("Use a model of your own"):
        st.markdown(OWN_MODEL)
        st.caption(plain(f"{place_words()}."))
    st.subheader("Training", divider="gray")
    button = st.empty()
    startable = panel.show(usable)
    may = access.may("train")
    why = None if may else access.reason("train")
    if button.button("Train \u2026", icon=":material/model_training:", disabled=not (startable and may), help=why):
        training_form.open_anew()
    if st.session_state.get(training_form.OPEN):  # also where the page is drawn anew because a job has ended
        training_form.show()


def chosen() -> CheckpointInfo | None:
    """The checkpoint chosen in the sidebar, or None where there is none to choose."""
    name = st.session_state.get("checkpoint")
    return next((info for info in scoring_queue.catalogue() if offered(info) and info.name == name), None)


def offered(info: CheckpointInfo) -> bool:
    """Whether a checkpoint can be chosen: whole, and calibrated. States of a training, saved on its way, are not."""
    return info.verified and "localisation" in info.config


def keep_valid(usable: dict[str, CheckpointInfo]) -> None:
    """Take the checkpoint of a link once; forget a choice that is no longer there."""
    state = st.session_state
    linked = state.pop("linked_checkpoint", "")
    if (name := listed_as(linked, usable)) is not None:
        state["checkpoint"] = name
    elif linked:
        state["link_error"] = "The checkpoint of this link is not here; what is shown is of the one in the sidebar."
    if state.get("checkpoint") not in usable:
        state.pop("checkpoint", None)


def listed_as(linked: str, usable: dict[str, CheckpointInfo]) -> str | None:
    """The name in the list of the checkpoint that a link names: by that name, or, as older links do, by the one that
    the checkpoint gives itself; None where it is not in the list."""
    if linked in usable:
        return linked
    return next((name for name, info in usable.items() if linked and info.config.get("name") == linked), None)


def show_provenance(info: CheckpointInfo) -> None:
    """Where a checkpoint comes from, as it says itself."""
    with st.expander("Where it comes from"):
        if not info.origin:
            st.caption("This checkpoint does not say.")
        for name, words in info.origin.items():
            st.caption(plain(name))
            st.text(words)
