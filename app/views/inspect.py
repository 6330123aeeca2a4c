"""The Inspect page: paste a problem, perhaps a solution, and see where the reasoning goes wrong."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlencode

import streamlit as st

from app import sidebar
from app.analysis import catalogue, chooser
from app.analysis.catalogue import RunInfo
from app.components import cards
from app.components.filling import fill, filled, refill
from app.components.heatmap import heatmap
from app.components.markdown import has_markup, plain, rendered
from app.inspect import examples, history, links, panels, results, second, serving, session, what_if
from app.inspect.request import Inspection
from irl_core.checkpoints.find import CheckpointInfo
from irl_core.errors import StoreError
from irl_core.report.csv_export import to_csv
from irl_core.report.heatmap import payload
from irl_core.report.heatmap.export import to_html
from irl_core.report.inspection_json import InspectionResult
from irl_core.storage.schema import ScoredRow

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

FAILURES = Path(__file__).with_name("failures.py")
DISCOUNTED_SCORE = "mean_discounted"  # the one trace score that discounts
ROW_PIXELS = 35
RESULT = "result"
SHOWN = "shown"  # the result, with what is said of it above
STYLE = """<style>
.st-key-kinds { min-height: 2.5rem; justify-content: center; }
@media (max-width: 767px) { .st-key-found { min-height: 85vh; scroll-margin-top: 4rem; } }
[data-testid=stPopoverBody]:has(.st-key-wide_history_table) { min-width: min(46rem, 92vw); }
.irl-lens-typing .st-key-result { opacity: 0.4; }  /* at the first letter, before the page has heard of it */
body:has(.st-key-strip_stop_inspect) .st-key-shown { display: none; }  /* what is asked now has another one */
/* progress of what is asked further down the page is in sight wherever it is, and moves nothing under the pointer */
[data-testid=stLayoutWrapper]:has(> :is(.st-key-strip_stop_change, .st-key-strip_stop_second)) {
  position: fixed; z-index: 1000; right: 1rem;
  bottom: 1rem; width: min(34rem, 100vw - 2rem); padding: 0.5rem 1rem; border-radius: 0.5rem;
  border: 1px solid rgb(128 128 128 / 40%); background-color: var(--st-background-color, Canvas);
  box-shadow: 0 2px 10px rgb(0 0 0 / 30%); }
body:has(:is(.st-key-strip_stop_change, .st-key-strip_stop_second)) .st-key-shown [data-stale=true] {
  opacity: 1 !important; transition: none !important; }
@media (max-width: 767px), (hover: none) { .st-key-inspect kbd { display: none; } }  /* without keys */
</style>"""
DIMMED = f"<style>.st-key-{RESULT} {{ opacity: 0.4; }}</style>"  # it is not of the texts that stand above it


def show() -> None:
    info = sidebar.chosen()
    if show_stored(info):
        return
    history.open_waiting()
    st.header("Where does the reasoning go wrong?")
    st.html(STYLE)
    left, right = st.columns([5, 9], gap="medium")
    right = right.container(key="found")
    with left:
        before = ask(info)
    with right:
        if stopped := session.told():
            st.info(stopped)
        if info is None:
            st.info("There is no checkpoint to load yet. The sidebar says how to add one.")
        else:
            work(info)
        what_if.serve(info)
        second.serve()
        history.draw_batch()
    with before:  # what was inspected just now is among it
        history.draw_popover()
    inspection = st.session_state.get("inspection")
    if inspection is None:
        return
    with st.container(key=SHOWN) if is_wide(inspection) else right.container(key=SHOWN):
        if not session.is_of_the_form(inspection):
            words = f"The result of what was asked before, {history.beginning(inspection.request.problem)}"
            words += f", by {inspection.listed}." if inspection.listed else "."
            st.warning(plain(words) + " *Inspect* asks anew.")
            st.html(DIMMED)
        with st.container(key=RESULT):
            draw_inspection(inspection)


def work(info: CheckpointInfo) -> None:
    """Have inspected what is wanted, then what is left of a pasted file."""
    if (wanted := session.wanted()) is not None:
        serving.serve(wanted, info)
        session.served()
    if (pasted := history.pending()) is not None:
        serving.serve_many(pasted, info)


def is_wide(inspection: Inspection) -> bool:
    """Whether two things stand beside each other, for which the form leaves no room at its side."""
    several = len(inspection.scored) > 1
    versus = several and (bool(inspection.request.way) or st.session_state["versus"] in range(len(inspection.scored)))
    return versus or second.shown(inspection) is not None


def ask(info: CheckpointInfo | None) -> DeltaGenerator:
    """The left column: example, form, many at once; returns a place for the history."""
    if "link_error" in st.session_state:
        st.error(plain(st.session_state.pop("link_error")))
    refill(session.FIELDS)
    choose_example()
    form()
    filled(session.FIELDS)
    with st.container(horizontal=True):
        before = st.container(width="content")
        panels.paste_many()
    if info is not None and info.config.get("kind") == "tiny":
        st.caption(
            plain(f"Checkpoint {info.name} is a small model that knows the word problems of its own generator, and ")
            + "nothing else. For other problems load a real one: see the sidebar, *Use a model of your own*."
        )
    return before


def choose_example() -> None:
    """The chooser of an example and of the kind of solution that comes with it."""
    known, faults = examples.load(examples.file_of(st.session_state.get("checkpoint", "")))
    for fault in faults:
        st.warning(plain(fault))
    if not known:
        return
    session.settle_chooser()
    st.selectbox(
        "Example",
        range(len(known)),
        format_func=lambda number: known[number].name,
        key=session.example_key(),
        index=None,
        placeholder="Your own text",
        on_change=session.take_example,
        persist_state="session",
        label_visibility="collapsed",
    )
    with st.container(key="kinds"):  # its room stays: where it comes and goes the form stays under the pointer
        if not session.is_example():
            st.caption("A text of your own.")
            return
        st.segmented_control(
            "Its solution", session.KINDS, key=session.KIND, required=True, on_change=session.take_example,
            label_visibility="collapsed", persist_state="session",
        )  # fmt: skip


def form() -> None:
    """Ask for problem and solution, and for sampling where there is no solution.

    No form of Streamlit: what is edited is known at once, so that an old result can be dimmed.
    """
    st.text_area("Problem", key="problem", height=122, persist_state="session")
    st.text_area(
        "Solution (optional)",
        key="solution",
        height=146,
        placeholder="Leave it empty to have the model (the policy) write some.",
        help="think/answer tags, GSM8K with a closing #### line, numbered steps or plain lines.",
        persist_state="session",
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):  # it wraps where there is no room for both
        st.text_input("Right answer", key="answer", placeholder="optional", persist_state="session", width=114)
        st.button(
            "Inspect", key="inspect", type="primary", width="stretch", on_click=session.ask, shortcut="Ctrl+Enter"
        )
    state = st.session_state
    with st.container():  # below the button; its room stays: what follows would stand there twice while models run
        if not state["solution"].strip():
            panels.sampling()


# ---------------------------------------------------------------------------------------------- a trace of a scored run


def show_stored(info: CheckpointInfo | None) -> bool:
    """Show the stored trace that the address names, as it was scored; False where it names none."""
    try:
        wanted = links.read_stored(st.query_params.to_dict())
        if wanted is None:
            return False
        run = catalogue.find(wanted.run)
        row = catalogue.row(run, wanted.trace_id)
    except (links.LinkError, StoreError) as error:
        st.error(plain(str(error) if isinstance(error, links.LinkError) else f"Not found: {error}"))
    else:
        if row is not None:
            draw_stored(run, row, info)
            show_address({"run": wanted.run, "trace": wanted.trace_id})
            return True
        st.error("Not found: the run has no solution of that id.")
    st.button("To a text of your own", on_click=st.query_params.clear)
    return True


def draw_stored(run: RunInfo, row: ScoredRow, info: CheckpointInfo | None) -> None:
    """A stored trace, with what can be done with it."""

    def score_again() -> None:
        st.query_params.clear()
        answer = row["reference_answer"] or ""
        fill(problem=row["problem"], solution=row["text"], answer=answer)
        session.empty_chooser()
        st.session_state["run_now"] = True

    inspection = results.stored_inspection(row, run.listed)
    st.text(row["problem"])
    with st.container(horizontal=True):
        st.button("To a text of your own", on_click=st.query_params.clear)
        st.button("Score it again with the checkpoint of the sidebar", on_click=score_again, disabled=info is None)
        if st.button("Show it in Failures", icon=":material/fact_check:"):
            st.session_state.update({chooser.STATE: [run.name], "failure": row["trace_id"], "outcome": "all"})
            st.switch_page(FAILURES)
    if row["reference_solution"]:
        with st.expander("The reference solution"):
            st.text(row["reference_solution"])
    if inspection is None:
        st.info("No reward model has read this solution, so it has no rewards to show.")
        st.text(row["text"])
        return
    result = results.to_result(inspection, st.session_state["gamma"])
    draw_traces(inspection, result, [0])
    offer_files(inspection, result, [0])


# ------------------------------------------------------------------------------------------------------- an inspection


def draw_inspection(inspection: Inspection) -> None:
    """The traces of an inspection: which, in which view, themselves, and the files and the link to keep."""
    gamma = st.session_state["gamma"]
    result = results.to_result(inspection, gamma)
    chosen, versus = choose_traces(inspection, result, results.ranking(inspection, gamma))
    choose_discount(discounts=len(inspection.scored) > 1 and inspection.score_kind == DISCOUNTED_SCORE)
    shown = [chosen] if versus is None else [chosen, versus]
    draw_traces(inspection, result, shown)
    if len(inspection.scored) == 1 and not inspection.written:
        advise(inspection)  # what holds without a model stands above it
    if inspection.request.solution:
        if result["traces"][0]["cannot_judge"] is not True:
            what_if.draw(inspection)
        with st.container(horizontal=True):
            panels.steps_by_hand(inspection)
            second.choose(inspection)
    offer_files(inspection, result, shown)
    try:
        parameters = links.write(session.link_of(inspection, chosen, versus))
    except links.LinkError as error:
        st.query_params.clear()
        st.caption(plain(str(error)))
        return
    st.query_params.from_dict(cast("dict[str, str | list[str]]", parameters))
    show_address(parameters)


def advise(inspection: Inspection) -> None:
    """Where a small model cannot judge a text: that there are others."""
    info = sidebar.chosen()
    tiny = info is not None and info.config.get("kind") == "tiny"
    if tiny and any(known is not None and known.familiar is False for known in inspection.familiarity):
        st.info("For problems such as this one load a real model: see the sidebar, *Use a model of your own*.")


def choose_traces(inspection: Inspection, result: InspectionResult, order: list[int]) -> tuple[int, int | None]:
    """The table of sampled traces and the two choices; the chosen traces as indices."""
    if len(order) == 1 and not inspection.written:
        return 0, None
    st.text(results.written_words(inspection) if inspection.written else results.samples_words(inspection))
    advise(inspection)
    if inspection.written:
        return 0, 1 if len(order) > 1 else None
    cards.table(
        results.ranking_table(inspection, result, order), "samples", title="Solutions",
        choose=lambda row: st.session_state.update(chosen=order[row]),
        columns={results.score_column(inspection): st.column_config.NumberColumn(format="%.2f")},
        height=ROW_PIXELS * (min(len(order), 6) + 1) + 3,
    )  # fmt: skip
    for name in ("chosen", "versus"):
        if st.session_state[name] not in order:
            st.session_state[name] = order[0] if name == "chosen" else None
    labels = {
        index: results.choice_label(result["traces"][index], index, place) for place, index in enumerate(order, start=1)
    }
    left, right = st.columns(2)
    left.selectbox("Solution shown", order, format_func=labels.__getitem__, key="chosen", persist_state="session")
    right.selectbox(
        "Beside it",
        order,
        format_func=labels.__getitem__,
        key="versus",
        index=None,
        placeholder="No other one",
        persist_state="session",
    )
    return st.session_state["chosen"], st.session_state["versus"]


def choose_discount(*, discounts: bool) -> None:
    """The discount where a score ``discounts`` that traces are ranked by, and the heatmap does not ask for it: in its
    discounted view it does, as for view, scale and strength of the colours."""
    if discounts and st.session_state["view"] != "discounted":
        st.slider(
            "Discount (gamma)",
            0.0,
            1.0,
            step=0.01,
            key="gamma",
            help="How much a token counts in those before it: 0 not at all, 1 fully. For the score that samples are "
            "ranked by, and for the discounted view.",
            persist_state="session",
        )


def draw_traces(inspection: Inspection, result: InspectionResult, indices: list[int]) -> None:
    """One trace, or two beside each other."""
    state = st.session_state
    settings = payload.settings(state["view"], state["gamma"], state["strength"])
    text = result["traces"][indices[0]]["text"]
    alone = len(indices) == 1
    other = second.shown(inspection) if alone else None
    columns = list(st.columns(2, gap="medium")) if other or not alone else [st.container()]
    if other is not None:
        with columns.pop():
            second.draw(other, settings)
    can_pick = inspection.request.solution and not inspection.run and result["traces"][0]["cannot_judge"] is not True
    pick = partial(what_if.pick, inspection) if can_pick else None
    for column, index in zip(columns, indices, strict=True):
        description = results.description(inspection, result, index)
        with column:
            heatmap(
                result["traces"][index], description, settings, key=f"heatmap-{index}", picked=inspection.at, pick=pick
            )
    if alone and has_markup(text):  # below: beside the heatmap it took the room in which that stays in sight
        with st.expander("As it reads with its Markdown and LaTeX drawn", icon=":material/function:"):
            st.markdown(rendered(text))


def offer_files(inspection: Inspection, result: InspectionResult, indices: list[int]) -> None:
    """What is shown as files to keep."""
    state = st.session_state
    traces = [result["traces"][index] for index in indices]
    descriptions = [results.description(inspection, result, index) for index in indices]
    page = partial(
        to_html, {**result, "traces": traces}, view=state["view"], gamma=state["gamma"], strength=state["strength"],
        described=descriptions,
    )  # fmt: skip
    files = (
        ("HTML page of what is shown", page, "inspection.html", "text/html"),
        ("CSV of all tokens", partial(to_csv, result), "inspection.csv", "text/csv"),
        ("JSON", partial(json.dumps, result, indent=1, allow_nan=False), "inspection.json", "application/json"),
    )
    with st.container(horizontal=True):
        for label, data, name, mime in files:
            st.download_button(label, data, name, mime, on_click="ignore", icon=":material/download:")


def show_address(parameters: dict[str, str]) -> None:
    """The address that leads to what is shown, to copy."""
    with st.expander("Permanent link"):
        address = (st.context.url or "").partition("?")[0]
        st.code(f"{address}?{urlencode(parameters)}", language=None, wrap_lines=True)


show()
