"""The Inspect page: paste a problem, perhaps a solution, and see where the reasoning goes wrong."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import cast
from urllib.parse import urlencode

import streamlit as st

from app import sidebar
from app.analysis import catalogue, chooser
from app.components.heatmap import heatmap
from app.components.markdown import plain
from app.inspect import examples, links, results, scoring_queue, session
from app.inspect.request import Inspection, Request
from app.inspect.scoring_queue import Refused, Ticket
from irl_core.checkpoints.find import CheckpointInfo
from irl_core.errors import CheckpointError, InputError, StoreError
from irl_core.report.csv_export import to_csv
from irl_core.report.heatmap import payload
from irl_core.report.heatmap.export import to_html
from irl_core.report.heatmap.payload import VIEWS
from irl_core.report.inspection_json import InspectionResult
from irl_core.scorer import MAX_SAMPLES, check_inputs
from irl_core.storage.schema import ScoredRow

FAILURES = Path(__file__).with_name("failures.py")
POLL_SECONDS = 0.15
DISCOUNTED_SCORE = "mean_discounted"  # the one trace score that discounts
ROW_PIXELS = 35
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
RESULT = "result"
DIMMED = f"<style>.st-key-{RESULT} {{ opacity: 0.4; }}</style>"  # it is not of the texts that stand above it


def show() -> None:
    st.header("Where does the reasoning go wrong?")
    info = sidebar.chosen()
    if show_stored(info):
        return
    if info is not None and info.config.get("kind") == "tiny":
        st.caption(
            plain(f"Checkpoint {info.name} is a small model that knows the word problems of its own generator, and ")
            + "nothing else. For other problems load a real one: see the sidebar, *Use a model of your own*."
        )
    if "link_error" in st.session_state:
        st.error(plain(st.session_state.pop("link_error")))
    choose_example()
    asked = form()
    place = st.container()
    if info is None:
        st.info("There is no checkpoint to load yet. The sidebar says how to add one.")
    elif asked or st.session_state.pop("run_now", False):
        with place:
            serve(session.request(), info)
    inspection = st.session_state.get("inspection")
    if inspection is not None:
        if not session.is_of_the_form(inspection):
            problem = inspection.request.problem
            beginning = problem if len(problem) <= 80 else f"{problem[:80]} \u2026"
            st.warning(plain(f"Below: the result of what was asked before, {beginning}") + " *Inspect* asks anew.")
            st.html(DIMMED)
        with st.container(key=RESULT):
            draw_inspection(inspection)


def choose_example() -> None:
    """The chooser of an example and of the kind of solution that comes with it."""
    known, faults = examples.load(examples.file_of(st.session_state.get("checkpoint", "")))
    for fault in faults:
        st.warning(plain(fault))
    if not known:
        return
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.selectbox(
        "Example",
        range(len(known)),
        format_func=lambda number: known[number].name,
        key="example",
        index=None,
        placeholder="Your own text",
        on_change=session.take_example,
    )
    right.segmented_control("Its solution", session.KINDS, key="kind", required=True, on_change=session.take_example)


def form() -> bool:
    """Ask for problem and solution, and for sampling where there is no solution; whether it was sent.

    No form of Streamlit: what is edited is known at once, so that an old result can be dimmed.
    """
    left, right = st.columns(2)
    left.text_area("Problem", key="problem", height=128)
    right.text_area(
        "Solution (optional)",
        key="solution",
        height=128,
        placeholder="Leave it empty to let the policy write some.",
        help="think/answer tags, GSM8K with a closing #### line, numbered steps or plain lines.",
    )
    answer, n, seed, temperature, go = st.columns([1.2, 1.4, 0.9, 0.9, 1.3], vertical_alignment="bottom")
    answer.text_input("Right answer (optional)", key="answer")
    if not st.session_state["solution"].strip():
        n.slider("Traces to sample", 1, MAX_SAMPLES, key="n")
        seed.number_input("Seed", 0, 2**31 - 1, step=1, key="seed")
        temperature.number_input("Temperature", 0.1, 2.0, step=0.1, key="temperature")
    return go.button("Inspect", type="primary", width="stretch", on_click=session.leave_example, shortcut="Ctrl+Enter")


def serve(request: Request, info: CheckpointInfo) -> None:
    """Run the models and keep the inspection in the session; where that fails, say why and keep nothing."""
    st.session_state.pop("inspection", None)
    try:
        check_inputs(request.problem, request.solution or None)
        own = st.session_state.setdefault("queue_session", uuid.uuid4().hex)
        ticket = scoring_queue.desk(info, st.session_state.get("device", "auto")).submit(request, own)
        st.session_state["inspection"] = follow(ticket)
    except (InputError, Refused, CheckpointError) as error:
        st.error(plain(str(error)))


def follow(ticket: Ticket) -> Inspection:
    """Draw the progress of a ticket until it is done; give it up when this run of the page is ended."""
    box = st.empty()
    try:
        while not ticket.wait(POLL_SECONDS):
            now, ahead = ticket.progress, ticket.ahead()
            words = f"Busy: {ahead} ahead of you." if ahead else f"{now.stage.capitalize()} \u2026"
            if now.total and not ahead:
                words = f"{now.stage.capitalize()} {now.done} of {now.total}"
            box.progress(now.done / now.total if now.total else 0.0, text=words)
        return ticket.result()
    finally:
        ticket.give_up()
        box.empty()


# ---------------------------------------------------------------------------------------------- a trace of a scored run


def show_stored(info: CheckpointInfo | None) -> bool:
    """Show the stored trace that the address names, as it was scored; False where it names none."""
    try:
        wanted = links.read_stored(st.query_params.to_dict())
        row = None if wanted is None else catalogue.row(catalogue.find(wanted.run), wanted.trace_id)
    except (links.LinkError, StoreError) as error:
        st.error(plain(str(error) if isinstance(error, links.LinkError) else f"Not found: {error}"))
    else:
        if wanted is None:
            return False
        if row is not None:
            draw_stored(wanted.run, row, info)
            show_address({"run": wanted.run, "trace": wanted.trace_id})
            return True
        st.error("Not found: the run has no trace of that id.")
    st.button("To a text of your own", on_click=st.query_params.clear)
    return True


def draw_stored(run: str, row: ScoredRow, info: CheckpointInfo | None) -> None:
    """A stored trace, with what can be done with it."""

    def score_again() -> None:
        st.query_params.clear()
        answer = row["reference_answer"] or ""
        st.session_state.update(problem=row["problem"], solution=row["text"], answer=answer, example=None, run_now=True)

    inspection = results.stored_inspection(row, run)
    st.text(row["problem"])
    with st.container(horizontal=True):
        st.button("To a text of your own", on_click=st.query_params.clear)
        st.button("Score it again with the checkpoint of the sidebar", on_click=score_again, disabled=info is None)
        if st.button("Show it in Failures", icon=":material/fact_check:"):
            st.session_state.update({chooser.STATE: [run], "failure": row["trace_id"], "outcome": "all"})
            st.switch_page(FAILURES)
    if row["reference_solution"]:
        with st.expander("The reference solution"):
            st.text(row["reference_solution"])
    if inspection is None:
        st.info("No discriminator has read this trace, so it has no rewards to show.")
        st.text(row["text"])
        return
    choose_view()
    result = results.to_result(inspection, st.session_state["gamma"])
    draw_traces(inspection, result, [0])


# ------------------------------------------------------------------------------------------------------- an inspection


def draw_inspection(inspection: Inspection) -> None:
    """The traces of an inspection: which, in which view, themselves, and the files and the link to keep."""
    if any(known is not None and known.familiar is False for known in inspection.familiarity):
        st.info("For problems such as this one load a real model: see the sidebar, *Use a model of your own*.")
    gamma = st.session_state["gamma"]
    result = results.to_result(inspection, gamma)
    chosen, versus = choose_traces(inspection, result, results.ranking(inspection, gamma))
    choose_view(discounts=len(inspection.scored) > 1 and inspection.score_kind == DISCOUNTED_SCORE)
    draw_traces(inspection, result, [chosen] if versus is None else [chosen, versus])
    try:
        parameters = links.write(session.link_of(inspection, chosen, versus))
    except links.LinkError as error:
        st.query_params.clear()
        st.caption(plain(str(error)))
        return
    st.query_params.from_dict(cast("dict[str, str | list[str]]", parameters))
    show_address(parameters)


def choose_traces(inspection: Inspection, result: InspectionResult, order: list[int]) -> tuple[int, int | None]:
    """The table of sampled traces and the two choices; the chosen traces as indices."""
    if len(order) == 1:
        return 0, None
    st.text(results.majority_words(inspection))

    def take() -> None:
        selected = st.session_state["samples"]["selection"]["rows"]
        if selected:
            st.session_state["chosen"] = order[selected[0]]

    st.dataframe(
        results.ranking_table(inspection, result, order),
        hide_index=True,
        height=ROW_PIXELS * (min(len(order), 6) + 1) + 3,
        column_config={results.score_column(inspection): st.column_config.NumberColumn(format="%.2f")},
        key="samples",
        on_select=take,
        selection_mode="single-row",
    )
    for name in ("chosen", "versus"):
        if st.session_state[name] not in order:
            st.session_state[name] = order[0] if name == "chosen" else None
    labels = {
        index: results.choice_label(result["traces"][index], index, place) for place, index in enumerate(order, start=1)
    }
    left, right = st.columns(2)
    left.selectbox("Trace shown", order, format_func=labels.__getitem__, key="chosen")
    right.selectbox(
        "Beside it", order, format_func=labels.__getitem__, key="versus", index=None, placeholder="No other trace"
    )
    return st.session_state["chosen"], st.session_state["versus"]


def choose_view(*, discounts: bool = False) -> None:
    """The controls of view, strength of the colours, and of the discount where it changes what is shown: in the
    discounted view, and where a score ``discounts`` that traces are ranked by."""
    view, gamma, strength = st.columns([2, 1, 1], gap="medium")
    view.segmented_control("View", VIEWS, key="view", required=True, format_func=str.capitalize)
    if discounts or st.session_state["view"] == "discounted":
        gamma.slider(
            "Gamma", 0.0, 1.0, step=0.01, key="gamma", help="Discount of the discounted view and of the trace score."
        )
    strength.select_slider(
        "Colour strength",
        STRENGTHS,
        key="strength",
        format_func=lambda times: f"\u00d7{times:g}",
        help="\u00d71 is the fixed scale; \u00d72 halves the value that is drawn at full colour. The legend prints it.",
    )


def draw_traces(inspection: Inspection, result: InspectionResult, indices: list[int]) -> None:
    """One trace, or two beside each other; below them the files to keep."""
    state = st.session_state
    settings = payload.settings(state["view"], state["gamma"], state["strength"])
    traces = [result["traces"][index] for index in indices]
    descriptions = [results.description(inspection, result, index) for index in indices]
    columns = st.columns(len(indices), gap="medium") if len(indices) > 1 else [st.container()]
    for column, index, trace, description in zip(columns, indices, traces, descriptions, strict=True):
        with column:
            heatmap(trace, description, settings, key=f"heatmap-{index}")
    page = to_html(
        {**result, "traces": traces}, view=state["view"], gamma=state["gamma"], strength=state["strength"],
        described=descriptions,
    )  # fmt: skip
    files = (
        ("HTML page of what is shown", page, "inspection.html", "text/html"),
        ("CSV of all tokens", to_csv(result), "inspection.csv", "text/csv"),
        ("JSON", json.dumps(result, indent=1, allow_nan=False), "inspection.json", "application/json"),
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
