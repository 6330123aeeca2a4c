"""The list of solutions on the Failures page, and the ways through it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from app.analysis import annotating, catalogue, failures, judgements
from app.analysis.columns import MEANINGS, TITLES
from app.analysis.failures import Listing
from app.components import cards
from app.components.markdown import counted, plain
from irl_core.data.annotations import Annotation, latest
from irl_core.report.csv_export import csv_of
from irl_core.storage.schema import ScoredRow

if TYPE_CHECKING:
    import pandas as pd

ROWS_IN_SIGHT: Final = 7
NARROW_ID, WRAPPED_PIXELS = 24, 58  # characters of an id that a line of the list holds; height of a row of two lines
LETTER_PIXELS, PADDING_PIXELS = 8, 20
TABLE_PIXELS: Final = 35 * (ROWS_IN_SIGHT + 1) + 3
DISAGREED: Final = ", on which annotators disagree"
HERE, JUDGED = "\u25b6", "\u2713"
PLACE: Final = "The place in this list, by its order and filters; the row in the file stands under id."
CALLED_BY_ROW: Final = "Solutions that you have not judged are called by their rows in it, as in the list."


def draw_table(listing: Listing, copies: Counter[str], annotations: Sequence[Annotation]) -> None:
    """The texts from a little above the one that is looked at on, with a mark beside it.

    ``copies``: how many rows that pass the filters have each text.
    """
    first = listing.place - listing.place % ROWS_IN_SIGHT  # so that the trace is in sight, while the table scrolls on
    name = annotating.in_whose_name()
    mine = {item: one for (item, annotator), one in latest(annotations).items() if annotator == name}
    rows, saved = rows_from(listing, first, copies, mine)
    listed = listing.numbers[first : first + len(rows)]
    rows["trace_id"], beginning = failures.short_names(rows["trace_id"].tolist())
    marks = [
        HERE if first + n == listing.place else JUDGED if listing.item(first + n) in mine else ""
        for n in range(len(rows))
    ]
    rows.insert(0, "here", [f"{mark} {first + n + 1:,}".strip() for n, mark in enumerate(marks)])
    # a table of other rows is another table: a row that was selected in the one before is not selected in it
    key = "table_" + hashlib.sha256(repr((listed, list(rows["trace_id"]))).encode()).hexdigest()[:16]
    cards.table(
        rows,
        key,
        title="Solutions",
        choose=lambda row: look_at(listing, first + row),
        columns=columns_of(rows),
        height=TABLE_PIXELS,
        row_height=None if rows["trace_id"].str.len().max() <= NARROW_ID else WRAPPED_PIXELS,
    )
    annotating.draw_told(listing)
    items = [listing.item(place) for place in range(len(listing.numbers))]
    total, judged = len(items), sum(item in mine for item in items)
    st.progress(judged / total, text=f"{judged:,} of {total:,} judged by you")
    st.caption(
        f"{counted(total, 'text')} of {counted(sum(copies[item] for item in items), 'solution')} after the filters"
        f"{DISAGREED * bool(st.session_state['adjudicate'])}, of {listing.table.num_rows:,} in all; "
        f"{first + 1:,} to {first + len(listed):,} are listed; "
        f"{HERE} is {listing.place + 1:,} of {total:,} listed, {JUDGED} is judged by you"
        + plain(f"; \u2026 stands for {beginning}" * bool(beginning))
    )
    st.download_button(
        "CSV of these rows", partial(csv_of, saved), "solutions.csv", "text/csv", on_click="ignore", type="tertiary",
        icon=":material/download:", help=None if st.session_state["model_first"] else CALLED_BY_ROW,
    )  # fmt: skip


def rows_from(
    listing: Listing, first: int, copies: Counter[str], mine: dict[str, Annotation]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the list from a place on, as they are shown and as they are saved.

    In both a row that one is to judge blind has no id. ``mine``: what the annotator said, by item.
    """
    listed = listing.numbers[first : first + failures.PAGE_ROWS]
    model_first = st.session_state["model_first"]
    rows = failures.table_rows(listing.info, listed, telling=model_first)
    items = [listing.item(first + place) for place in range(len(listed))]
    rows.insert(0, "problem", rows.pop("problem"))  # its beginning is in sight, beside what was said of it
    if any(copies[item] > 1 for item in items):  # an empty column would take the room that others need
        rows.insert(2, "copies", [f"\u00d7{copies[item]}" if copies[item] > 1 else "" for item in items])
    if any(item in mine for item in items):
        rows.insert(0, "mine", labels_of(listing, first, [mine.get(item) for item in items]))
    told = [model_first or item in mine for item in items]
    names = [
        failures.name_of(identity, number, telling=telling)
        for identity, number, telling in zip(rows["trace_id"], listed, told, strict=True)
    ]
    kept = [
        identity if telling else name for identity, telling, name in zip(rows["trace_id"], told, names, strict=True)
    ]
    return rows.assign(trace_id=names), rows.assign(trace_id=kept)


def labels_of(listing: Listing, first: int, said: Sequence[Annotation | None]) -> list[str]:
    """What the annotator said of the rows of the list from a place on, in a word; empty where that is nothing."""
    places = [place for place, one in enumerate(said) if one is not None]
    numbers = [listing.numbers[first + place] for place in places]
    steps = dict(zip(places, catalogue.numbered_rows(listing.info, numbers, ["steps"]), strict=True))
    return ["" if one is None else judgements.label_of_row(one, steps[place]) for place, one in enumerate(said)]


def columns_of(rows: pd.DataFrame) -> dict[str, Any]:
    """How the columns of the list are drawn: as wide as what stands in them, and the first ones within sight."""
    columns = st.column_config
    told: dict[str, dict[str, Any]] = {name: {"label": TITLES[name], "help": MEANINGS.get(name)} for name in TITLES}
    widths = {"mine": 68, "problem": 160, "trace_id": room_for(rows["trace_id"], 5), "copies": 86, "text": 240}
    config: dict[str, Any] = {name: columns.Column(**told[name]) for name in TITLES if name in rows}
    config |= {name: columns.TextColumn(**told[name], width=width) for name, width in widths.items() if name in rows}
    config["here"] = columns.TextColumn("", width=room_for(rows["here"], 3), help=PLACE)
    for name in (failures.SCORE, "familiarity", "confidence"):
        config[name] = columns.NumberColumn(**told[name], format="%.2f")
    return config


def room_for(words: pd.Series, fewest: int) -> int:
    """The pixels that the longest of the words takes in a column, of ``fewest`` letters at least."""
    return LETTER_PIXELS * min(max(int(words.str.len().max()), fewest), NARROW_ID) + PADDING_PIXELS


def walk(listing: Listing, row: ScoredRow, further: int | None) -> None:
    """Next and previous, by button and by key; the next that is not judged (at the place ``further``, None where all
    are), the two ends, and any place of the list."""
    place, last = listing.place, len(listing.numbers) - 1
    st.session_state["place"] = place + 1

    def go(to: int) -> None:
        look_at(listing, to)

    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**Which step is the first wrong one?**", width="content", help=annotating.keys_words(row))
        st.button("First", key="walk_first", on_click=go, args=(0,), disabled=place == 0)
        st.button(
            "Previous", key="walk_previous", shortcut="K", on_click=go, args=(max(place - 1, 0),), disabled=place == 0
        )
        st.button(
            "Next", key="walk_next", shortcut="J", on_click=go, args=(min(place + 1, last),), disabled=place == last
        )
        st.button(
            "Next unjudged", key="walk_unjudged", shortcut="N", on_click=go, args=(further or 0,),
            disabled=further is None,
        )  # fmt: skip
        st.button("Last", key="walk_last", on_click=go, args=(last,), disabled=place == last)
        st.number_input(
            f"Go to, of {last + 1:,} listed", 1, last + 1, key="place", width=80, label_visibility="collapsed",
            on_change=lambda: go(st.session_state["place"] - 1),
        )  # fmt: skip
        st.markdown(f"of {last + 1:,}", width="content")


def look_at(listing: Listing, place: int) -> None:
    """Make the trace at a place of the list the one that is looked at."""
    st.session_state.update(failure=listing.trace_id(place), failure_row=listing.numbers[place])
