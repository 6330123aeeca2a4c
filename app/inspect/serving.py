"""Requests served while the page waits: their progress, their inspection kept in the session, or why there is none."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import streamlit as st

from app.components.markdown import plain
from app.inspect import history, many, results, scoring_queue, session
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
    with known.container(), suppress(InputError):  # of which `answer` tells
        check_inputs(request.problem, request.solution or None)
        tell_what_is_known(request)
    inspection = answer(request, info, session.stop)
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


def answer(
    request: Request, info: CheckpointInfo, stop: Callable[[], None], *, name: str = "inspect", before: str = ""
) -> Inspection | None:
    """The inspection that serves a request; where it is refused, None, and why is said.

    Args:
        request: to serve.
        info: the checkpoint that serves it.
        stop: called where the person stops it, before the page is drawn next.
        name: of the request, where one page may make several.
        before: stands before the words of its progress.
    """
    with waiting(f"stop_{name}", stop) as box:
        try:
            return inspected(request, info, box, before)
        except (InputError, Refused, CheckpointError) as error:
            fault = str(error)
    st.error(plain(fault))
    return None


@contextmanager
def waiting(key: str, stop: Callable[[], None]) -> Iterator[DeltaGenerator]:
    """A place for progress with a button beside it that calls ``stop``; both go when it is over, however it ends."""
    place = st.empty()
    with place.container(horizontal=True, vertical_alignment="center", key=f"strip_{key}"):
        box = st.empty()
        st.button("Stop", key=key, icon=":material/stop_circle:", on_click=stop)
    try:
        yield box
    except Exception:  # of a kind that nobody foresees: the next run of the page is not to meet it again
        stop()
        raise
    finally:
        place.empty()


def serve_many(work: many.Work, info: CheckpointInfo) -> None:
    """Inspect the requests of a file one after the other. Where the page is begun anew meanwhile, by another choice or
    since it was left, they go on where they were."""
    total = len(work.pasted.requests)
    with waiting("stop_many", history.stop_batch) as box:
        while not work.over:
            number = work.done + 1
            try:
                found = inspected(work.pasted.requests[work.done], info, box, f"{number} of {total}: ")
            except (InputError, Refused, CheckpointError) as error:
                work.faults.append(f"{number} of {total}: {error}")
            else:
                work.found.append(found)
                history.remember(found)
            work.done = number
    history.end_batch(work)


def inspected(request: Request, info: CheckpointInfo, box: DeltaGenerator, before: str = "") -> Inspection:
    """The inspection that serves a request; its progress is drawn in ``box``, with ``before`` before its words.

    Raises:
        InputError: a text that is refused. Refused: the queue is full. CheckpointError: it cannot be loaded.
    """
    check_inputs(request.problem, request.solution or None)
    own = st.session_state.setdefault("queue_session", uuid.uuid4().hex)
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
