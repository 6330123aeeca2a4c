"""The Failures page: find wrong traces, see each beside a right one, and say where the first error really is."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import streamlit as st

from app import access
from app.analysis import annotating, catalogue, chooser, failures, sections
from app.analysis.catalogue import RunInfo
from app.analysis.failures import Listing, Query
from app.components import chart
from app.components.heatmap import heatmap
from app.components.markdown import counted, plain
from app.inspect import links
from app.inspect.results import caption, stored_inspection, to_result
from irl_core.data.annotations import MOST_NAME, Annotations, latest
from irl_core.errors import AnnotationError, StoreError
from irl_core.report.csv_export import csv_of, inert
from irl_core.report.heatmap import payload
from irl_core.reward.token_scores import DEFAULT_GAMMA
from irl_core.reward.verdict import KINDS, Judged
from irl_core.storage.rows import verdict_of
from irl_core.storage.schema import ScoredRow

if TYPE_CHECKING:
    import pyarrow as pa
    from streamlit.delta_generator import DeltaGenerator

    from irl_core.data.annotations import Annotation

ROWS_IN_SIGHT: Final = 4  # the trace below them is what one came for
TABLE_PIXELS: Final = 35 * (ROWS_IN_SIGHT + 1) + 3
HERE: Final = "\u25b6"
T = TypeVar("T")
FileKey = tuple[str, int, int]  # changes when the file of a run does
KEPT: Final = ("annotator", "model_first", "outcome", "words", "descending", "sort", "filter_kinds",
               "filter_verdicts", "filter_true_steps", "filter_verdict_steps")  # fmt: skip


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
    try:
        table = cached_index(info.path.as_posix(), info.key, info)
        known = Judged.of(*(table.column(name).to_pylist() for name in ("cannot_judge", "familiar")))
        st.caption(plain(f"{info.name}: {sections.origin_line(info.provenance)}; {known.words}."))
        annotations = read_annotations()
        browse(info, table, annotations)
        if annotations:
            annotating.show_agreement(info, annotations)
        if annotations is not None:
            annotating.exchange(annotations)
    except StoreError as error:
        st.error(plain(str(error)))


@st.cache_resource(max_entries=4, show_spinner="Reading the run \u2026")
def cached_index(path: str, key: FileKey, _info: RunInfo) -> pa.Table:
    """The index of a run, read once for all sessions."""
    return catalogue.index(_info)


@st.cache_data(max_entries=64, show_spinner="Looking for the words \u2026")
def cached_texts(key: FileKey, query: Query, _info: RunInfo, _table: pa.Table) -> tuple[list[int], Counter[str]]:
    """The numbers of the rows that a query asks for, one a text, and how many each text has."""
    return failures.one_a_text(_table, failures.numbers(_info, _table, query))


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
    numbers, copies = cached_texts(info.key, query, info, table)
    if not numbers:
        st.info(f"None of the {table.num_rows:,} traces passes these filters.")
        return
    listing = Listing.at_trace(info, table, numbers, *map(st.session_state.get, ("failure", "failure_row")))
    look_at(listing, listing.place)
    draw_table(listing, copies, annotations or [])
    row = catalogue.numbered_row(info, numbers[listing.place])
    if row["trace_id"] != listing.trace_id(listing.place):
        st.error("The run was written anew meanwhile; load the page again.")
        return
    further = listing.next_open(failures.judged_items(annotations or [], st.session_state["annotator"]))
    walk(listing, further)
    draw_trace(listing, row, query, annotations, further)


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
        verdicts = among(three, "verdicts", "Verdict", known.verdicts, KINDS.__getitem__)
        true_steps = among(one, "true_steps", "True first error", known.true_steps, step_words)
        named = among(two, "verdict_steps", "Step that the verdict names", known.verdict_steps, step_words)
        ends, scores = known.scores, None
        if ends is not None and ends[0] < ends[1]:
            chosen = st.slider("Mean discounted reward", *ends, ends, key=f"scores_{ends[0]:.3g}_{ends[1]:.3g}")
            scores = None if chosen == ends else chosen
        outcome = st.session_state["outcome"]
        query = Query(outcome, kinds, verdicts, true_steps, named, scores, words, sort, descending)
        if query.telling and not st.session_state["model_first"]:
            st.caption("These filters say something of the model's answer or the label: annotations are not blind.")
    return query


def draw_table(listing: Listing, copies: Counter[str], annotations: Sequence[Annotation]) -> None:
    """The texts from a little above the one that is looked at on, with a mark beside it.

    ``copies``: how many rows that pass the filters have each text.
    """
    first = listing.place - listing.place % ROWS_IN_SIGHT  # so that the trace is in sight, while the table scrolls on
    listed = listing.numbers[first : first + failures.PAGE_ROWS]
    rows = failures.table_rows(listing.info, listed, telling=st.session_state["model_first"])
    name = st.session_state["annotator"]
    mine = {item: one.label for (item, annotator), one in latest(annotations).items() if annotator == name}
    items = [listing.item(first + place) for place in range(len(listed))]
    rows.insert(1, "mine", [mine.get(item, "") for item in items])
    rows.insert(2, "copies", [f"\u00d7{copies[item]}" if copies[item] > 1 else "" for item in items])
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
    total, judged = len(listing.numbers), sum(listing.item(place) in mine for place in range(len(listing.numbers)))
    left.caption(
        f"{counted(total, 'text')} of {counted(copies.total(), 'trace')} after the filters, "
        f"of {listing.table.num_rows:,} in all; "
        f"{first + 1:,} to {first + len(listed):,} are listed; {HERE} is {listing.place + 1:,} of {total:,}; "
        f"{judged:,} of {total:,} judged by you"
    )
    right.download_button(
        "CSV of these rows", saved, "traces.csv", "text/csv", on_click="ignore", icon=":material/download:"
    )


def walk(listing: Listing, further: int | None) -> None:
    """Next and previous, by button and by key; the next that is not judged (at the place ``further``, None where all
    are), the two ends, and any place of the list."""
    place, last = listing.place, len(listing.numbers) - 1
    st.session_state["place"] = place + 1

    def go(to: int) -> None:
        look_at(listing, to)

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button("First", on_click=go, args=(0,), disabled=place == 0)
        st.button("Previous", shortcut="K", on_click=go, args=(max(place - 1, 0),), disabled=place == 0)
        st.button("Next", shortcut="J", on_click=go, args=(min(place + 1, last),), disabled=place == last)
        st.button("Next unjudged", shortcut="N", on_click=go, args=(further or 0,), disabled=further is None)
        st.button("Last", on_click=go, args=(last,), disabled=place == last)
        st.number_input(
            f"Go to, of {last + 1:,}", 1, last + 1, key="place", width=140,
            on_change=lambda: go(st.session_state["place"] - 1),
        )  # fmt: skip


def look_at(listing: Listing, place: int) -> None:
    """Make the trace at a place of the list the one that is looked at."""
    st.session_state.update(failure=listing.trace_id(place), failure_row=listing.numbers[place])


# ------------------------------------------------------------------------------------------------------------ one trace


def draw_trace(
    listing: Listing, row: ScoredRow, query: Query, annotations: Sequence[Annotation] | None, further: int | None
) -> None:
    """The trace, what stands beside it, and the form for the answer; ``further``: the place of the next unjudged."""
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
        st.success(plain(f"{failures.own_words(own)} {verdict_of(row).sentence} {failures.label_words(row)}"))
    if annotations is None:
        return
    if query.telling and not revealed:
        st.warning("Not blind: the filters or the order above say something of the model's answer or the label.")
    annotating.ask(
        listing, row, blind=not (revealed or query.telling), answered=own is not None, further=further, look_at=look_at
    )


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
    description = payload.describe(trace, caption=caption(inspection.scored[0], inspection))
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


show()
