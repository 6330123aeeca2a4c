"""The Failures page: find wrong traces, see each beside a right one, and say where the first error really is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import streamlit as st

from app import access
from app.analysis import catalogue, chooser, failures, sections
from app.analysis.catalogue import RunInfo
from app.analysis.failures import Listing, Query
from app.components import chart
from app.components.heatmap import heatmap
from app.components.markdown import plain
from app.inspect import links
from app.inspect.results import stored_inspection, to_result
from irl_core.data.annotations import CATEGORIES, MOST_NAME, MOST_NOTE, Annotations, from_jsonl, to_jsonl
from irl_core.errors import AnnotationError, StoreError
from irl_core.report.csv_export import csv_of, inert
from irl_core.report.heatmap import payload
from irl_core.reward.token_scores import DEFAULT_GAMMA
from irl_core.storage.schema import ScoredRow

if TYPE_CHECKING:
    import pyarrow as pa
    from streamlit.delta_generator import DeltaGenerator

    from irl_core.data.annotations import Annotation

KEYED_STEPS: Final = 9
ROWS_IN_SIGHT: Final = 4  # the trace below them is what one came for
TABLE_PIXELS: Final = 35 * (ROWS_IN_SIGHT + 1) + 3
HERE: Final = "\u25b6"
T = TypeVar("T")
FileKey = tuple[str, int, int]  # changes when the file of a run does
KEPT: Final = ("annotator", "model_first", "outcome", "words", "descending", "sort", "filter_kinds",
               "filter_decisions", "filter_true_steps", "filter_predicted_steps")  # fmt: skip


def show() -> None:
    st.header("Where do solutions really go wrong?")
    for name in KEPT:  # a widget's value is forgotten with its page, unless it is set again
        if name in st.session_state:
            st.session_state[name] = st.session_state[name]
    left, *beside = st.columns([5, 3, 4], vertical_alignment="bottom")
    with left:
        chosen = chooser.choose(multiple=False)
    if not chosen:
        return
    info = chosen[0]
    choose_reviewer(*beside)
    st.caption(plain(f"{info.name}: {sections.origin_line(info.provenance)}."))
    try:
        table = cached_index(info.path.as_posix(), info.key, info)
        annotations = read_annotations()
        browse(info, table, annotations)
        if annotations:
            show_agreement(info, annotations)
        if annotations is not None:
            exchange(annotations)
    except StoreError as error:
        st.error(plain(str(error)))


@st.cache_resource(max_entries=4, show_spinner="Reading the run \u2026")
def cached_index(path: str, key: FileKey, _info: RunInfo) -> pa.Table:
    """The index of a run, read once for all sessions."""
    return catalogue.index(_info)


@st.cache_data(max_entries=64, show_spinner="Looking for the words \u2026")
def cached_numbers(key: FileKey, query: Query, _info: RunInfo, _table: pa.Table) -> list[int]:
    """The numbers of the rows that a query asks for."""
    return failures.numbers(_info, _table, query)


def read_annotations() -> list[Annotation] | None:
    """Every annotation; None where the file cannot be read: then nothing is written either."""
    try:
        return Annotations(failures.DATABASE).all()
    except AnnotationError as error:
        st.error(plain(str(error)))
        return None


def choose_reviewer(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Ask who annotates, and whether the model's answer is hidden until the person has given theirs."""
    name = access.who()
    known = name != access.LOCAL or "is_logged_in" in access.user()
    if known or not st.session_state.get("annotator", "").strip():
        st.session_state["annotator"] = name
    left.text_input("Annotator", key="annotator", max_chars=MOST_NAME, disabled=known)
    right.toggle(
        "Show the model's answer first",
        key="model_first",
        help="Off: colours, scores, the model's answer and labels stay hidden until you have answered, so that you are "
        "not led. Annotations given with it on are marked as not blind.",
    )


# ------------------------------------------------------------------------------------------------------------ the table


def browse(info: RunInfo, table: pa.Table, annotations: Sequence[Annotation] | None) -> None:
    """The filters, the rows that pass them, and the trace that is looked at."""
    query = choose_query(table)
    numbers = cached_numbers(info.key, query, info, table)
    if not numbers:
        st.info(f"None of the {table.num_rows:,} traces passes these filters.")
        return
    listing = Listing.at_trace(info, table, numbers, *map(st.session_state.get, ("failure", "failure_row")))
    look_at(listing, listing.place)
    draw_table(listing, annotations or [])
    row = catalogue.numbered_row(info, numbers[listing.place])
    if row["trace_id"] != listing.trace_id(listing.place):
        st.error("The run was written anew meanwhile; load the page again.")
        return
    walk(listing)
    draw_trace(listing, row, query, annotations)


def choose_query(table: pa.Table) -> Query:
    """The controls of filters and order."""
    known, step_words = failures.choices(table), failures.step_words
    with st.expander("Filter and sort", icon=":material/filter_alt:"):
        one, two, three = st.columns([2, 2, 1], vertical_alignment="bottom")
        st.session_state.setdefault("outcome", failures.OUTCOMES[0])  # a default beside a kept value is warned of
        one.segmented_control("Outcome", failures.OUTCOMES, key="outcome", required=True)
        words = two.text_input("Words in problem, solution or trace id", key="words", max_chars=200)
        descending = three.toggle("Highest first", key="descending")
        sort = one.selectbox("Sort by", known.sorts, format_func=failures.SORTS.__getitem__, key="sort")

        def among(
            column: DeltaGenerator, name: str, title: str, options: Sequence[T], words_of: Callable[[Any], str]
        ) -> tuple[T, ...]:
            """Ask for some of the values, where there are any."""
            if not options:
                return ()
            return tuple(column.multiselect(title, options, format_func=words_of, key=f"filter_{name}"))

        kinds = among(two, "kinds", "Kind of error", known.kinds, str)
        decisions = among(three, "decisions", "Decision", known.decisions, lambda value: value.replace("_", " "))
        true_steps = among(one, "true_steps", "True first error", known.true_steps, step_words)
        predicted = among(two, "predicted_steps", "Step that the model names", known.predicted_steps, step_words)
        ends, scores = known.scores, None
        if ends is not None and ends[0] < ends[1]:
            chosen = st.slider("Mean discounted reward", *ends, ends, key=f"scores_{ends[0]:.3g}_{ends[1]:.3g}")
            scores = None if chosen == ends else chosen
        outcome = st.session_state["outcome"]
        query = Query(outcome, kinds, decisions, true_steps, predicted, scores, words, sort, descending)
        if query.telling and not st.session_state["model_first"]:
            st.caption("These filters say something of the model's answer or the label: annotations are not blind.")
    return query


def draw_table(listing: Listing, annotations: Sequence[Annotation]) -> None:
    """The rows from a little above the trace that is looked at on, with a mark beside it."""
    first = listing.place - listing.place % ROWS_IN_SIGHT  # so that the trace is in sight, while the table scrolls on
    listed = listing.numbers[first : first + failures.PAGE_ROWS]
    rows = failures.table_rows(listing.info, listed, telling=st.session_state["model_first"])
    mine = {one.trace_id: one.label for one in annotations if one.annotator == st.session_state["annotator"]}
    rows.insert(1, "mine", [mine.get(one, "") for one in rows["trace_id"]])
    saved = csv_of(rows)
    rows.insert(0, "here", [HERE if number == listing.place - first else "" for number in range(len(rows))])
    # a table of other rows is another table: a row that was selected in the one before is not selected in it
    key = "table_" + hashlib.sha256(repr((listed, list(rows["trace_id"]))).encode()).hexdigest()[:16]

    def take() -> None:
        selected = st.session_state[key]["selection"]["rows"]
        if selected:
            look_at(listing, first + selected[0])

    columns, titles = st.column_config, failures.COLUMN_TITLES
    config = {name: columns.Column(title) for name, title in titles.items() if name in rows}
    config |= {name: columns.TextColumn(titles[name], width="medium") for name in ("problem", "text")}
    config["here"] = columns.TextColumn("", width=30)
    config[failures.SCORE] = columns.NumberColumn(titles[failures.SCORE], format="%.2f")
    st.dataframe(  # the table's own menu saves what it shows
        inert(rows), hide_index=True, height=TABLE_PIXELS, key=key, on_select=take, selection_mode="single-row",
        column_config=config,
    )  # fmt: skip
    left, right = st.columns([4, 1], vertical_alignment="center")
    total = len(listing.numbers)
    left.caption(
        f"{total:,} of {listing.table.num_rows:,} traces; rows {first + 1:,} to {first + len(listed):,} are listed; "
        f"{HERE} is {listing.place + 1:,} of {total:,}"
    )
    right.download_button(
        "CSV of these rows", saved, "traces.csv", "text/csv", on_click="ignore", icon=":material/download:"
    )


def walk(listing: Listing) -> None:
    """Next and previous, by button and by key; the two ends, and any place of the list."""
    place, last = listing.place, len(listing.numbers) - 1
    st.session_state["place"] = place + 1

    def go(to: int) -> None:
        look_at(listing, to)

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button("First", on_click=go, args=(0,), disabled=place == 0)
        st.button("Previous", shortcut="K", on_click=go, args=(max(place - 1, 0),), disabled=place == 0)
        st.button("Next", shortcut="J", on_click=go, args=(min(place + 1, last),), disabled=place == last)
        st.button("Last", on_click=go, args=(last,), disabled=place == last)
        st.number_input(
            f"Go to, of {last + 1:,}", 1, last + 1, key="place", width=140,
            on_change=lambda: go(st.session_state["place"] - 1),
        )  # fmt: skip


def look_at(listing: Listing, place: int) -> None:
    """Make the trace at a place of the list the one that is looked at."""
    st.session_state.update(failure=listing.trace_id(place), failure_row=listing.numbers[place])


# ------------------------------------------------------------------------------------------------------------ one trace


def draw_trace(listing: Listing, row: ScoredRow, query: Query, annotations: Sequence[Annotation] | None) -> None:
    """The trace, what stands beside it, and the form for the answer."""
    own = failures.own_annotation(row, annotations or [], st.session_state["annotator"])
    revealed = st.session_state["model_first"] or own is not None
    st.subheader(plain(row["trace_id"]))
    st.text(row["problem"])
    left, right = st.columns(2, gap="large")
    with left:
        draw_solution(row, listing.info, revealed)
    with right:
        draw_comparison(listing, row)
    if own is not None:
        label = f"You said: {own.label}" + (f" ({own.category})" if own.category else "")
        st.success(plain(f"{label}. {failures.model_words(row)} {failures.label_words(row)}"))
    if annotations is None:
        return
    if query.telling and not revealed:
        st.warning("Not blind: the filters or the order above say something of the model's answer or the label.")
    ask(listing, row, blind=not (revealed or query.telling), answered=own is not None)


def draw_solution(row: ScoredRow, info: RunInfo, revealed: bool) -> None:
    """The solution: in the colours of its rewards where they may be seen, else as plain steps."""
    answer = "no final answer" if row["answer"] is None else f"answer {row['answer']}"
    correct = "" if row["reference_answer"] is None else f"; the right one is {row['reference_answer']}"
    st.caption(plain(f"This solution: {answer}{correct}"))
    inspection = stored_inspection(row, info.name) if revealed else None
    if inspection is None:
        for number, step in enumerate(row["steps"], start=1):
            head = "Answer:" if step.get("role") == "answer" else f"{number}."
            st.text(f"{head}  {step['text']}")
        return
    trace = to_result(inspection, DEFAULT_GAMMA)["traces"][0]
    description = payload.describe(trace, caption=failures.model_words(row))
    heatmap(trace, description, payload.settings("credit", DEFAULT_GAMMA, 1.0), key="heatmap-failure")

    def to_inspect() -> None:
        try:
            links.to_trace(info.name, row["trace_id"])
        except links.LinkError as error:
            st.session_state["link_error"] = str(error)
        else:
            st.session_state["to_inspect"] = True

    st.button("Open in Inspect", icon=":material/open_in_new:", on_click=to_inspect)
    if st.session_state.pop("to_inspect", False):
        chart.open_trace(info.name, row["trace_id"])


def draw_comparison(listing: Listing, row: ScoredRow) -> None:
    """What a wrong solution is compared with: the reference, and the best correct sample."""
    reference, best = st.tabs(["Reference solution", "Best correct sample"])
    with reference:
        st.text(row["reference_solution"] or "The run holds no reference solution of this problem.")
    with best:
        sample = failures.best_correct(listing.info, listing.table, row["problem_id"], row["trace_id"])
        if sample is None:
            st.text("No other sample of this problem is correct.")
        else:
            words = "without a score" if sample.score is None else f"mean discounted reward {sample.score:.2f}"
            st.caption(plain(f"{sample.trace_id}, {words}"))
            st.text(sample.text)


# ----------------------------------------------------------------------------------------------------------- annotating


def ask(listing: Listing, row: ScoredRow, *, blind: bool, answered: bool) -> None:
    """Ask for the first wrong step (by button or key), a category and a note, and save them.

    Once it is ``answered``, Enter goes to the next trace, until another choice is made.
    """
    if "annotation_error" in st.session_state:
        st.error(plain(st.session_state.pop("annotation_error")))
    if why := access.reason("annotate"):
        st.info(plain(why))
        return
    st.markdown(
        "**Which step is the first wrong one?** Keys: 1 to 9 a step, 0 none, U unsure; Enter saves, and then goes on."
    )
    state, identity = st.session_state, (row["trace_id"], listing.numbers[listing.place])
    if state.get("answering") != identity:  # another trace: nothing is chosen yet
        state.update(answering=identity, choice=None, category="", note="")
    with st.container(horizontal=True):
        for number, step in enumerate(row["steps"]):
            label = "Answer line" if step.get("role") == "answer" else f"Step {number + 1}"
            choice_button(str(number), label, str(number + 1) if number < KEYED_STEPS else None)
        choice_button("none", "No step is wrong", "0")
        choice_button("unsure", "Unsure", "U")
    with st.form("said", border=False):  # Enter in the note sends it
        left, right, save_column = st.columns([1, 2, 1], vertical_alignment="bottom")
        left.selectbox("Category", CATEGORIES, key="category", format_func=lambda name: name or "not said")
        right.text_input("Note", key="note", max_chars=MOST_NOTE)
        if state["choice"] is None and answered and not listing.is_last:
            save_column.form_submit_button(
                "Next trace", type="primary", shortcut="Enter", width="stretch", on_click=look_at,
                args=(listing, listing.place + 1),
            )  # fmt: skip
        else:
            save_column.form_submit_button(
                "Save", type="primary", shortcut="Enter", disabled=state["choice"] is None, width="stretch",
                on_click=save, args=(listing.info, row, blind),
            )  # fmt: skip
    if "annotation_saved" in state:
        st.toast(plain(state.pop("annotation_saved")))


def choice_button(value: str, label: str, key: str | None) -> None:
    """A button that chooses the answer ``value``; ``key``: the key that does so too."""

    def take() -> None:
        st.session_state["choice"] = value

    kind: Literal["primary", "secondary"] = "primary" if st.session_state["choice"] == value else "secondary"
    st.button(label, key=f"choice_{value}", type=kind, shortcut=key, on_click=take)


def save(info: RunInfo, row: ScoredRow, blind: bool) -> None:
    """Write the annotation of the very row that was shown; the model's answer is shown from then on. Who writes, and
    whether they may, is asked here: the page may be hours old, and its widgets send what a browser is made to send."""
    state = st.session_state
    if state["choice"] is None:  # sent by a button that is disabled
        return
    try:
        annotation = failures.annotation(
            row, info.name, access.writer("annotate", state["annotator"]), state["choice"], category=state["category"],
            note=state["note"].strip(), blind=blind,
        )  # fmt: skip
        Annotations(failures.DATABASE).add(annotation)
    except (AnnotationError, access.NotAllowedError) as error:
        state["annotation_error"] = f"Not saved: {error}"
        return
    state["annotation_saved"] = f"Saved: {annotation.label} in {annotation.trace_id}"
    state["answering"] = None


def show_agreement(info: RunInfo, annotations: Sequence[Annotation]) -> None:
    """How far annotators agree with each other, and with the model."""
    import pandas as pd

    with st.expander("Agreement between annotators, and with the model", icon=":material/handshake:"):
        rows = failures.agreement_rows(info, annotations)
        if not rows:
            st.caption("No trace was judged twice, and none of this run blindly.")
            return
        chart.show_table(pd.DataFrame(rows), "agreement")
        st.caption(
            "Cohen's kappa: 1 is full agreement, 0 what chance gives. Brackets: 95 % intervals by a bootstrap over "
            "problems. Only blind annotations are compared with the model; of an annotator the newest word counts."
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


show()
