"""What was inspected in this session, the newest first; what is opened again runs no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from app.components import cards
from app.components.filling import fill
from app.inspect import many, results, session
from app.inspect.many import Pasted, Work
from app.inspect.request import Inspection
from irl_core.reward.verdict import cell_of

STATE: Final = "history"
PENDING: Final = "batch_pending"
BATCH: Final = "batch"
OPENS: Final = "opens"
FORM_BEFORE: Final = "form_before_batch"
MOST: Final = 100
MOST_BYTES: Final = 30_000_000  # of a session; forty sessions of this size fit the memory of a small server
BYTES_OF_A_CHARACTER: Final = 4
BYTES_OF_A_TOKEN: Final = 400  # its span, its id, rewards and log-probability, as Python keeps them
POPOVER: Final = "before_open"  # the key of the popover: whether it is open; a choice closes it
COLUMNS: Final = {
    "problem": st.column_config.TextColumn("Problem", width=130),
    "solution": st.column_config.TextColumn("Solution", width=130),
    "verdict": st.column_config.TextColumn("Verdict", width=190),
    "when": st.column_config.TextColumn("When", width=64),
    "in words": st.column_config.TextColumn("What was found", width=300),
    "checkpoint": st.column_config.TextColumn("Checkpoint"),
}
MOST_WORDS: Final = 60
ROW_PIXELS: Final = 35


def all_of_them() -> list[Inspection]:
    """The inspections of this session, the newest first."""
    found: list[Inspection] = st.session_state.setdefault(STATE, [])
    return found


def remember(inspection: Inspection) -> None:
    """Put an inspection in front; an earlier one of the same request with the same checkpoint goes."""
    same = (inspection.request, inspection.name)
    others = [one for one in all_of_them() if (one.request, one.name) != same]
    kept = [inspection, *others][:MOST]
    totals = list(accumulate(map(size_of, kept)))
    st.session_state[STATE] = kept[: max(1, sum(total <= MOST_BYTES for total in totals))]


def size_of(inspection: Inspection) -> int:
    """About how many bytes an inspection takes: by its characters, its tokens and what goes with each."""
    return sum(
        BYTES_OF_A_CHARACTER * len(one.trace.problem + one.trace.text) + BYTES_OF_A_TOKEN * len(one.raw)
        for one in inspection.scored
    )


def open_again(inspection: Inspection) -> None:
    """Show an inspection, with its texts in the form."""
    asked = inspection.request
    fill(
        problem=asked.problem, solution=asked.solution, answer=asked.answer, n=asked.n, seed=asked.seed,
        temperature=asked.temperature, way=asked.way,
    )  # fmt: skip
    session.empty_chooser()
    steps = (asked.solution, asked.steps)
    st.session_state.update(hand_steps=steps, chosen=None, versus=None, inspection=inspection)


def open_waiting() -> None:
    """Show the inspection that waits to be shown: before any widget that it fills is drawn."""
    waiting = st.session_state.pop(OPENS, None)
    if waiting is not None:
        open_again(waiting)


def draw(inspections: Sequence[Inspection], key: str, most_rows: int = 8) -> None:
    """A table of inspections; the one that is chosen is opened."""

    def take(place: int) -> None:
        open_again(inspections[place])
        st.session_state[POPOVER] = False

    cards.table(
        [row(one) for one in inspections], key, title="Inspected", choose=take, columns=COLUMNS,
        height=ROW_PIXELS * (min(len(inspections), most_rows) + 1) + 3,
    )  # fmt: skip


def row(inspection: Inspection) -> dict[str, str]:
    """An inspection in a table: what was found, and of what."""
    asked = inspection.request
    if asked.solution or asked.way:
        verdict = results.verdict_of(inspection)
        trace = inspection.scored[0].trace
        found, says = cell_of(verdict.ruling, trace.correct, trace.steps), verdict.headline
    else:
        found, says = f"{len(inspection.scored)} samples", results.majority_words(inspection)
    return {
        "problem": beginning(asked.problem),
        "solution": beginning(asked.solution),
        "verdict": found,
        "when": clock(inspection.when),
        "in words": says,
        "checkpoint": inspection.name,
    }


def clock(when: datetime | None) -> str:
    """A time of the day where the browser is, as far as it says so."""
    if when is None:
        return ""
    try:
        zone = ZoneInfo(st.context.timezone or "UTC")
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return when.strftime("%H:%M UTC")
    return when.astimezone(zone).strftime("%H:%M")


def beginning(text: str) -> str:
    """The first words of a text on one line."""
    words = " ".join(text.split())
    return words if len(words) <= MOST_WORDS else f"{words[: MOST_WORDS - 1]}\u2026"


# --------------------------------------------------------------------------------------------------- many at once


@dataclass(frozen=True, slots=True)
class Batch:
    """Inspections that were made at once, what came of them in words, and why others were not made."""

    inspections: tuple[Inspection, ...]
    words: str
    faults: tuple[str, ...]


def begin_batch(pasted: Pasted) -> None:
    """Have the solutions of a pasted file inspected when the page is drawn next."""
    st.session_state.update({PENDING: Work(pasted, faults=list(pasted.faults)), FORM_BEFORE: form_texts()})


def form_texts() -> tuple[str, ...]:
    """The texts that stand in the form."""
    return tuple(str(st.session_state.get(name, "")) for name in ("problem", "solution", "answer"))


def pending() -> Work | None:
    """The file that is being worked through, until all of it is inspected or it is stopped."""
    found: Work | None = st.session_state.get(PENDING)
    return found


def stop_batch() -> None:
    """Leave out what is not inspected yet; called when it is stopped."""
    if (work := pending()) is not None:
        work.stopped = True


def end_batch(work: Work) -> None:
    """Keep what came of a file, and open its first solution where nothing was typed into the form meanwhile."""
    st.session_state.pop(PENDING, None)
    left = len(work.pasted.requests) - work.done
    words = many.words(work.found, len(work.faults), left)
    st.session_state[BATCH] = Batch(tuple(work.found), words, tuple(work.faults))
    if work.found and st.session_state.get(FORM_BEFORE) == form_texts():
        st.session_state[OPENS] = work.found[0]
        st.rerun()


def draw_batch() -> None:
    """The table of the last file, until it is closed."""
    batch: Batch | None = st.session_state.get(BATCH)
    if batch is None:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text(batch.words)
        st.button("Close this list", on_click=lambda: st.session_state.pop(BATCH, None), icon=":material/close:")
    if batch.faults:
        with st.expander(f"Not inspected: {len(batch.faults)}"):
            st.text("\n".join(batch.faults))
    if batch.inspections:
        st.caption("The box at the start of a row opens it.")
        draw(batch.inspections, "batch_table", most_rows=4)


def draw_popover() -> None:
    """What was inspected before, folded away."""
    found = all_of_them()
    with st.popover(
        "Before", icon=":material/history:", disabled=len(found) < 2, width="content", key=POPOVER, on_change="rerun"
    ):
        st.caption(
            "What was inspected in this session, the last one first. The box at the start of a row opens it again."
        )
        if found:
            draw(found, "history_table")
