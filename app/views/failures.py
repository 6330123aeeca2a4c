"""The Failures page: find wrong traces, see each beside a right one, and say where the first error really is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from app import access
from app.analysis import catalogue, chooser, failures, sections
from app.analysis.catalogue import RunInfo
from app.analysis.failures import Query
from app.components import chart
from app.components.heatmap import heatmap
from app.components.markdown import plain
from app.inspect import links
from app.inspect.results import stored_inspection, to_result
from irl_core.data.annotations import CATEGORIES, MOST_NAME, MOST_NOTE, Annotations, from_jsonl, to_jsonl
from irl_core.errors import AnnotationError, StoreError
from irl_core.report.csv_export import csv_of
from irl_core.report.heatmap import payload
from irl_core.reward.token_scores import DEFAULT_GAMMA
from irl_core.storage.schema import ScoredRow

if TYPE_CHECKING:
    import pyarrow as pa
    from streamlit.delta_generator import DeltaGenerator

    from irl_core.data.annotations import Annotation

KEYED_STEPS: Final = 9
ROWS_IN_SIGHT: Final = 4  # the trace below them is what one came for
TABLE_PIXELS: Final = 35 * (ROWS_IN_SIGHT + 1) + 3
HERE: Final = "\u25b6"
KEPT: Final = ("annotator", "model_first", "outcome", "words", "descending", "sort", "filter_kinds",
               "filter_decisions", "filter_true_steps", "filter_predicted_steps")  # fmt: skip


def show() -> None:
    st.header("Where do solutions really go wrong?")
    for name in KEPT:  # a widget's value is forgotten with its page, unless it is set again
        if name in st.session_state:
            st.session_state[name] = st.session_state[name]
    left, *beside = st.columns([5, 3, 4], vertical_alignment="bottom")
    with left:
        chosen = chooser.choose(multiple=False)
    if not chosen:
        return
    info = chosen[0]
    _reviewer(*beside)
    st.caption(plain(f"{info.name}: {sections.origin_line(info.provenance)}."))
    try:
        table = _index(info.path.as_posix(), info.key, info)
        said = _said()
        _browse(info, table, said)
        _agreement(info, said)
        _files(said)
    except StoreError as error:
        st.error(plain(str(error)))


@st.cache_resource(max_entries=4, show_spinner="Reading the run \u2026")
def _index(path: str, key: tuple[str, int, int], _info: RunInfo) -> pa.Table:
    return catalogue.index(_info)


@st.cache_data(max_entries=64, show_spinner="Looking for the words \u2026")
def _numbers(key: tuple[str, int, int], query: Query, _info: RunInfo, _table: pa.Table) -> list[int]:
    return failures.numbers(_info, _table, query)


def _store() -> Annotations:
    return Annotations(failures.DATABASE)


def _said() -> list[Annotation] | None:
    """Every annotation; None where the file cannot be read: then nothing is written either."""
    try:
        return _store().all()
    except AnnotationError as error:
        st.error(plain(str(error)))
        return None


def _reviewer(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Who annotates, and whether the model's answer is hidden until the person has given theirs."""
    name = access.who()
    known = name != "local"
    if known or not st.session_state.get("annotator", "").strip():
        st.session_state["annotator"] = name
    left.text_input("Annotator", key="annotator", max_chars=MOST_NAME, disabled=known)
    right.toggle(
        "Show the model's answer first",
        key="model_first",
        help="Off: colours, scores, the model's answer and labels stay hidden until you have answered, so that you are "
        "not led. Annotations given with it on are marked as not blind.",
    )


# --------------------------------------------------------------------------------------------------- the table


def _browse(info: RunInfo, table: pa.Table, said: Sequence[Annotation] | None) -> None:
    query = _query(table)
    found = _numbers(info.key, query, info, table)
    if not found:
        st.info(f"None of the {table.num_rows:,} traces passes these filters.")
        return
    place = failures.place_of(table, found, st.session_state.get("failure"))
    st.session_state["failure"] = failures.trace_id(table, found[place])
    _table(info, table, found, place, said or [])
    row = catalogue.numbered_row(info, found[place])
    if row["trace_id"] != failures.trace_id(table, found[place]):
        st.error("The run was written anew meanwhile; load the page again.")
        return
    _walk(found, table, place)
    _trace(info, table, row, query, said, found[place + 1 : place + 2])


def _query(table: pa.Table) -> Query:
    known, hidden = failures.choices(table), not st.session_state["model_first"]
    with st.expander("Filter and sort", icon=":material/filter_alt:"):
        one, two, three = st.columns([2, 2, 1], vertical_alignment="bottom")
        st.session_state.setdefault("outcome", failures.OUTCOMES[0])  # a default beside a kept value is warned of
        one.segmented_control("Outcome", failures.OUTCOMES, key="outcome", required=True)
        words = two.text_input("Words in problem, solution or trace id", key="words", max_chars=200)
        descending = three.toggle("Highest first", key="descending")
        sort = one.selectbox("Sort by", known.sorts, format_func=failures.SORTS.__getitem__, key="sort")
        steps = failures.step_words
        chosen: dict[str, Any] = {}
        for column, name, title, options, words_of in (
            (two, "kinds", "Kind of error", known.kinds, str),
            (three, "decisions", "Decision", known.decisions, lambda value: value.replace("_", " ")),
            (one, "true_steps", "True first error", known.true_steps, steps),
            (two, "predicted_steps", "Step that the model names", known.predicted_steps, steps),
        ):
            if options:
                chosen[name] = tuple(column.multiselect(title, options, format_func=words_of, key=f"filter_{name}"))
        scores = _score_range(known.scores)
        outcome = st.session_state["outcome"]
        query = Query(outcome, sort=sort, descending=descending, words=words, scores=scores, **chosen)
        if hidden and query.telling:
            st.caption("These filters say something of the model's answer or the label: annotations are not blind.")
    return query


def _score_range(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    """The range of scores, None for all of them."""
    if ends is None or ends[0] >= ends[1]:
        return None
    low, high = st.slider("Mean discounted reward", *ends, ends, key=f"scores_{ends[0]:.3g}_{ends[1]:.3g}")
    return None if (low, high) == ends else (low, high)


def _table(info: RunInfo, table: pa.Table, found: Sequence[int], place: int, said: Sequence[Annotation]) -> None:
    first = place - place % ROWS_IN_SIGHT  # so that the trace below is in sight, while the table scrolls on
    shown = found[first : first + failures.PAGE_ROWS]
    rows = failures.shown_rows(info, shown, telling=st.session_state["model_first"])
    mine = {one.trace_id: one.label for one in said if one.annotator == st.session_state["annotator"]}
    rows.insert(1, "mine", [mine.get(one, "") for one in rows["trace_id"]])
    saved = csv_of(rows)
    rows.insert(0, "here", [HERE if number == place - first else "" for number in range(len(rows))])
    # a table of other rows is another table: a row that was selected in the one before is not selected in it
    key = "table_" + hashlib.sha256("\n".join(rows["trace_id"]).encode()).hexdigest()[:16]

    def take() -> None:
        selected = st.session_state[key]["selection"]["rows"]
        if selected:
            st.session_state["failure"] = rows["trace_id"].iloc[selected[0]]

    config = {name: st.column_config.Column(title) for name, title in failures.COLUMN_TITLES.items() if name in rows}
    config |= {
        name: st.column_config.TextColumn(failures.COLUMN_TITLES[name], width="medium") for name in ("problem", "text")
    }
    config["here"] = st.column_config.TextColumn("", width=30)
    config |= {
        "score_mean_discounted": st.column_config.NumberColumn(failures.COLUMN_TITLES[failures.SCORE], format="%.2f")
    }
    st.dataframe(
        rows, hide_index=True, height=TABLE_PIXELS, key=key, on_select=take, selection_mode="single-row",
        column_config=config,
    )  # fmt: skip
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.caption(
        f"{len(found):,} of {table.num_rows:,} traces; rows {first + 1:,} to {first + len(shown):,} are listed; "
        f"{HERE} is {place + 1:,} of {len(found):,}"
    )
    right.download_button(
        "CSV of these rows", saved, "traces.csv", "text/csv", on_click="ignore", icon=":material/download:"
    )


def _walk(found: Sequence[int], table: pa.Table, place: int) -> None:
    """Next and previous, by button and by key; the two ends, and any place of the list."""
    last = len(found) - 1
    st.session_state["place"] = place + 1

    def go(to: int) -> None:
        st.session_state["failure"] = failures.trace_id(table, found[to])

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button("First", on_click=go, args=(0,), disabled=place == 0)
        st.button("Previous", shortcut="K", on_click=go, args=(max(place - 1, 0),), disabled=place == 0)
        st.button("Next", shortcut="J", on_click=go, args=(min(place + 1, last),), disabled=place == last)
        st.button("Last", on_click=go, args=(last,), disabled=place == last)
        st.number_input(
            f"Go to, of {len(found):,}", 1, len(found), key="place", width=140,
            on_change=lambda: go(st.session_state["place"] - 1),
        )  # fmt: skip


# --------------------------------------------------------------------------------------------------- one trace


def _trace(
    info: RunInfo,
    table: pa.Table,
    row: ScoredRow,
    query: Query,
    said: Sequence[Annotation] | None,
    following: Sequence[int],
) -> None:
    """The trace, what stands beside it, and the answer. ``following``: the number of the next row, if there is one."""
    own = failures.own_annotation(row, said or [], st.session_state["annotator"])
    revealed = st.session_state["model_first"] or own is not None
    st.subheader(plain(row["trace_id"]))
    st.text(row["problem"])
    left, right = st.columns(2, gap="large")
    with left:
        _solution(row, info, revealed)
    with right:
        _beside(info, table, row)
    if own is not None:
        by_step = f"You said: {own.label}" + (f" ({own.category})" if own.category else "")
        st.success(plain(f"{by_step}. {failures.model_words(row)} {failures.label_words(row)}"))
    if said is not None:
        blind = not (st.session_state["model_first"] or own is not None or query.telling)
        if query.telling and not revealed:
            st.warning("Not blind: the filters or the order above say something of the model's answer or the label.")
        _answer(info, row, blind, failures.trace_id(table, following[0]) if own is not None and following else None)


def _solution(row: ScoredRow, info: RunInfo, revealed: bool) -> None:
    answer = "no final answer" if row["answer"] is None else f"answer {row['answer']}"
    right = "" if row["reference_answer"] is None else f"; the right one is {row['reference_answer']}"
    st.caption(plain(f"This solution: {answer}{right}"))
    inspection = stored_inspection(row, info.name) if revealed else None
    if inspection is None:
        for number, step in enumerate(row["steps"], start=1):
            head = "Answer:" if step.get("role") == "answer" else f"{number}."
            st.text(f"{head}  {step['text']}")
        return
    trace = to_result(inspection, DEFAULT_GAMMA)["traces"][0]
    described = payload.describe(trace, title="", caption=failures.model_words(row), file="trace")
    heatmap(trace, described, payload.settings("credit", DEFAULT_GAMMA, 1.0), key="heatmap-failure")
    st.button("Open in Inspect", icon=":material/open_in_new:", on_click=_to_inspect, args=(info.name, row["trace_id"]))
    if st.session_state.pop("to_inspect", False):
        chart.open_trace(info.name, row["trace_id"])


def _to_inspect(run: str, trace_id: str) -> None:
    try:
        links.to_trace(run, trace_id)
    except links.LinkError as error:
        st.session_state["link_error"] = str(error)
    else:
        st.session_state["to_inspect"] = True


def _beside(info: RunInfo, table: pa.Table, row: ScoredRow) -> None:
    reference, best = st.tabs(["Reference solution", "Best correct sample"])
    with reference:
        st.text(row["reference_solution"] or "The run holds no reference solution of this problem.")
    with best:
        found = failures.best_correct(info, table, row["problem_id"], row["trace_id"])
        if found is None:
            st.text("No other sample of this problem is correct.")
        else:
            score = found[failures.SCORE]
            words = "without a score" if score is None or score != score else f"mean discounted reward {score:.2f}"
            st.caption(plain(f"{found['trace_id']}, {words}"))
            st.text(found["text"])


# -------------------------------------------------------------------------------------------------- annotating


def _answer(info: RunInfo, row: ScoredRow, blind: bool, following: str | None) -> None:
    """The choice of the first wrong step by button or key, a category and a note, and what saves them. Once it is
    answered, Enter goes to the ``following`` trace, until another choice is made."""
    if not access.may("annotate"):
        st.info(plain(access.reason("annotate")))
        return
    st.markdown(
        "**Which step is the first wrong one?** Keys: 1 to 9 a step, 0 none, U unsure; Enter saves, and then goes on."
    )
    state, identity = st.session_state, row["trace_id"]
    if state.get("answering") != identity:  # another trace: nothing is chosen yet
        state.update(answering=identity, choice=None, category="", note="")
    with st.container(horizontal=True):
        for step in range(len(row["steps"])):
            key = str(step + 1) if step < KEYED_STEPS else None
            last = row["steps"][step].get("role") == "answer"
            _choice(str(step), "Answer line" if last else f"Step {step + 1}", key)
        _choice("none", "No step is wrong", "0")
        _choice("unsure", "Unsure", "U")
    with st.form("said", border=False):  # Enter in the note sends it
        left, right, save = st.columns([1, 2, 1], vertical_alignment="bottom")
        left.selectbox("Category", CATEGORIES, key="category", format_func=lambda name: name or "not said")
        right.text_input("Note", key="note", max_chars=MOST_NOTE)
        if state["choice"] is None and following is not None:
            save.form_submit_button(
                "Next trace", type="primary", shortcut="Enter", width="stretch", on_click=_look_at, args=(following,)
            )
        else:
            save.form_submit_button(
                "Save", type="primary", shortcut="Enter", disabled=state["choice"] is None, width="stretch",
                on_click=_save, args=(info, row, blind),
            )  # fmt: skip
    if "annotation_error" in state:
        st.error(plain(state.pop("annotation_error")))
    if "annotation_saved" in state:
        st.toast(plain(state.pop("annotation_saved")))


def _look_at(trace_id: str) -> None:
    st.session_state["failure"] = trace_id


def _choice(value: str, label: str, key: str | None) -> None:
    def take() -> None:
        st.session_state["choice"] = value

    kind: Any = "primary" if st.session_state["choice"] == value else "secondary"
    st.button(label, key=f"choice_{value}", type=kind, shortcut=key, on_click=take)


def _save(info: RunInfo, row: ScoredRow, blind: bool) -> None:
    """Write the annotation of the very row that was shown. The model's answer is shown from then on."""
    state = st.session_state
    try:
        one = failures.annotation(
            row, info.name, state["annotator"].strip(), state["choice"], category=state["category"],
            note=state["note"].strip(), blind=blind,
        )  # fmt: skip
        _store().add(one)
    except AnnotationError as error:
        state["annotation_error"] = f"Not saved: {error}"
        return
    state["annotation_saved"] = f"Saved: {one.label} in {one.trace_id}"
    state["answering"] = None


def _agreement(info: RunInfo, said: Sequence[Annotation] | None) -> None:
    if not said:
        return
    import pandas as pd

    with st.expander("Agreement between annotators, and with the model", icon=":material/handshake:"):
        rows = failures.agreement_rows(info, said)
        if not rows:
            st.caption("No trace was judged twice, and none of this run blindly.")
            return
        chart.show_table(pd.DataFrame(rows), "agreement")
        st.caption(
            "Cohen's kappa: 1 is full agreement, 0 what chance gives. Brackets: 95 % intervals by a bootstrap over "
            "problems. Only blind annotations are compared with the model; of an annotator the newest word counts."
        )


def _files(said: Sequence[Annotation] | None) -> None:
    if said is None:
        return
    with st.expander("Export and import annotations", icon=":material/swap_vert:"):
        st.download_button(
            f"JSONL of all {len(said):,} annotations", to_jsonl(said), "annotations.jsonl", "application/x-ndjson",
            on_click="ignore", icon=":material/download:",
        )  # fmt: skip
        if not access.may("annotate"):
            st.caption(plain(access.reason("annotate")))
            return
        given = st.file_uploader("Import JSONL; what is there already is passed over", type=["jsonl"], key="import")
        if given is not None and st.button("Import"):
            _import(given.getvalue())


def _import(data: bytes) -> None:
    try:
        rows = from_jsonl(data.decode("utf-8"))
        new = _store().add_all(rows)
    except UnicodeDecodeError:
        st.error("Nothing was imported: the file is not UTF-8 text.")
    except AnnotationError as error:
        st.error(plain(f"Nothing was imported: {error}"))
    else:
        st.success(f"{new:,} of {len(rows):,} annotations were new.")


show()
