"""Requests served while the page waits: their progress, their inspection kept in the session, or why there is none."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import streamlit as st

from app.components.markdown import plain
from app.inspect import history, many, results, scoring_queue
from app.inspect.request import Inspection, Request
from app.inspect.scoring_queue import Refused, Ticket
from irl_core.checkpoints.find import CheckpointInfo
from irl_core.errors import CheckpointError, InputError
from irl_core.scorer import check_inputs

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

POLL_SECONDS: Final = 0.15


def serve(request: Request, info: CheckpointInfo) -> None:
    """Run the models and keep the inspection in the session; where that fails, say why and keep nothing."""
    st.session_state.pop("inspection", None)
    known = st.empty()
    with known.container():
        tell_what_is_known(request)
    inspection = answer(request, info)
    if inspection is not None:
        known.empty()  # the verdict has it too
        st.session_state["inspection"] = inspection
        history.remember(inspection)


def tell_what_is_known(request: Request) -> None:
    """Say of a pasted solution what needs no model, while one is asked: its equations, and its answer."""
    if not request.solution:
        return
    st.markdown("**Known without the model**")
    st.markdown("\n".join(f"- {plain(line)}" for line in results.known_without_a_model(request)))


def answer(request: Request, info: CheckpointInfo) -> Inspection | None:
    """The inspection that serves a request; where it is refused, None, and why is said."""
    try:
        return inspected(request, info)
    except (InputError, Refused, CheckpointError) as error:
        st.error(plain(str(error)))
    return None


def serve_many(pasted: many.Pasted, info: CheckpointInfo) -> None:
    """Inspect requests one after the other; those that are done are kept, whatever becomes of the page."""
    found, faults, total = [], list(pasted.faults), len(pasted.requests)
    for number, request in enumerate(pasted.requests, start=1):
        try:
            found.append(inspected(request, info, f"{number} of {total}: "))
        except (InputError, Refused, CheckpointError) as error:
            faults.append(f"{number} of {total}: {error}")
        else:
            history.remember(found[-1])
    history.end_batch(found, many.words(found, len(faults)), faults)


def inspected(request: Request, info: CheckpointInfo, before: str = "") -> Inspection:
    """The inspection that serves a request; ``before`` stands before the words of its progress.

    Raises:
        InputError: a text that is refused. Refused: the queue is full. CheckpointError: it cannot be loaded.
    """
    check_inputs(request.problem, request.solution or None)
    own, box = st.session_state.setdefault("queue_session", uuid.uuid4().hex), st.empty()
    desk = scoring_queue.desk(info, st.session_state.get("device", "auto"))
    return follow(desk.submit(request, own), info.name, box, before)


def follow(ticket: Ticket, listed: str, box: DeltaGenerator, before: str = "") -> Inspection:
    """Draw the progress of a ticket until it is done; give it up when this run of the page is ended.

    Args:
        ticket: of the request.
        listed: the checkpoint's name in the list.
        box: where the progress is drawn. It is there already: a run of the page may be ended wherever it draws, and a
            ticket that nobody has given up would keep the next request of this session waiting.
        before: stands before the words of the progress.
    """
    try:
        while not ticket.wait(POLL_SECONDS):
            now, ahead = ticket.progress, ticket.ahead()
            words = f"Busy: {ahead} ahead of you." if ahead else f"{now.stage.capitalize()} \u2026"
            if now.total and not ahead:
                words = f"{now.stage.capitalize()} {now.done} of {now.total}"
            box.progress(now.done / now.total if now.total else 0.0, text=before + words)
        return replace(ticket.result(), listed=listed, when=datetime.now(UTC))
    finally:
        ticket.give_up()
        box.empty()
