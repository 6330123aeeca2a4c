"""The state of the Inspect page in a session; it opens with a link, or with the first example."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import streamlit as st

from app.components.filling import fill
from app.inspect import examples, links
from app.inspect.request import SAMPLES, Inspection, Request

DEFAULTS: Final[dict[str, str | float | None]] = {
    "problem": "", "solution": "", "answer": "", "way": "", "n": SAMPLES, "seed": 0, "temperature": 1.0,
    "view": "credit", "gamma": 0.9, "strength": 1.0, "chosen": None, "versus": None,
}  # fmt: skip
WANTED: Final = "wanted"
STOPPED: Final = "stopped"  # what to say once of what was stopped, or given up
TWICE: Final = timedelta(seconds=1.5)  # within it a second Enter is a slip
CHOOSER: Final = "example_chooser"  # how many choosers of an example there were before this one
LEFT: Final = "example_left"  # the example that the text in the form was begun from
FIELDS: Final = ("problem", "solution", "answer", "way", "n", "seed", "temperature")  # of the form
KIND: Final = "solution_kind"  # of the example; another page chooses a "kind" of its own
KINDS: Final = ("with a mistake", "correct", "none")


def prepare() -> None:
    """Fill the session once, from the link or the first example.

    Fields keep their values while other pages are shown by ``persist_state`` alone: a field that a run of the page
    writes to is written over in the browser too, and what was typed meanwhile is lost.
    """
    state = st.session_state
    if "opened" not in state:
        state["opened"] = True
        state[KIND] = KINDS[0]
        state.update(DEFAULTS)
        open_link_or_example()


def open_link_or_example() -> None:
    """Fill the form from the link in the address, or from the first example, and have it inspected."""
    state = st.session_state
    parameters = st.query_params.to_dict()
    stored = "run" in parameters or "trace" in parameters  # the page reads those itself, whenever they are there
    try:
        link = None if stored else links.read(parameters)
    except links.LinkError as error:
        state["link_error"] = str(error)
        return
    if link is None:
        state["opens_with_example"] = True
        return
    for name in ("problem", "solution", "answer", "way", "n", "seed", "temperature", "view", "gamma", "chosen"):
        state[name] = getattr(link, name)
    state["versus"] = link.versus if link.versus >= 0 else None
    state["hand_steps"] = (link.solution.rstrip("\r\n"), link.steps)
    state["linked_checkpoint"] = link.checkpoint
    state["run_now"] = True


def settle_example() -> None:
    """Open with the first example of the checkpoint that the sidebar has chosen; where another one with examples of its
    own was chosen since, the text in the form stays, and is no longer called an example."""
    state = st.session_state
    file = examples.file_of(state.get("checkpoint", "")).name
    before, state["examples_of"] = state.get("examples_of", file), file
    if state.pop("opens_with_example", False):
        state[example_key()] = 0
        take_example()
        state["run_now"] = bool(state["problem"])
    elif before != file:
        empty_chooser()


def example_key() -> str:
    """The key of the chooser of an example."""
    return f"example_{st.session_state.setdefault(CHOOSER, 0)}"


def empty_chooser() -> None:
    """Have the next chooser of an example be a new one, with nothing chosen. An old one is not written to: a browser
    that has not heard of it yet, while models run, would choose the example anew, and lose what was typed."""
    st.session_state[CHOOSER] = st.session_state.get(CHOOSER, 0) + 1


def settle_chooser() -> None:
    """Before the chooser is drawn: where another text than the chosen example stands in the form, choose none."""
    if (example := chosen_example()) is not None and not is_example():
        st.session_state[LEFT] = example
        empty_chooser()


def take_example() -> None:
    """Put the chosen example and kind of solution into the form; called when either choice changes."""
    state, example = st.session_state, chosen_example()
    if example is None:
        return
    state.pop(LEFT, None)
    texts = texts_of(example)
    fill(problem=example.problem, answer=example.answer, solution=texts[state.get(KIND) or KINDS[0]])


def texts_of(example: examples.Example) -> dict[str, str]:
    """The solutions that come with an example, by their kind."""
    return {KINDS[0]: example.wrong_solution or example.solution, KINDS[1]: example.solution, KINDS[2]: ""}


def ask() -> None:
    """Have what stands in the form inspected; called when it is sent. Sent twice in a moment it is inspected once."""
    leave_example()
    found: Inspection | None = st.session_state.get("inspection")
    when = found.when if found is not None and is_of_the_form(found) else None
    if when is None or datetime.now(UTC) - when >= TWICE:
        st.session_state[WANTED] = request()


def wanted() -> Request | None:
    """What is to be inspected. It stays until it was `served`: another choice, such as a popover that is opened, begins
    the page anew while models run, and the click would be lost."""
    state = st.session_state
    if state.pop("run_now", False):
        state[WANTED] = request()
    found: Request | None = state.get(WANTED)
    return found


def served() -> None:
    """Note that what was wanted is there, or was refused."""
    st.session_state.pop(WANTED, None)


def stop() -> None:
    """Give up what is wanted; called when it is stopped."""
    served()
    st.session_state[STOPPED] = "Stopped. *Inspect* begins anew."


def told() -> str:
    """What is to be said of something that was stopped or given up, once; empty where nothing was."""
    words: str = st.session_state.pop(STOPPED, "")
    return words


def leave_example() -> None:
    """Take the answer of the example that the text was begun from away, once, where its problem is now another one."""
    state = st.session_state
    example = chosen_example() or state.get(LEFT)
    if example is None or state["problem"] == example.problem:
        return
    state.pop(LEFT, None)
    empty_chooser()
    if state["answer"] == example.answer:
        fill(answer="")


def is_example() -> bool:
    """Whether what stands in the form is the chosen example, with the chosen kind of solution."""
    state, example = st.session_state, chosen_example()
    if example is None or state["problem"] != example.problem:
        return False
    return bool(state["solution"].strip() == texts_of(example)[state.get(KIND) or KINDS[0]].strip())


def chosen_example() -> examples.Example | None:
    """The example that is chosen above the form, if any."""
    known, _ = examples.load(examples.file_of(st.session_state.get("checkpoint", "")))
    number = st.session_state.get(example_key())
    return None if number is None or number >= len(known) else known[number]


def is_of_the_form(inspection: Inspection) -> bool:
    """Whether an inspection is of what stands in the form, by the checkpoint that is chosen; how it would be sampled
    counts where it was."""
    asked, now = inspection.request, request()
    if inspection.listed not in ("", st.session_state.get("checkpoint")):
        return False
    if asked.solution:
        return (asked.problem, asked.solution, asked.answer) == (now.problem, now.solution, now.answer)
    return replace(asked, steps=()) == replace(now, steps=())


def request() -> Request:
    """The request that the form describes."""
    state = st.session_state
    # a line end behind it would be scored as a token of the solution's
    solution = state["solution"].rstrip("\r\n") if state["solution"].strip() else ""
    of_solution, steps = state.get("hand_steps", ("", ()))
    way = "" if solution else state["way"]
    if way:  # it has no other settings
        return Request(state["problem"], answer=state["answer"].strip(), seed=int(state["seed"]), way=way)
    return Request(
        problem=state["problem"],
        solution=solution,
        answer=state["answer"].strip(),
        n=int(state["n"]),
        seed=int(state["seed"]),
        temperature=float(state["temperature"]),
        steps=steps if of_solution == solution else (),
    )


def link_of(inspection: Inspection, chosen: int, versus: int | None) -> links.Link:
    """The link to what is shown."""
    asked, state = inspection.request, st.session_state
    return links.Link(
        problem=asked.problem,
        solution=asked.solution,
        answer=asked.answer,
        checkpoint=inspection.name,
        n=asked.n,
        seed=asked.seed,
        temperature=asked.temperature,
        view=state["view"],
        gamma=state["gamma"],
        chosen=chosen,
        versus=-1 if versus is None else versus,
        steps=asked.steps,
        way=asked.way,
    )
