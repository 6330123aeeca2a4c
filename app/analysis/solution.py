"""One solution on the Failures page: what was said of it, its steps, and what it is compared with."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Final

import streamlit as st

from app.analysis import annotating, failures, judgements
from app.analysis.catalogue import ITEM, RunInfo
from app.analysis.differences import differences
from app.analysis.failures import Listing
from app.components import chart
from app.components.heatmap import heatmap
from app.components.markdown import marked_differences, marked_quantities, plain
from app.components.marking import marking
from app.inspect.results import caption, stored_inspection, to_result
from irl_core.report.heatmap import payload
from irl_core.reward.token_scores import DEFAULT_GAMMA
from irl_core.reward.wording import signed
from irl_core.storage.schema import ScoredRow
from irl_core.text.quantities import odd_quantities
from irl_core.text.step_numbers import shows_number, step_numbers

if TYPE_CHECKING:
    from irl_core.data.annotations import Annotation

REFERENCE: Final = "Reference"
BEST: Final = "Best correct sample"


def draw_trace(
    listing: Listing, row: ScoredRow, own: Annotation | None, beside: Annotation | None, *, revealed: bool
) -> None:
    """The problem, what was said of the trace, and the trace.

    Args:
        listing: which holds it where one looks.
        row: of the trace.
        own: the annotator's answer that counts; None without one.
        beside: what the annotator noted beside it later.
        revealed: whether the model's answer may be seen.
    """
    info, number = listing.info, listing.numbers[listing.place]
    answer = "no final answer" if row["answer"] is None else f"answer {row['answer']}"
    correct = "" if row["reference_answer"] is None else f"; the right one is {row['reference_answer']}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        name = failures.name_of(row["trace_id"], number, telling=revealed)
        of_file = " of the file" if name == failures.row_name(number) else ""
        st.subheader(plain(f"{name}{of_file}"), width="content")
        place = f"{listing.place + 1:,} of {len(listing.numbers):,} listed"
        st.caption(plain(f"{place}; {answer}{correct}"), width="content")
    odd = odd_quantities(row["problem"], row["text"]) if revealed else []
    if any(not one.uses for one in odd):
        st.markdown(marked_quantities(row["problem"], odd))
    else:
        st.text(row["problem"])
    if own is not None:
        with st.container(border=True, key="said"):  # a line for each who speaks: nobody's words pass for another's
            lines = judgements.spoken(row, own, beside)
            st.markdown("  \n".join(f"**{who}**{plain(words)}" for who, words in lines))
    draw_solution(row, info, revealed)


def draw_solution(row: ScoredRow, info: RunInfo, revealed: bool) -> None:
    """The solution: in the colours of its rewards where they may be seen, else as plain steps."""
    inspection = stored_inspection(row, info.listed) if revealed else None
    steps = failures.steps_of(row)
    if inspection is None and st.session_state.get("more_asked") and not revealed:
        names = [
            "" if shows_number(steps, step) else failures.step_heading(row, step) for step in range(len(row["steps"]))
        ]
        marking(row, names, annotating.marked_in(row), partial(annotating.mark, row), key="marking")
        return
    if inspection is None:
        for place, (number, step) in enumerate(zip(step_numbers(steps), steps, strict=True)):
            head = "Answer:  " if step.role == "answer" else "" if shows_number(steps, place) else f"{number}.  "
            st.text(f"{head}{step.text}")
        return
    trace = to_result(inspection, DEFAULT_GAMMA)["traces"][0]
    description = payload.describe(trace, caption=caption(inspection.scored[0], inspection))
    heatmap(trace, description, payload.settings("credit", DEFAULT_GAMMA, 1.0, compact=True), key="heatmap-failure")
    if st.button("Open in Inspect", icon=":material/open_in_new:"):
        chart.open_trace(info.name, row["trace_id"])


def draw_comparison(listing: Listing, row: ScoredRow, judged: Collection[str], *, revealed: bool) -> None:
    """What a solution is compared with: the reference, and the best correct sample, which has an id where the list has
    one, and a score where the model's answer is ``revealed``; ``judged``: the items that the annotator has judged. The
    first of the two that there is, is open."""
    sample = failures.best_correct(listing.info, listing.table, row["problem_id"], row["trace_id"])
    opens = BEST if sample is not None and not row["reference_solution"] else REFERENCE
    reference, best = st.tabs([REFERENCE, BEST], default=opens, key=f"compared_{opens}")
    with reference:
        if row["reference_solution"]:
            draw_other(row["text"], row["reference_solution"])
        else:
            st.text("The run holds no reference solution of this problem.")
    with best:
        if sample is None:
            st.text("No other sample of this problem is correct.")
        else:
            item = listing.table.column(ITEM)[sample.number].as_py()
            telling = st.session_state["model_first"] or item in judged
            name = failures.name_of(sample.trace_id, sample.number, telling=telling)
            score = "without a score" if sample.score is None else f"mean discounted reward {signed(sample.score)}"
            st.caption(plain(f"{name}, {score}" if revealed else name))
            draw_other(row["text"], sample.text)


def draw_other(here: str, other: str) -> None:
    """Another solution, with the words marked that only one of the two has."""
    parts = differences(here, other) if st.session_state["differences"] else None
    if parts is None:
        st.text(other)
        return
    st.markdown(marked_differences(parts))
    st.caption("Struck: this solution alone. Marked: the other one alone.")
