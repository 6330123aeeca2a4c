"""Why, and what instead: other tokens at the flagged place, a step in other words, samples that go on from there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

import streamlit as st

from app.components import cards
from app.components.filling import fill
from app.components.heatmap import heatmap
from app.components.markdown import plain
from app.inspect import results, serving, session, why
from app.inspect.request import Inspection, Request
from irl_core.checkpoints.find import CheckpointInfo
from irl_core.report.heatmap import payload
from irl_core.reward.wording import step_name

ASKED: Final = "what_if_asked"
FOUND: Final = "what_if"
TRIES: Final = 8
MOST_TRIES: Final = 32
MOST_TYPED: Final = 40  # characters in the place of a token
ROW_PIXELS: Final = 35


@dataclass(frozen=True, slots=True)
class Asked:
    """A change of an inspected solution, or samples that go on from one of its steps, to be served; ``step`` below 0:
    another token is to be compared. ``begun``: it was before, and the page was begun anew meanwhile."""

    of: Inspection
    request: Request
    step: int
    begun: bool = False

    @property
    def words(self) -> str:
        """What is asked for, in words."""
        if self.step < 0:
            return "The comparison with other tokens"
        name = step_name(self.of.scored[0].trace.steps, self.step, of=False)
        return f"The change of {name}" if self.request.solution else f"Trying again from {name} on"


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What came of a change of an inspected solution, or of samples that go on from one of its steps."""

    of: Inspection
    found: Inspection
    step: int


def pick(inspection: Inspection, token: int) -> None:
    """Compare the token of a pasted solution that was chosen with others, when the page is drawn next."""
    st.session_state[ASKED] = Asked(inspection, replace(inspection.request, at=token), -1)


def ask(inspection: Inspection, request: Request, step: int) -> None:
    """Have a change, or samples, served when the page is drawn next."""
    st.session_state[ASKED] = Asked(inspection, request, step)


def serve(info: CheckpointInfo | None) -> None:
    """Serve what was asked for last, if it is of the solution that is shown. It stays until it was served, as the page
    may be left meanwhile: then it is begun anew, which is said."""
    asked: Asked | None = st.session_state.get(ASKED)
    if asked is None or info is None:
        return
    if st.session_state.get("inspection") is not asked.of:
        st.session_state.pop(ASKED)
        st.info(f"{asked.words} was given up: another solution is shown now.")
        return
    st.session_state[ASKED] = replace(asked, begun=True)
    before = f"{asked.words}{', begun anew since the page was left' if asked.begun else ''}: "
    found = serving.answer(asked.request, info, stop, name="change", before=before)
    st.session_state.pop(ASKED, None)
    if found is None:
        return
    if asked.step < 0:
        st.session_state["inspection"] = found
    else:
        st.session_state[FOUND] = WhatIf(asked.of, found, asked.step)


def stop() -> None:
    """Give up what was asked for; called when it is stopped."""
    asked: Asked | None = st.session_state.pop(ASKED, None)
    if asked is not None:
        st.session_state[session.STOPPED] = f"{asked.words} was stopped."


def draw(inspection: Inspection) -> None:
    """The panel of a pasted solution."""
    step = why.step_of(inspection, inspection.at)
    name = step_name(inspection.scored[0].trace.steps, step, of=False)
    st.markdown("**Why, and what instead**")
    if inspection.branches:
        draw_branches(inspection, step, name)
    else:
        st.caption("Nothing is flagged. Choose a token above to see what else may stand there.")
    change_step(inspection, step, name)
    found: WhatIf | None = st.session_state.get(FOUND)
    if found is not None and found.of.request.solution == inspection.request.solution:
        (draw_change if found.found.request.solution else draw_tries)(found)


def draw_branches(inspection: Inspection, step: int, name: str) -> None:
    """The tokens that may stand at the chosen place; one that is chosen is put there."""
    written = inspection.branches[0]
    token = f"\u201c{why.shown(written.text)}\u201d"
    st.caption(
        plain(f"At the token {token} in {name}: the tokens likeliest there, and their reward.")
        + " Choose one to put it there, type one of your own below them, or choose another token above."
    )
    key = "branches_" + hashlib.sha256(repr((inspection.request, inspection.at)).encode()).hexdigest()[:16]

    def take(row: int) -> None:
        if not inspection.branches[row].written:
            ask(inspection, why.with_branch(inspection, row), step)

    number = st.column_config.NumberColumn
    cards.table(
        why.branch_rows(inspection), key, title="Tokens", choose=take,
        height=ROW_PIXELS * (len(inspection.branches) + 1) + 3,
        columns={
            "probability": st.column_config.TextColumn(alignment="right", help="How likely the policy finds it here."),
            "reward": number(format="%+.2f", help="What the reward model says of it: higher is more like an expert."),
            "credit": number("rise and fall", format="%+.2f", help="Its credit: how much the reward changes with it."),
        },
    )  # fmt: skip
    type_token(inspection, step, key)


def type_token(inspection: Inspection, step: int, place: str) -> None:
    """Ask for a token of one's own at the chosen ``place``, whatever the policy finds likely there."""
    key = f"typed_{place}"

    def put() -> None:
        typed = st.session_state[key]
        request = why.with_typed(inspection, typed)
        if typed and request.solution != inspection.request.solution:
            ask(inspection, request, step)

    st.text_input(
        f"A token of your own (at most {MOST_TYPED} characters)", key=key, max_chars=MOST_TYPED, on_change=put,
        placeholder=f"instead of {why.shown(inspection.branches[0].text)}",
        help="It stands in the place of the token, behind the same blank, and what follows stays. It is read in the "
        "tokens of the model, which may be several.",
    )  # fmt: skip


def change_step(inspection: Inspection, step: int, name: str) -> None:
    """Ask for other words of a step, or for samples that go on from it."""
    trace = inspection.scored[0].trace
    written = trace.steps[step].text
    key = "words_" + hashlib.sha256(repr((trace.text, step)).encode("utf-8", "replace")).hexdigest()[:16]

    def change() -> None:
        words = st.session_state[key]
        if words.strip() and words != written:
            ask(inspection, why.with_step(inspection, step, words), step)

    def try_again() -> None:
        state = st.session_state
        ask(
            inspection,
            why.again(inspection, step, state["tries"], int(state["seed"]), float(state["temperature"])),
            step,
        )

    words, number, button = st.columns([5, 2, 4], vertical_alignment="bottom")
    ask_for = words.text_area if "\n" in written else words.text_input
    ask_for(f"{name.capitalize()} in other words", written, key=key, on_change=change)
    number.number_input(f"Tries (1 to {MOST_TRIES})", 1, MOST_TRIES, TRIES, key="tries")
    button.button(
        "Try again from here", icon=":material/replay:", on_click=try_again, width="stretch",
        help=f"The policy writes so many solutions that begin as this one does up to {name}; then it is said how many "
        "came out right.",
    )  # fmt: skip


def draw_change(what: WhatIf) -> None:
    """What a change did: to the verdict, to every step, and the changed solution in colours."""
    st.markdown(plain(why.change_words(what.of, what.found)))
    number = st.column_config.NumberColumn(format="%+.2f")
    rows = why.change_rows(what.of, what.found)
    cards.table(rows, "change_table", title="Steps", columns={"before": number, "now": number})
    state = st.session_state
    result = results.to_result(what.found, state["gamma"])
    settings = payload.settings(state["view"], state["gamma"], state["strength"])
    description = results.description(what.found, result, 0)
    heatmap(result["traces"][0], {**description, "title": "With the change"}, settings, key="heatmap-changed")
    with st.container(horizontal=True):
        st.button("Keep the change", on_click=keep, args=(what.found.request,))
        st.button("Forget it", on_click=forget)


def draw_tries(what: WhatIf) -> None:
    """The samples that go on from a step, the best first; one that is chosen becomes the solution."""
    tries = what.found
    order = results.ranking(tries, st.session_state["gamma"])
    name = step_name(what.of.scored[0].trace.steps, what.step, of=False)
    st.markdown(plain(why.tries_words(tries, name)))

    def take(row: int) -> None:
        keep(replace(tries.request, solution=tries.scored[order[row]].trace.text))

    cards.table(why.tries_rows(tries, order), "tries_table", title="Tries", choose=take)
    st.button("Forget them", on_click=forget)


def keep(request: Request) -> None:
    """Take a changed solution into the form, and inspect it."""
    fill(solution=request.solution)
    st.session_state["run_now"] = True
    forget()


def forget() -> None:
    """Put away what came of a change."""
    st.session_state.pop(FOUND, None)
