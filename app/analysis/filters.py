"""The controls of the Failures page that say which traces are listed, and in which order; its slices and its link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import streamlit as st

from app.analysis import active, chooser, columns, expression, failures, slices
from app.analysis.catalogue import ROW, RunInfo
from app.analysis.failures import Query
from app.components import cards
from app.components.filling import fill, filled, refill
from app.components.markdown import counted, plain
from app.inspect import links
from irl_core.report.terms import term_of
from irl_core.reward.verdict import KINDS

if TYPE_CHECKING:
    import pyarrow as pa
    from streamlit.delta_generator import DeltaGenerator

ANSWER_KNOWN: Final = "Solutions of which the run says whether their answer is right; the share is of these."
NOT_IN_IDS: Final = "In ids too where the model's answer is shown first (Reviewer): an id may tell the answer."
TOO_FEW: Final = "so few, or all of one kind, that a list of the kinds would tell you the label before you have judged."
CLEARED: Final = "filters_cleared"  # in the session: the controls' values that filter nothing
SLICE_PIXELS: Final = 35 * 5 + 21  # a row that is cut in half says that there are more
SLICES_IN_SIGHT: Final = 4
T = TypeVar("T")


def open_link() -> slices.Opened | None:
    """What the address asks for, once: its run is chosen."""
    given = st.query_params.to_dict()
    if slices.PARAMETER not in given or st.session_state.get("slice_opened") == given[slices.PARAMETER]:
        return None
    st.session_state["slice_opened"] = given[slices.PARAMETER]
    try:
        found = slices.opened(given)
    except links.LinkError as error:
        st.error(plain(str(error)))
        return None
    if found is not None:
        st.session_state[chooser.STATE] = [found.run]
        st.session_state.pop("run_shown", None)
    return found


def choose_query(table: pa.Table, link: slices.Opened | None) -> tuple[Query, str]:
    """Draw the controls of filters and order.

    Args:
        table: the index of the run.
        link: what the address asks for, which the controls are set to.

    Returns:
        What is asked for, and what is wrong with its expression, which is then not in it; empty where nothing is.
    """
    known, state = failures.choices(table), st.session_state
    if link is not None:
        take_link(link.query, known)
    names = list(state.get(CLEARED, ()))
    refill(names)
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        choose_outcome()
        top = st.container(width="content")
    words, where, fault = choose_words()
    one, two = st.columns(2, vertical_alignment="bottom")  # a row each: of two whole columns the shorter one has a hole
    sort = one.selectbox(
        "Sort by", known.sorts, format_func=columns.SORTS.__getitem__, key="sort", persist_state="session"
    )
    descending = two.toggle("Highest first", key="descending", persist_state="session")
    one, two = st.columns(2)
    verdicts = choose_among(one, "verdicts", "Verdict", known.verdicts, KINDS.__getitem__)
    named = choose_among(two, "verdict_steps", "Step that the verdict names", known.verdict_steps, failures.step_words)
    one, two = st.columns(2)
    true_steps = choose_among(one, "true_steps", "True first error", known.true_steps, failures.step_words)
    kinds = choose_among(two if known.true_steps else one, "kinds", "Kind of error", known.kinds, str)
    cleared = unfiltered()
    scores = choose_scores(known.scores, None if link is None else link.query.scores, cleared)
    query = Query(
        state["outcome"], kinds, verdicts, true_steps, named, scores, words, sort, descending, "" if fault else where
    )
    if query.telling and not state["model_first"]:
        st.caption("These filters say something of the model's answer or the label: annotations are not blind.")
    filled(names)
    state[CLEARED] = cleared
    with top:
        clear_button(disabled=not fault and query == Query(outcome="all"))
    return query, fault


def take_link(asked: Query, known: failures.Choices) -> None:
    """Set the controls to what a link asks for, as far as this run has it."""
    state = st.session_state
    state.update(
        outcome=asked.outcome, words=asked.words, where=asked.where, sort=asked.sort, descending=asked.descending
    )
    for name in ("kinds", "verdicts", "true_steps", "verdict_steps"):
        state[f"filter_{name}"] = [one for one in getattr(asked, name) if one in getattr(known, name)]


def choose_outcome() -> None:
    """Ask whose answers are right, wrong, or not known to be either."""
    st.session_state.setdefault("outcome", failures.OUTCOMES[0])  # a default beside a kept value is warned of
    st.segmented_control(
        "Answer", failures.OUTCOMES, key="outcome", required=True, persist_state="session",
        format_func=lambda name: failures.OUTCOME_WORDS.get(name, name),
    )  # fmt: skip


def choose_words() -> tuple[str, str, str]:
    """Ask for words and an expression; the words, the expression, and what is wrong with it."""
    model_first = st.session_state["model_first"]
    one, two = st.columns(2)
    words = one.text_input(
        "Words in problem, solution or its id" if model_first else "Words in problem or solution", key="words",
        max_chars=200, persist_state="session", help=None if model_first else NOT_IN_IDS,
    )  # fmt: skip
    where = two.text_input(
        "Expression", key="where", max_chars=expression.MOST_CHARACTERS, placeholder=expression.EXAMPLE,
        persist_state="session", help=columns.names_explained(),
    )  # fmt: skip
    fault = fault_of(where)
    with st.container(key="where_said"):  # its room stays: what stands below it does not jump
        st.caption(
            f":red[{plain(fault)}]"
            if fault
            else "An expression compares names with values or each other (== is equal), joined by and, or, not. The ? "
            "beside it lists the names, and says what they hold."
        )
    return words, where, fault


def choose_among(
    column: DeltaGenerator, name: str, title: str, options: Sequence[T], words_of: Callable[[Any], str]
) -> tuple[T, ...]:
    """Ask for some of the values, where there are any."""
    if not options:
        return ()
    return tuple(
        column.multiselect(title, options, format_func=words_of, key=f"filter_{name}", persist_state="session")
    )


def choose_scores(
    ends: tuple[float, float] | None, asked: tuple[float, float] | None, cleared: dict[str, Any]
) -> tuple[float, float] | None:
    """Ask for a part of the range of scores.

    Args:
        ends: the range; None where no trace has a score.
        asked: what a link asks for.
        cleared: the controls' values that filter nothing, to which that of this one is added.

    Returns:
        The part; None for all of it.
    """
    if ends is None or ends[0] >= ends[1]:
        return None
    key = f"scores_{ends[0]:.3g}_{ends[1]:.3g}"
    if asked is not None:
        low, high = (min(max(value, ends[0]), ends[1]) for value in asked)
        st.session_state[key] = (min(low, high), max(low, high))
    st.session_state.setdefault(key, ends)
    chosen: tuple[float, float] = st.slider(
        "Mean discounted reward", *ends, key=key, persist_state="session", help=term_of("discounted reward")
    )  # type: ignore[assignment]
    cleared[key] = ends
    return None if chosen == ends else chosen


def fault_of(where: str) -> str:
    """What is wrong with an expression; empty where nothing is, or there is none."""
    try:
        if where.strip():
            expression.read(where)
    except expression.ExpressionError as error:
        return str(error)
    return ""


def unfiltered() -> dict[str, Any]:
    """The controls' values that filter nothing."""
    plain_query = Query(outcome="all")
    names = ("outcome", "words", "where", "sort", "descending")
    return {name: getattr(plain_query, name) for name in names} | {
        f"filter_{name}": [] for name in ("kinds", "verdicts", "true_steps", "verdict_steps")
    }


def clear_button(*, key: str = "clear_filters", disabled: bool = False) -> None:
    """The button that sets all filters back."""
    st.button(
        "Clear all filters", key=key, icon=":material/filter_alt_off:", disabled=disabled,
        on_click=lambda: fill(**st.session_state.get(CLEARED, {})),
    )  # fmt: skip


def draw_active(query: Query) -> None:
    """The filters that are on and the order, in words, each with the button that takes it off."""
    cleared: dict[str, Any] = st.session_state[CLEARED]
    found = active.active(query)
    if st.session_state["adjudicate"]:
        found.append(active.Active(active.DISAGREEMENTS, ("adjudicate",)))
        cleared = {**cleared, "adjudicate": False}
    if not found:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="xxsmall", key="active"):
        for one in found:
            values = {name: value for name, value in cleared.items() if name.startswith(one.controls)}
            st.button(
                plain(one.words), key=f"active_{one.controls[0]}", icon=":material/close:", icon_position="right",
                type="tertiary", help=active.REMOVES, on_click=fill, kwargs=values,
            )  # fmt: skip


@st.cache_data(max_entries=16, show_spinner=False)
def cached_slices(
    key: tuple[str, int, int], query: Query, in_ids: bool, by: str, _info: RunInfo, _table: pa.Table
) -> tuple[int, list[slices.Slice]]:
    """How many rows a query asks for, and their slices; ``key`` changes when the run's file does."""
    numbers = failures.numbers(_info, _table, query, in_ids=in_ids)
    return len(numbers), slices.slices(_table.take(numbers), by) if numbers else []  # pyarrow takes no empty list


def draw_slices(info: RunInfo, table: pa.Table, query: Query) -> None:
    """A table of the parts of the rows that pass the filter; a choice narrows the filter to one of them."""
    by = st.segmented_control("Slices by", list(slices.BY), format_func=slices.BY.__getitem__, default="family")
    if by is None:
        return
    model_first = st.session_state["model_first"]
    unsorted = replace(query, sort=ROW, descending=False)
    total, found = cached_slices(info.key, unsorted, model_first, by, info, table)
    if not total:
        st.caption("No solution passes the filter, so that there are no slices of them.")
        return
    if not model_first and not query.telling and slices.tells(found, by):
        st.caption(f"{counted(total, 'solution')} after the filter: {TOO_FEW}")
        return
    more = "; the table scrolls" if len(found) > SLICES_IN_SIGHT else ""
    st.caption(
        f"{counted(len(found), 'slice')} of the {counted(total, 'solution')} after the filter{more}. A choice narrows "
        "the filter to one, by its expression."
    )

    def narrow(row: int) -> None:
        fill(where=expression.both(query.where, found[row].where))

    cards.table(
        [slice_row(one, total, query) for one in found], f"slices_{by}", title="Slices", choose=narrow,
        height=SLICE_PIXELS if more else "auto",
        columns={
            "answer known": st.column_config.NumberColumn(help=ANSWER_KNOWN),
            "share": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
            "share wrong": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
        },
    )  # fmt: skip


def slice_row(one: slices.Slice, total: int, query: Query) -> dict[str, Any]:
    """A slice in the table. Where the filter takes right or wrong solutions alone, how many are wrong says nothing."""
    if query.outcome != "all":
        return {"slice": one.name, "solutions": one.traces, "share": one.traces / total}
    return {
        "slice": one.name, "solutions": one.traces, "answer known": one.known, "wrong": one.wrong,
        "share wrong": one.wrong / one.known if one.known else None,
    }  # fmt: skip
