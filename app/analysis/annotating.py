"""The form that asks for the first wrong step, agreement, and the exchange of annotations, for the Failures page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal

import streamlit as st

from app import access
from app.analysis import failures, judgements
from app.analysis.catalogue import RunInfo
from app.analysis.failures import Listing
from app.components import chart
from app.components.markdown import plain
from irl_core.data.annotations import (
    ADJUDICATED,
    CATEGORIES,
    MOST_NOTE,
    SEVERITIES,
    Annotation,
    Annotations,
    from_jsonl,
    to_jsonl,
)
from irl_core.errors import AnnotationError
from irl_core.storage.schema import ScoredRow
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
    "solution, before you save; it is plain text until then."
)
SAVED: Final = "annotation_saved_of"  # in the session: the trace that was saved last, until its answer is undone
UNDO: Final = "Withdraws your answer. The next one on this text is not blind: the model's was shown."


def ask(
    listing: Listing,
    row: ScoredRow,
    *,
    blind: bool,
    answered: Annotation | None,
    further: int | None,
    look_at: Callable[..., None],
) -> None:
    """Ask for the first wrong step (by button or key), a category and a note, and save them.

    Once it is ``answered`` (then that can be undone), Enter goes ``further``, to the place of the next text that is not
    judged, until another choice is made; ``look_at(listing, place)`` goes there.
    """
    if "annotation_error" in st.session_state:
        st.error(plain(st.session_state.pop("annotation_error")))
    if why := access.reason("annotate"):
        st.info(plain(why))
        return
    state, identity = st.session_state, (row["trace_id"], listing.numbers[listing.place])
    if state.get("answering") != identity:  # another trace: nothing is chosen yet
        state.update(
            choice=None,  # first: a second Enter may end this run anywhere, and finds nothing to save
            answering=identity,
            ticket={},
            category="",
            note="",
            severity="",
            wrong_words="",
            wrong_span=None,
        )
    with st.container(horizontal=True, vertical_alignment="center", key="choices"):
        for number, step in enumerate(row["steps"]):
            label = "Answer line" if step.get("role") == "answer" else f"Step {number + 1}"
            choice_button(str(number), label, str(number + 1) if number < KEYED_STEPS else None)
        choice_button("none", "No step is wrong", "0")
        choice_button("unsure", "Unsure", "U")
        if answered is not None and answered.own:
            st.button("Undo", shortcut="Z", on_click=undo, args=(answered,), icon=":material/undo:", help=UNDO)
        if answered is None or state["choice"] is not None:
            st.toggle(
                "Severity, wrong words", key="more_asked", persist_state="session", help=MORE_ASKED, width="content"
            )
    if answered is not None and state["choice"] is not None:
        st.caption(plain(judgements.again_words(answered, state["choice"], row, blind=blind)))
    with st.form("said", border=False):  # Enter in the note sends it
        left, right, save_column = st.columns([1, 2, 1], vertical_alignment="bottom")
        left.selectbox(
            "Category", CATEGORIES, key="category", format_func=lambda name: name or "Category",
            label_visibility="collapsed",
        )  # fmt: skip
        right.text_input(
            "Note", key="note", max_chars=MOST_NOTE, label_visibility="collapsed",
            placeholder="Note. Keys: 1 to 9 a step, 0 none, U unsure. Enter saves; Enter again goes on.",
        )  # fmt: skip
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
            how_bad, which = st.columns([1, 3], vertical_alignment="bottom")
            how_bad.selectbox(
                "Severity", SEVERITIES, key="severity", format_func=SEVERITY_WORDS.__getitem__,
                label_visibility="collapsed",
            )  # fmt: skip
            which.text_input(
                "Wrong words", key="wrong_words", max_chars=MOST_NOTE, label_visibility="collapsed",
                placeholder="The wrong words: mark them above, or type them here",
            )  # fmt: skip
    if "annotation_saved" in state:
        st.toast(plain(state.pop("annotation_saved")))


def in_whose_name() -> str:
    """The annotator whose answers are shown: who annotates, or where disagreements are settled, everybody."""
    name: str = ADJUDICATED if st.session_state.get("adjudicate") else st.session_state["annotator"]
    return name


def choice_button(value: str, label: str, key: str | None) -> None:
    """A button that chooses the answer ``value``; ``key``: the key that does so too."""

    def take() -> None:
        st.session_state["choice"] = value

    kind: Literal["primary", "secondary"] = "primary" if st.session_state["choice"] == value else "secondary"
    st.button(label, key=f"choice_{value}", type=kind, shortcut=key, on_click=take)


def mark(row: ScoredRow, span: Span) -> None:
    """Take words that were marked in the text, and the step that holds them, as the answer that is being given."""
    step = next((n for n, one in enumerate(row["steps"]) if one["start"] <= span[0] and span[1] <= one["end"]), None)
    if step is not None:
        st.session_state.update(wrong_words=row["text"][slice(*span)], wrong_span=span, choice=str(step))


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
    state["annotation_saved"] = judgements.saved_words(before, annotation, failures.name_of(*identity, telling=True))
    state.update({"choice": None, "answering": None, SAVED: identity})


def undo(annotation: Annotation) -> None:
    """Withdraw an annotation that was a slip; it stays in the file, and counts nowhere."""
    state = st.session_state
    try:
        access.writer("annotate", state["annotator"])
        gone = Annotations(failures.DATABASE).withdraw(annotation)
    except (AnnotationError, access.NotAllowedError) as error:
        state["annotation_error"] = f"Not undone: {error}"
        return
    said = judgements.judgement_words(annotation.label)
    state["annotation_saved"] = f"Undone: {said}" if gone else "It was undone already."
    state.update({"answering": None, SAVED: None})


def show_agreement(info: RunInfo, annotations: Sequence[Annotation]) -> None:
    """How far annotators agree with each other, and with the model."""
    import pandas as pd

    with st.expander("Agreement between annotators, and with the model", icon=":material/handshake:"):
        rows = judgements.agreement_rows(info, annotations)
        if not rows:
            st.caption("No solution was judged twice, and none of this run blindly.")
            return
        chart.show_table(pd.DataFrame(rows), "agreement")
        st.caption(
            "Cohen's kappa: 1 is full agreement, 0 what chance gives. Brackets: 95 % intervals by a bootstrap over "
            "problems. Only blind annotations are compared with the model; of an annotator's answers on a text the "
            "newest blind one counts, and where none is blind the newest."
        )


def exchange(annotations: Sequence[Annotation]) -> None:
    """Export and import of annotations."""
    with st.expander("Export and import annotations", icon=":material/swap_vert:"):
        st.download_button(
            f"JSONL of all {len(annotations):,} annotations", to_jsonl(annotations), "annotations.jsonl",
            "application/x-ndjson", on_click="ignore", icon=":material/download:",
        )  # fmt: skip
        if why := access.reason("annotate"):
            st.caption(plain(why))
            return
        given = st.file_uploader("Import JSONL; what is there already is passed over", type=["jsonl"], key="import")
        if given is None or not st.button("Import"):
            return
        try:
            rows = from_jsonl(given.getvalue().decode("utf-8"))
            who = access.writer("annotate", st.session_state["annotator"])
            new = Annotations(failures.DATABASE).add_all(rows, importer=who)
        except UnicodeDecodeError:
            st.error("Nothing was imported: the file is not UTF-8 text.")
        except (AnnotationError, access.NotAllowedError) as error:
            st.error(plain(f"Nothing was imported: {error}"))
        else:
            st.success(f"{new:,} of {len(rows):,} annotations were new.")
