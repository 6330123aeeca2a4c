"""The Failures page: find wrong traces, see each beside a right one, and say where the first error really is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import streamlit as st

from app import access
from app.analysis import (
    agreement,
    annotating,
    catalogue,
    chooser,
    failures,
    filters,
    judgements,
    listing,
    panel,
    slices,
    solution,
)
from app.analysis.catalogue import RunInfo
from app.analysis.expression import ExpressionError
from app.analysis.failures import Listing, Query
from app.components.judging_keys import take_keys_in_turn
from app.components.markdown import plain
from app.inspect import links
from irl_core.data.annotations import MOST_NAME, Annotations, disagreed
from irl_core.errors import AnnotationError, StoreError
from irl_core.reward.verdict import Judged
from irl_core.storage.schema import ScoredRow

if TYPE_CHECKING:
    import pyarrow as pa
    from streamlit.delta_generator import DeltaGenerator

    from irl_core.data.annotations import Annotation

STYLE: Final = Path(__file__).parents[1] / "components" / "failures.css"
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
    guidelines = help_.popover("Guidelines", icon=":material/menu_book:", width="stretch")
    guidelines.markdown(annotating.GUIDELINES)
    try:
        table = cached_index(info.path.as_posix(), info.key, info)
        annotations = read_annotations()
        with narrow.popover("Filter", icon=":material/filter_alt:", width="stretch"):
            query, fault = filters.choose_query(table, link)
        if fault:
            st.error("The expression is not applied: the Filter says what is wrong with it.")
        known = Judged.of(*(table.column(name).to_pylist() for name in ("cannot_judge", "familiar")))
        origin.caption(plain(f"{info.listed}: {panel.origin(info.provenance)}; {known.words}."))
        if (row := browse(info, table, query, annotations)) is not None:
            guidelines.caption(annotating.keys_words(row))
        panels(info, table, query, annotations)
    except (StoreError, ExpressionError) as error:
        st.error(plain(str(error)))


def panels(info: RunInfo, table: pa.Table, query: Query, annotations: Sequence[Annotation] | None) -> None:
    """What stands below the main loop: slices, the link, agreement, exchange."""
    with st.expander("Slices by family, kind and length; a link to these filters", icon=":material/donut_small:"):
        filters.draw_slices(info, table, query)
        try:
            address = (st.context.url or "").partition("?")[0]
            st.code(f"{address}?{urlencode(slices.parameters(info.name, query))}", language=None, wrap_lines=True)
        except links.LinkError as error:
            st.caption(plain(str(error)))
    if annotations:
        agreement.show_agreement(info, annotations)
    if annotations is not None:
        agreement.exchange(annotations)


@st.cache_resource(max_entries=4, show_spinner="Reading the run \u2026")
def cached_index(path: str, key: FileKey, _info: RunInfo) -> pa.Table:
    """The index of a run, read once for all sessions."""
    return catalogue.index(_info)


@st.cache_data(max_entries=64, show_spinner="Looking for the words \u2026")
def cached_texts(
    key: FileKey, query: Query, in_ids: bool, _info: RunInfo, _table: pa.Table
) -> tuple[list[int], Counter[str]]:
    """The numbers of the rows that a query asks for, one a text, and how many each text has."""
    return failures.one_a_text(_table, failures.numbers(_info, _table, query, in_ids=in_ids))


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


def browse(info: RunInfo, table: pa.Table, query: Query, annotations: Sequence[Annotation] | None) -> ScoredRow | None:
    """The list of rows that pass the filters, the trace that is looked at, what it is compared with, and the question,
    all on one screen. The row of the trace; None where there is none to look at."""
    state = st.session_state
    numbers, copies = cached_texts(info.key, query, state["model_first"], info, table)
    said = disagreed(annotations or []) if state["adjudicate"] else None
    if said is not None:
        numbers = failures.of_items(table, numbers, said)
    if not numbers:
        st.info(f"None of the {table.num_rows:,} solutions passes these filters.")
        filters.draw_active(query)
        filters.clear_button(key="clear_filters_here")
        return None
    listed = Listing.at_trace(info, table, numbers, *map(state.get, ("failure", "failure_row")))
    listing.look_at(listed, listed.place)
    left, middle, right = st.columns([13, 19, 12], gap="small")
    with left.container(key="listing"):
        filters.draw_active(query)
        listing.draw_table(listed, copies, annotations or [])
    row = catalogue.numbered_row(info, numbers[listed.place])
    if row["trace_id"] != listed.trace_id(listed.place):
        st.error("The run was written anew meanwhile; load the page again.")
        return None
    name = annotating.in_whose_name()
    own = judgements.own_annotation(row, annotations or [], name)
    judged = judgements.judged_items(annotations or [], name)
    revealed = state["model_first"] or own is not None
    with middle.container(key="trace"):
        beside = None if own is None else judgements.noted_beside(own, annotations or [])
        solution.draw_trace(listed, row, own, beside, revealed=revealed)
        if said is not None:
            st.caption("What annotators said")
            st.text("\n".join(judgements.said_words(one, row) for one in said[listed.item(listed.place)]))
    with right.container(key="beside"):
        solution.draw_comparison(listed, row, judged, revealed=revealed)
    with st.container(key="question", gap="small"):
        further = listed.next_open(judged)
        listing.walk(listed, row, further)
        if annotations is not None:
            annotating.ask(
                listed, row, blind=not (revealed or query.telling), answered=own,
                last=judgements.last_said(row, annotations, name), further=further, look_at=listing.look_at,
            )  # fmt: skip
    return row


show()
take_keys_in_turn()
