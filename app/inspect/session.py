"""What the Inspect page remembers in a session, and what it opens with: a link, or the first example."""

from __future__ import annotations

from typing import Any, Final

import streamlit as st

from app.inspect import examples, links
from app.inspect.request import Inspection, Request

DEFAULTS: Final[dict[str, Any]] = {
    "problem": "", "solution": "", "answer": "", "n": 8, "seed": 0, "temperature": 1.0,
    "view": "credit", "gamma": 0.9, "strength": 1.0, "chosen": None, "versus": None,
}  # fmt: skip
KINDS: Final = ("with a mistake", "correct", "none")


def prepare() -> None:
    """Fill the session once, from the link or the first example; afterwards keep it while other pages are shown."""
    state = st.session_state
    if "opened" not in state:
        state["opened"] = True
        state["kind"] = KINDS[0]
        state.update(DEFAULTS)
        _open()
    for name in (*DEFAULTS, "example", "kind", "checkpoint", "device"):
        if name in state:
            state[name] = state[name]


def _open() -> None:
    state = st.session_state
    parameters = st.query_params.to_dict()
    stored = "run" in parameters or "trace" in parameters  # the page reads those itself, whenever they are there
    try:
        link = None if stored else links.read(parameters)
    except links.LinkError as error:
        state["link_error"] = str(error)
        return
    if link is None:
        state["example"] = 0
        take_example()
        state["run_now"] = bool(state["problem"])
        return
    for name in ("problem", "solution", "answer", "n", "seed", "temperature", "view", "gamma", "chosen"):
        state[name] = getattr(link, name)
    state["versus"] = link.versus if link.versus >= 0 else None
    state["linked_checkpoint"] = link.checkpoint
    state["run_now"] = True


def take_example() -> None:
    """Put the chosen example and kind of solution into the form; called when either choice changes."""
    state = st.session_state
    found, _ = examples.load()
    number = state.get("example")
    if number is None or number >= len(found):
        return
    example = found[number]
    kind = state.get("kind") or KINDS[0]
    texts = {KINDS[0]: example.wrong_solution or example.solution, KINDS[1]: example.solution, KINDS[2]: ""}
    state.update(problem=example.problem, answer=example.answer, solution=texts[kind])


def leave_example() -> None:
    """A problem of one's own is not the example any more, and the example's right answer is not its answer."""
    state = st.session_state
    found, _ = examples.load()
    number = state.get("example")
    if number is None or number >= len(found) or state["problem"] == found[number].problem:
        return
    state["example"] = None
    if state["answer"] == found[number].answer:
        state["answer"] = ""


def is_of_the_form(inspection: Inspection) -> bool:
    """Whether an inspection is of the problem and the solution that stand in the form."""
    asked, now = inspection.request, request()
    return (asked.problem, asked.solution) == (now.problem, now.solution)


def request() -> Request:
    """The request that the form describes."""
    state = st.session_state
    return Request(
        problem=state["problem"],
        # a line end behind it would be scored as a token of the solution's
        solution=state["solution"].rstrip("\r\n") if state["solution"].strip() else "",
        answer=state["answer"].strip(),
        n=int(state["n"]),
        seed=int(state["seed"]),
        temperature=float(state["temperature"]),
    )


def link_of(inspection: Inspection, chosen: int, versus: int | None) -> links.Link:
    """The link to what is shown."""
    asked, state = inspection.request, st.session_state
    return links.Link(
        problem=asked.problem,
        solution=asked.solution,
        answer=asked.answer,
        checkpoint=inspection.checkpoint,
        n=asked.n,
        seed=asked.seed,
        temperature=asked.temperature,
        view=state["view"],
        gamma=state["gamma"],
        chosen=chosen,
        versus=-1 if versus is None else versus,
    )
