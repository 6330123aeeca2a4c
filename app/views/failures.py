"""The Failures page: find wrong traces, see each beside a right one, and say where the first error really is."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlencode

import streamlit as st

from app import access
from app.analysis import annotating, catalogue, chooser, failures, filters, judgements, panel, slices
from app.analysis.catalogue import RunInfo
from app.analysis.differences import differences
from app.analysis.expression import ExpressionError
from app.analysis.failures import Listing, Query
from app.components import cards, chart
from app.components.heatmap import heatmap
from app.components.markdown import counted, marked_differences, marked_quantities, plain
from app.components.marking import marking
from app.inspect import links
from app.inspect.results import caption, stored_inspection, to_result
from irl_core.data.annotations import MOST_NAME, Annotations, disagreed, latest
from irl_core.errors import AnnotationError, StoreError
from irl_core.report.csv_export import csv_of
from irl_core.report.heatmap import payload
from irl_core.reward.token_scores import DEFAULT_GAMMA
from irl_core.reward.verdict import Judged
from irl_core.storage.rows import verdict_of
from irl_core.storage.schema import ScoredRow
from irl_core.text.quantities import odd_quantities

if TYPE_CHECKING:
    import pyarrow as pa
    from streamlit.delta_generator import DeltaGenerator

    from irl_core.data.annotations import Annotation

ROWS_IN_SIGHT: Final = 7
NARROW_ID, WRAPPED_PIXELS = 24, 58  # characters of an id that a line of the list holds; height of a row of two lines
TABLE_PIXELS: Final = 35 * (ROWS_IN_SIGHT + 1) + 3
STYLE: Final = """<style>
[data-testid=stMain] h3 { font-size: 1.05rem; padding: 0; overflow-wrap: anywhere; }
.st-key-trace, .st-key-beside { gap: 0.45rem; }
.st-key-trace [data-testid=stAlertContainer] { padding: 0.5rem 1rem; }
.st-key-trace :is([data-testid=stText], [data-testid=stMarkdown] p, [data-testid=stAlertContainer] p) {
  font-size: 0.95rem; line-height: 1.45; }
.st-key-head [data-testid=stCaptionContainer] { padding-bottom: 0.5rem; line-height: 1.35; }
[data-testid=stLayoutWrapper]:has(> .st-key-question) { position: sticky; bottom: 0; z-index: 5; }
.stApp :has(.st-key-question), .st-key-question { background-color: inherit; }  /* what passes below is not read */
.st-key-question { padding: 0.4rem 0; border-top: 1px solid rgb(128 128 128 / 35%); }
@media (min-width: 768px) { .st-key-trace { min-height: 26rem; } }
@media (max-width: 767px) {  /* the trace first, low rows of what a finger needs, none of them cut off */
  [data-testid=stColumn]:has(> * > .st-key-listing, > * > * > .st-key-listing) { order: 3; }
  [data-testid=stMain] .st-key-head h2 { font-size: 1.15rem; padding: 0; }
  .st-key-head { gap: 0.25rem; }
  .st-key-head [data-testid=stCaptionContainer] { padding: 0; }
  .st-key-head [data-testid=stCaptionContainer] p { font-size: 0.75rem; }
  .st-key-question { gap: 0.3rem; padding: 0.3rem 0; }
  .st-key-question [data-testid=stHorizontalBlock] { flex-wrap: wrap; gap: 0.3rem; }
  .st-key-question [data-testid=stHorizontalBlock] > * { flex: none; width: auto; min-width: 0; }
  .st-key-question [data-testid=stColumn] { flex: 1 1 0; }
  .st-key-question [data-testid=stColumn]:first-child { flex: 1.4 1 0; }
  .st-key-question [data-testid=stColumn]:nth-child(2) { flex: 2 1 0; }
  .st-key-question button { min-height: 2rem; padding: 0.1rem 0.5rem; }
  .st-key-question button p { font-size: 0.85rem; }
  .st-key-question :is(kbd, [data-testid=stMarkdown], .st-key-walk_first, .st-key-walk_last, .st-key-place) {
    display: none; }
  .st-key-choices > [data-testid=stHorizontalBlock], .st-key-choices { max-height: 4.4rem; overflow-y: auto; }
  .st-key-tools [data-testid=stHorizontalBlock] { gap: 0.4rem; flex-wrap: wrap; }
  .st-key-tools [data-testid=stColumn] { flex: 1 1 0; min-width: 0; width: auto; }
  .st-key-tools [data-testid=stColumn]:first-child { flex: 1 1 100%; }
  .st-key-tools button { padding: 0.25rem 0.3rem; }
  .st-key-tools button [data-testid=stIconMaterial]:first-child { display: none; }
}
@media (max-height: 560px) { [data-testid=stLayoutWrapper]:has(> .st-key-question) { position: static; } }
</style>"""
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
HERE, JUDGED = "\u25b6", "\u2713"
T = TypeVar("T")
FileKey = tuple[str, int, int]  # changes when the file of a run does


def show() -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="head"):
        st.header("Where do solutions really go wrong?", width="content")
        origin = st.container()
    st.html(STYLE)
    link = filters.open_link()
    with st.container(key="tools"):
        run, narrow, reviewer, help_ = st.columns([6, 3, 3, 3], vertical_alignment="bottom")
    with run:
        chosen = chooser.choose(multiple=False)
    if not chosen:
        return
    info = chosen[0]
    if link is not None and link.run != info.name:
        st.warning("The scored run of this link is not here; nothing is filtered.")
        link = None
    choose_reviewer(reviewer)
    with help_.popover("Guidelines", icon=":material/menu_book:", width="stretch"):
        st.markdown(GUIDELINES)
    try:
        table = cached_index(info.path.as_posix(), info.key, info)
        annotations = read_annotations()
        with narrow.popover("Filter", icon=":material/filter_alt:", width="stretch"):
            query, fault = filters.choose_query(table, link)
        if fault:
            st.error(plain(f"{fault} The expression of the filter is not applied."))
        known = Judged.of(*(table.column(name).to_pylist() for name in ("cannot_judge", "familiar")))
        origin.caption(plain(f"{info.name}: {panel.origin(info.provenance)}; {known.words}."))
        browse(info, table, query, annotations)
        panels(info, table, query, annotations)
    except (StoreError, ExpressionError) as error:
        st.error(plain(str(error)))


def panels(info: RunInfo, table: pa.Table, query: Query, annotations: Sequence[Annotation] | None) -> None:
    """What stands below the main loop: slices, the link, agreement, exchange."""
    with st.expander("Slices by family, kind and length; a link to these filters", icon=":material/donut_small:"):
        filters.draw_slices(table, info.key)
        try:
            address = (st.context.url or "").partition("?")[0]
            st.code(f"{address}?{urlencode(slices.parameters(info.name, query))}", language=None, wrap_lines=True)
        except links.LinkError as error:
            st.caption(plain(str(error)))
    if annotations:
        annotating.show_agreement(info, annotations)
    if annotations is not None:
        annotating.exchange(annotations)


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


def choose_reviewer(place: DeltaGenerator) -> None:
    """Ask who annotates, and whether the model's answer is hidden until the person has given theirs."""
    name = access.who()
    known = name != access.LOCAL or "is_logged_in" in access.user()
    if known or not st.session_state.get("annotator", "").strip():
        st.session_state["annotator"] = name
    with place.popover("Reviewer", icon=":material/person:", width="stretch"):
        st.text_input("Annotator", key="annotator", max_chars=MOST_NAME, disabled=known, persist_state="session")
        st.toggle(
            "Show the model's answer first",
            key="model_first",
            help="Off: colours, scores, the model's answer and labels stay hidden until you have answered, so that you "
            "are not led. Annotations given with it on are marked as not blind.",
            persist_state="session",
        )
        st.session_state.setdefault("differences", True)  # a default beside a kept value is warned of
        st.toggle("Mark the differences to the other solution", key="differences", persist_state="session")
        st.toggle("Settle disagreements", key="adjudicate", help=annotating.SETTLES, persist_state="session")


# ------------------------------------------------------------------------------------------------------------ the table


def browse(info: RunInfo, table: pa.Table, query: Query, annotations: Sequence[Annotation] | None) -> None:
    """The list of rows that pass the filters, the trace that is looked at, what it is compared with, and the question,
    all on one screen."""
    numbers, copies = cached_texts(info.key, query, info, table)
    said = disagreed(annotations or []) if st.session_state["adjudicate"] else None
    if said is not None:
        numbers = failures.of_items(table, numbers, said)
    if not numbers:
        st.info(f"None of the {table.num_rows:,} solutions passes these filters.")
        filters.clear_button(key="clear_filters_here")
        return
    listing = Listing.at_trace(info, table, numbers, *map(st.session_state.get, ("failure", "failure_row")))
    look_at(listing, listing.place)
    left, middle, right = st.columns([12, 19, 13], gap="small")
    with left.container(key="listing"):
        draw_table(listing, copies, annotations or [])
    row = catalogue.numbered_row(info, numbers[listing.place])
    if row["trace_id"] != listing.trace_id(listing.place):
        st.error("The run was written anew meanwhile; load the page again.")
        return
    name = annotating.in_whose_name()
    own = judgements.own_annotation(row, annotations or [], name)
    revealed = st.session_state["model_first"] or own is not None
    with middle.container(key="trace"):
        draw_trace(info, row, numbers[listing.place], own, revealed)
        if said is not None:
            st.caption("What annotators said")
            st.text("\n".join(judgements.said_words(one) for one in said[listing.item(listing.place)]))
    with right.container(key="beside"):
        draw_comparison(listing, row)
    with st.container(key="question", gap="small"):
        further = listing.next_open(judgements.judged_items(annotations or [], name))
        walk(listing, further)
        if query.telling and not revealed:
            st.warning("Not blind: the filters or the order say something of the model's answer or the label.")
        if annotations is not None:
            annotating.ask(
                listing, row, blind=not (revealed or query.telling), answered=own, further=further, look_at=look_at
            )


def draw_table(listing: Listing, copies: Counter[str], annotations: Sequence[Annotation]) -> None:
    """The texts from a little above the one that is looked at on, with a mark beside it.

    ``copies``: how many rows that pass the filters have each text.
    """
    first = listing.place - listing.place % ROWS_IN_SIGHT  # so that the trace is in sight, while the table scrolls on
    listed = listing.numbers[first : first + failures.PAGE_ROWS]
    rows = failures.table_rows(listing.info, listed, telling=st.session_state["model_first"])
    name = annotating.in_whose_name()
    mine = {item: one.label for (item, annotator), one in latest(annotations).items() if annotator == name}
    items = [listing.item(first + place) for place in range(len(listed))]
    if any(item in mine for item in items):  # an empty column would take the room that the names need
        rows.insert(1, "mine", [mine.get(item, "") for item in items])
    times = [f"\u00d7{copies[item]}" if copies[item] > 1 else "" for item in items]
    rows.insert(list(rows).index("trace_id") + 1, "copies", times)
    saved = csv_of(rows)
    told = [st.session_state["model_first"] or item in mine for item in items]
    named = [
        failures.name_of(identity, number, telling=telling)
        for identity, number, telling in zip(rows["trace_id"], listed, told, strict=True)
    ]
    rows["trace_id"], beginning = failures.short_names(named)
    marks = [HERE if first + n == listing.place else JUDGED if item in mine else "" for n, item in enumerate(items)]
    rows.insert(0, "here", [f"{mark} {first + n + 1:,}".strip() for n, mark in enumerate(marks)])
    # a table of other rows is another table: a row that was selected in the one before is not selected in it
    key = "table_" + hashlib.sha256(repr((listed, list(rows["trace_id"]))).encode()).hexdigest()[:16]

    columns, titles = st.column_config, failures.COLUMN_TITLES
    config = {name: columns.Column(title) for name, title in titles.items() if name in rows}
    config |= {name: columns.TextColumn(titles[name], width="medium") for name in ("problem", "text")}
    config["here"] = columns.TextColumn("", width=36)
    config["mine"] = columns.TextColumn(titles["mine"], width=64)
    config[failures.SCORE] = columns.NumberColumn(titles[failures.SCORE], format="%.2f")
    cards.table(
        rows,
        key,
        title="Solutions",
        choose=lambda row: look_at(listing, first + row),
        columns=config,
        height=TABLE_PIXELS,
        row_height=None if rows["trace_id"].str.len().max() <= NARROW_ID else WRAPPED_PIXELS,
    )
    total, judged = len(listing.numbers), sum(listing.item(place) in mine for place in range(len(listing.numbers)))
    st.progress(judged / total, text=f"{judged:,} of {total:,} judged by you")
    st.caption(
        f"{counted(total, 'text')} of {counted(copies.total(), 'solution')} after the filters, of "
        f"{listing.table.num_rows:,} in all; {first + 1:,} to {first + len(listed):,} are listed; "
        f"{HERE} is {listing.place + 1:,} of {total:,}, {JUDGED} is judged by you"
        + plain(f"; \u2026 stands for {beginning}" * bool(beginning))
    )
    st.download_button(
        "CSV of these rows",
        saved,
        "solutions.csv",
        "text/csv",
        on_click="ignore",
        type="tertiary",
        icon=":material/download:",
    )


def walk(listing: Listing, further: int | None) -> None:
    """Next and previous, by button and by key; the next that is not judged (at the place ``further``, None where all
    are), the two ends, and any place of the list."""
    place, last = listing.place, len(listing.numbers) - 1
    st.session_state["place"] = place + 1

    def go(to: int) -> None:
        look_at(listing, to)

    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**Which step is the first wrong one?**", width="content")
        st.button("First", key="walk_first", on_click=go, args=(0,), disabled=place == 0)
        st.button("Previous", shortcut="K", on_click=go, args=(max(place - 1, 0),), disabled=place == 0)
        st.button("Next", shortcut="J", on_click=go, args=(min(place + 1, last),), disabled=place == last)
        st.button("Next unjudged", shortcut="N", on_click=go, args=(further or 0,), disabled=further is None)
        st.button("Last", key="walk_last", on_click=go, args=(last,), disabled=place == last)
        st.number_input(
            f"Go to, of {last + 1:,}", 1, last + 1, key="place", width=110, label_visibility="collapsed",
            on_change=lambda: go(st.session_state["place"] - 1),
        )  # fmt: skip


def look_at(listing: Listing, place: int) -> None:
    """Make the trace at a place of the list the one that is looked at."""
    st.session_state.update(failure=listing.trace_id(place), failure_row=listing.numbers[place])


# ------------------------------------------------------------------------------------------------------------ one trace


def draw_trace(info: RunInfo, row: ScoredRow, number: int, own: Annotation | None, revealed: bool) -> None:
    """The problem, what was said of the trace, and the trace; ``number``: of its row in the file."""
    answer = "no final answer" if row["answer"] is None else f"answer {row['answer']}"
    correct = "" if row["reference_answer"] is None else f"; the right one is {row['reference_answer']}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader(plain(failures.name_of(row["trace_id"], number, telling=revealed)), width="content")
        st.caption(plain(f"{answer}{correct}"), width="content")
    odd = odd_quantities(row["problem"], row["text"]) if revealed else []
    if any(not one.uses for one in odd):
        st.markdown(marked_quantities(row["problem"], odd))
    else:
        st.text(row["problem"])
    if own is not None:
        verdict = verdict_of(row)  # where there are rewards, the whole of it stands above them
        said = verdict.sentence if row["prompt_reward"] is None else f"{verdict.claim}."
        st.success(plain(f"{judgements.own_words(own)} {said} {failures.label_words(row)}"))
    draw_solution(row, info, revealed)


def draw_solution(row: ScoredRow, info: RunInfo, revealed: bool) -> None:
    """The solution: in the colours of its rewards where they may be seen, else as plain steps."""
    inspection = stored_inspection(row, info.name) if revealed else None
    if inspection is None and st.session_state.get("more_asked") and not revealed:
        marking(row, annotating.marked_in(row), partial(annotating.mark, row), key="marking")
        return
    if inspection is None:
        for number, step in enumerate(row["steps"], start=1):
            head = "Answer:" if step.get("role") == "answer" else f"{number}."
            st.text(f"{head}  {step['text']}")
        return
    trace = to_result(inspection, DEFAULT_GAMMA)["traces"][0]
    description = payload.describe(trace, caption=caption(inspection.scored[0], inspection))
    heatmap(trace, description, payload.settings("credit", DEFAULT_GAMMA, 1.0, compact=True), key="heatmap-failure")

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
    """What a solution is compared with: the reference, and the best correct sample."""
    reference, best = st.tabs(["Reference solution", "Best correct sample"])
    with reference:
        if row["reference_solution"]:
            draw_other(row["text"], row["reference_solution"])
        else:
            st.text("The run holds no reference solution of this problem.")
    with best:
        sample = failures.best_correct(listing.info, listing.table, row["problem_id"], row["trace_id"])
        if sample is None:
            st.text("No other sample of this problem is correct.")
        else:
            words = "without a score" if sample.score is None else f"mean discounted reward {sample.score:.2f}"
            st.caption(plain(f"{sample.trace_id}, {words}"))
            draw_other(row["text"], sample.text)


def draw_other(here: str, other: str) -> None:
    """Another solution, with the words marked that only one of the two has."""
    parts = differences(here, other) if st.session_state["differences"] else None
    if parts is None:
        st.text(other)
        return
    st.markdown(marked_differences(parts))
    st.caption("Struck: this solution alone. Marked: the other one alone.")


show()
