"""The form that asks for the first wrong step, for the Failures page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

import streamlit as st

from app import access
from app.analysis import failures, judgements
from app.analysis.failures import Listing
from app.components.markdown import plain
from irl_core.data.annotations import (
    ADJUDICATED,
    CATEGORIES,
    MOST_NOTE,
    SEVERITIES,
    Annotation,
    Annotations,
)
from irl_core.errors import AnnotationError
from irl_core.storage.schema import ScoredRow
from irl_core.text.step_numbers import step_numbers
from irl_core.types import Span

KEYED_STEPS: Final = 9
SETTLES: Final = (
    "Lists the texts on which annotators disagree, with what each said. Your answer settles it: it is what a "
    "calibration takes, and the note says that it was you."
)
SEVERITY_WORDS: Final = {
    "": "Severity", "minor": "minor: the answer is right all the same", "major": "major: the answer is wrong",
}  # fmt: skip
MORE_ASKED: Final = (
    "Two further fields for a wrong step: how much it matters, and which of its words are wrong. Select those in the "
    "solution, before you save; it is plain text until then, and afterwards they are typed here."
)
SAVED: Final = "annotation_saved_of"  # in the session: the trace that was saved last, until its answer is undone
KEYS: Final = "Keys: {}, 0 none, U unsure. Enter saves; Enter again goes on to the next unjudged one."
NOT_BLIND: Final = (
    ":material/warning: **Not blind:** the filters or the order say something of the model's answer or the label."
)
TOLD: Final = "annotation_told"  # in the session: `Told` of the last answer
GUIDELINES: Final = """
Name the **first** step that is wrong, whatever comes after it.

- A step is wrong where it calculates wrongly, takes a number or an operation that the problem does not give, or says
  what is not so. A clumsy or a needless step is not wrong.
- A step that carries on an earlier mistake correctly is not the first wrong one.
- A missing step makes the first step wrong that needs it.
- The answer line is wrong where all steps are right and it states something else.
- *Unsure* where the problem can be read in two ways, or the text cannot be followed.
- The reference is one way of several: another way is not wrong.
"""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of an answer, in ``words``; told to the annotator who gave it, on the run that it is of.

    Attributes:
        trace: the id of the trace and the number of its row: there it can be undone by its key.
    """

    words: str
    annotator: str
    run: str
    trace: tuple[str, int]


def draw_told(listing: Listing) -> None:
    """What became of the last answer, as a line below the list, where it covers nothing and the question keeps its
    height; nothing where that was in another name or run."""
    told: Told | None = st.session_state.get(TOLD)
    if told is None or (told.annotator, told.run) != (in_whose_name(), listing.info.name):
        st.session_state.pop(TOLD, None)  # nor is it told again on the way back
        return
    here = told.trace == (listing.trace_id(listing.place), listing.numbers[listing.place])
    undo_by = " Undo with Z." if here and not told.words.startswith(judgements.UNDONE) else ""
    st.caption(f":material/info: {plain(told.words)}{undo_by}")


def ask(
    listing: Listing,
    row: ScoredRow,
    *,
    blind: bool,
    answered: Annotation | None,
    last: Annotation | None,
    further: int | None,
    look_at: Callable[..., None],
) -> None:
    """Ask for the first wrong step (by button or key), a category and a note, and save them.

    Once it is ``answered`` (then what was said ``last`` can be undone), Enter goes ``further``, to the place of the
    next text that is not judged, until another choice is made; ``look_at(listing, place)`` goes there.
    """
    state = st.session_state
    if "annotation_error" in state:
        st.error(plain(state.pop("annotation_error")))
    if why := access.reason("annotate"):
        st.info(plain(why))
        return
    begin(listing, row, answered)
    draw_choices(listing, row, answered, last)
    # it lies over what is above the question, whose height stays (see failures.css)
    if answered is not None and state["choice"] is not None:
        with st.container(key="status"):
            st.caption(plain(judgements.again_words(answered, state["choice"], row, blind=blind)))
    elif answered is None and not blind and not state["model_first"]:
        with st.container(key="status"):
            st.caption(NOT_BLIND)
    with st.container(horizontal=True, vertical_alignment="bottom", key="say"):
        draw_form(listing, row, blind=blind, answered=answered, further=further, look_at=look_at)
        st.toggle("Severity, wrong words", key="more_asked", persist_state="session", help=MORE_ASKED, width="content")


def begin(listing: Listing, row: ScoredRow, answered: Annotation | None) -> None:
    """Where another trace is asked for, in another name, or after another answer: no choice, and in the fields what
    was said of it."""
    state = st.session_state
    whose = (in_whose_name(), "" if answered is None else answered.created)
    identity = (row["trace_id"], listing.numbers[listing.place], *whose)
    if state.get("answering") == identity:
        return
    words = "" if answered is None else judgements.words_of(answered, row["text"])
    state.update(
        choice=None,  # first: a second Enter may end this run anywhere, and finds nothing to save
        answering=identity,
        ticket={},
        category="" if answered is None else answered.category,
        note="" if answered is None else judgements.note_of(answered, state["annotator"]),
        severity="" if answered is None else answered.severity,
        wrong_words=words,
        wrong_span=(answered.span_start, answered.span_end) if answered is not None and words else None,
    )


def keys_words(row: ScoredRow) -> str:
    """Which key is which answer on a row: a step has the digit of its place, which is told of each step where the text
    itself numbers its steps otherwise."""
    places = range(1, len(row["steps"]) + 1)
    if step_numbers(failures.steps_of(row)) == tuple(places):
        return KEYS.format(f"1 to {KEYED_STEPS} a step")
    return KEYS.format(", ".join(f"{key} is {failures.step_called(row, key - 1)}" for key in places[:KEYED_STEPS]))


def draw_choices(listing: Listing, row: ScoredRow, answered: Annotation | None, last: Annotation | None) -> None:
    """The buttons of the answers, and *Undo* where there is one; for the arguments see `ask`."""
    with st.container(horizontal=True, vertical_alignment="center", key="choices"):
        for number in range(len(row["steps"])):
            label = failures.step_heading(row, number)
            choice_button(row, str(number), label, str(number + 1) if number < KEYED_STEPS else None)
        choice_button(row, "none", "No step is wrong", "0")
        choice_button(row, "unsure", "Unsure", "U")
        if answered is not None and last is not None:
            st.button(
                "Undo", key="undo", shortcut="Z", on_click=undo, args=(listing, last, answered, row),
                icon=":material/undo:", help=judgements.undo_words(last, answered, row),
            )  # fmt: skip


def draw_form(
    listing: Listing,
    row: ScoredRow,
    *,
    blind: bool,
    answered: Annotation | None,
    further: int | None,
    look_at: Callable[..., None],
) -> None:
    """The fields of the answer with the button that saves it, or goes on; for the arguments see `ask`."""
    state = st.session_state
    with st.form("said", border=False):  # Enter in the note sends it
        left, right, save_column = st.columns([1, 2, 1], vertical_alignment="bottom")
        left.selectbox(
            "Category", CATEGORIES, key="category", format_func=lambda name: name or "Category",
            label_visibility="collapsed",
        )  # fmt: skip
        right.text_input("Note", key="note", max_chars=MOST_NOTE, label_visibility="collapsed", placeholder="Note")
        if state["choice"] is None and answered is not None and further is not None:
            save_column.form_submit_button(
                "Next unjudged", type="primary", shortcut="Enter", width="stretch", on_click=look_at,
                args=(listing, further),
            )  # fmt: skip
        else:
            save_column.form_submit_button(
                "Save", type="primary", shortcut="Enter", disabled=state["choice"] is None, width="stretch",
                on_click=save, args=(listing, row, blind, further, look_at),
            )  # fmt: skip
        if state.get("more_asked"):
            draw_more()


def draw_more() -> None:
    """The two further fields of the form."""
    how_bad, which = st.columns([1, 3], vertical_alignment="bottom")
    how_bad.selectbox(
        "Severity", SEVERITIES, key="severity", format_func=SEVERITY_WORDS.__getitem__, label_visibility="collapsed"
    )
    which.text_input(
        "Wrong words", key="wrong_words", max_chars=MOST_NOTE, label_visibility="collapsed", placeholder="Wrong words"
    )


def in_whose_name() -> str:
    """The annotator whose answers are shown: who annotates, or where disagreements are settled, everybody."""
    name: str = ADJUDICATED if st.session_state.get("adjudicate") else st.session_state["annotator"]
    return name


def choice_button(row: ScoredRow, value: str, label: str, key: str | None) -> None:
    """A button that chooses the answer ``value``; ``key``: the key that does so too."""

    def take() -> None:
        span = marked_in(row)
        st.session_state["choice"] = value
        if span is not None and value.isdigit() and judgements.step_with(row, span) != int(value):
            st.session_state.update(wrong_words="", wrong_span=None)  # they are words of another step

    kind: Literal["primary", "secondary"] = "primary" if st.session_state["choice"] == value else "secondary"
    st.button(label, key=f"choice_{value}", type=kind, shortcut=key, on_click=take)


def mark(row: ScoredRow, span: Span) -> None:
    """Take the whole words that were marked in the text, and the step that holds them, as the answer that is given."""
    step = judgements.step_with(row, span)
    if step is not None:
        within = (row["steps"][step]["start"], row["steps"][step]["end"])
        span = judgements.whole_words(row["text"], span, within)
        st.session_state.update(wrong_words=row["text"][slice(*span)].strip(), wrong_span=span, choice=str(step))


def marked_in(row: ScoredRow) -> Span | None:
    """The words of a row that are marked; None where none are, or others were typed since."""
    span: Span | None = st.session_state.get("wrong_span")
    said = st.session_state.get("wrong_words", "").strip()
    return span if span is not None and row["text"][slice(*span)] == said else None


def save(
    listing: Listing, row: ScoredRow, blind: bool, further: int | None, look_at: Callable[[Listing, int], None]
) -> None:
    """Write the annotation of the very row that was shown; the model's answer is shown from then on. Who writes, and
    whether they may, is asked here: the page may be hours old, and its widgets send what a browser is made to send.

    A second Enter that comes before the page is drawn anew saves nothing again, and goes ``further`` as a later one.
    """
    state, identity = st.session_state, (row["trace_id"], listing.numbers[listing.place])
    # any look into the session may end this run for the one of a second Enter: what was written is noted without one
    ticket: dict[str, bool] = state["ticket"]
    if ticket or state["choice"] is None:  # there is nothing left to save, or a button that is disabled sent it
        if (ticket or state.get(SAVED) == identity) and further is not None:
            look_at(listing, further)
        if ticket:
            state.update({"choice": None, "answering": None, SAVED: identity})
        return
    try:
        person, note = access.writer("annotate", state["annotator"]), state["note"].strip()
        if person == ADJUDICATED:
            raise AnnotationError(f"the name {ADJUDICATED} is that of settled disagreements; take your own")
        who = person
        if state.get("adjudicate"):
            who, note = ADJUDICATED, f"{person}: {note}".removesuffix(": ")
        annotation = judgements.annotation(
            row, listing.info.name, who, state["choice"], category=state["category"], note=note, blind=blind,
            severity=state.get("severity", ""), words=state.get("wrong_words", ""),
            marked=state.get("wrong_span"),
        )  # fmt: skip
        known = Annotations(failures.DATABASE)
        if blind and any(known.answered(annotation.text_sha256, name) for name in {who, person}):
            # the model's answer was shown then
            annotation = replace(annotation, blind=False)
        before = known.latest().get((annotation.text_sha256, who))
        annotation = known.add(annotation)
        ticket["written"] = True
    except (AnnotationError, access.NotAllowedError) as error:
        state["annotation_error"] = f"Not saved: {error}"
        return
    name = failures.name_of(*identity, telling=True)
    state[TOLD] = Told(judgements.saved_words(before, annotation, row, name), who, listing.info.name, identity)
    state.update({"choice": None, "answering": None, SAVED: identity})


def undo(listing: Listing, last: Annotation, counts: Annotation, row: ScoredRow) -> None:
    """Withdraw the ``last`` annotation of a row, which was a slip; it stays in the file, and counts nowhere.
    ``counts``: the one of the same text that does, which may be the same."""
    state = st.session_state
    try:
        access.writer("annotate", state["annotator"])
        gone = Annotations(failures.DATABASE).withdraw(last)
    except (AnnotationError, access.NotAllowedError) as error:
        state["annotation_error"] = f"Not undone: {error}"
        return
    identity = (row["trace_id"], listing.numbers[listing.place])
    words = judgements.undone_words(last, counts, row) if gone else f"{judgements.UNDONE} already."
    state[TOLD] = Told(words, last.annotator, listing.info.name, identity)
    state.update({"answering": None, SAVED: None})
