"""The controls of the Failures page that say which traces are listed, and in which order; its slices and its link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import streamlit as st

from app.analysis import chooser, expression, failures, slices
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
    known, step_words = failures.choices(table), failures.step_words
    state = st.session_state
    if link is not None:
        asked = link.query
        state.update(
            outcome=asked.outcome, words=asked.words, where=asked.where, sort=asked.sort, descending=asked.descending
        )
        for name in ("kinds", "verdicts", "true_steps", "verdict_steps"):
            state[f"filter_{name}"] = [one for one in getattr(asked, name) if one in getattr(known, name)]
    top = st.container()
    names = list(state.get(CLEARED, ()))
    refill(names)
    state.setdefault("outcome", failures.OUTCOMES[0])  # a default beside a kept value is warned of
    st.segmented_control(
        "Answer", failures.OUTCOMES, key="outcome", required=True, persist_state="session",
        format_func=lambda name: failures.OUTCOME_WORDS.get(name, name),
    )  # fmt: skip
    words = st.text_input("Words in problem, solution or its id", key="words", max_chars=200, persist_state="session")
    where = st.text_input(
        "Expression", key="where", max_chars=expression.MOST_CHARACTERS, placeholder=expression.EXAMPLE,
        persist_state="session",
    )  # fmt: skip
    fault = fault_of(where)
    with st.container(key="where_said"):  # its room stays: what stands below it does not jump
        st.caption(
            f":red[{plain(fault)}]"
            if fault
            else f"Compares {', '.join(expression.NAMES)} with values or each other; == is equal; with and, or, not."
        )
    one, two = st.columns(2, vertical_alignment="bottom")
    sort = one.selectbox(
        "Sort by", known.sorts, format_func=failures.SORTS.__getitem__, key="sort", persist_state="session"
    )
    descending = two.toggle("Highest first", key="descending", persist_state="session")

    def among(
        column: DeltaGenerator, name: str, title: str, options: Sequence[T], words_of: Callable[[Any], str]
    ) -> tuple[T, ...]:
        """Ask for some of the values, where there are any."""
        if not options:
            return ()
        return tuple(
            column.multiselect(title, options, format_func=words_of, key=f"filter_{name}", persist_state="session")
        )

    kinds = among(one, "kinds", "Kind of error", known.kinds, str)
    verdicts = among(two, "verdicts", "Verdict", known.verdicts, KINDS.__getitem__)
    true_steps = among(one, "true_steps", "True first error", known.true_steps, step_words)
    named = among(two, "verdict_steps", "Step that the verdict names", known.verdict_steps, step_words)
    ends, scores = known.scores, None
    cleared = unfiltered()
    if ends is not None and ends[0] < ends[1]:
        key = f"scores_{ends[0]:.3g}_{ends[1]:.3g}"
        if link is not None and link.query.scores is not None:
            low, high = (min(max(value, ends[0]), ends[1]) for value in link.query.scores)
            state[key] = (min(low, high), max(low, high))
        state.setdefault(key, ends)
        chosen: tuple[float, float] = st.slider(
            "Mean discounted reward", *ends, key=key, persist_state="session", help=term_of("discounted reward")
        )  # type: ignore[assignment]
        scores = None if chosen == ends else chosen
        cleared[key] = ends
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


@st.cache_data(max_entries=16, show_spinner=False)
def cached_slices(_table: pa.Table, by: str, key: tuple[str, int, int]) -> list[slices.Slice]:
    """The slices of a run."""
    return slices.slices(_table, by)


def draw_slices(table: pa.Table, key: tuple[str, int, int]) -> None:
    """A table of the parts of the run; a choice filters by it. ``key`` changes when the run's file does."""
    by = st.segmented_control("Slices by", list(slices.BY), format_func=slices.BY.__getitem__, default="family")
    if by is None:
        return
    found = cached_slices(table, by, key)

    more = "; the table scrolls" if len(found) > SLICES_IN_SIGHT else ""
    st.caption(f"{counted(len(found), 'slice')}{more}. A choice filters by it.")
    rows = [
        {
            "slice": one.name, "solutions": one.traces, "answer known": one.known, "wrong": one.wrong,
            "share wrong": one.wrong / one.known if one.known else None,
        }
        for one in found
    ]  # fmt: skip
    cards.table(
        rows, f"slices_{by}", title="Slices", height=SLICE_PIXELS if more else "auto",
        choose=lambda row: fill(where=found[row].where, outcome="all"),
        columns={
            "answer known": st.column_config.NumberColumn(help=ANSWER_KNOWN),
            "share wrong": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
        },
    )  # fmt: skip
