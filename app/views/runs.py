"""The Runs page: all training runs and scored runs, searched, compared, noted on, evaluated."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import streamlit as st

from app import access, sidebar
from app.analysis import chooser
from app.components import cards
from app.components.chart import inert_table
from app.components.markdown import counted, plain
from app.inspect import scoring_queue
from app.jobs import panel, supervisor, training_runs, waiting
from app.jobs.store import JobError
from app.jobs.supervisor import Wanted
from app.jobs.training_form import STARTED
from app.runs import beside, labels, table
from app.runs.labels import Label, LabelError, Labels
from app.runs.table import Run
from irl_core.methods import METHODS
from irl_core.storage.training_run import FINAL

VIEWS: Final = Path(__file__).resolve().parent
ROW_PIXELS: Final = 35
ROWS_IN_SIGHT: Final = 8
MOST_CHOSEN: Final = 6
NARROW: Final = """
.st-key-runs_cards { display: none; }
@media (max-width: 767px) { .st-key-runs_cards { display: flex; } .st-key-runs_wide { display: none; } }
"""
STOPPED: Final = {
    "cancelled": "*cancelled*: Cancel stopped it; it finished its step and saved.",
    "interrupted": "*interrupted*: it was asked to stop from outside, finished its step and saved.",
    "killed": "*killed*: it ended without a word, or the machine went down; what it saved before is whole.",
    "stopped": "*stopped*: going on was useless; its reason is on Training curves.",
    "failed": "*failed*: it ended with an error, which is on Training curves.",
}
STATES_MEAN: Final = " ".join(STOPPED.values()) + " Resume goes on from what was saved."
BUNDLED_ONES: Final = (
    "*demo (bundled)* is the training of the checkpoint demo. Of that of gsm8k no curves were kept: *Where it comes "
    "from* in the sidebar says how it was made."
)
HIDDEN: Final = ("tags", "note", "preset", "seed", "pass@1", "checkpoint")  # where no run has any
ARCHIVED: Final = "runs_archived_last"  # in the session: the key of the run that was archived last
WIDTHS: Final = {"tags": 110, "note": 200}  # pixels of the columns that hold what people wrote
KINDS: Final = ("all", "training", "scored run")


def show() -> None:
    st.header("Which runs are there?")
    found = all_runs()
    for key, tell in (("runs_told", st.toast), ("runs_said", st.error)):
        if key in st.session_state:
            tell(plain(st.session_state.pop(key)))
    words, kind, archived = st.columns([4, 4, 2], vertical_alignment="bottom")
    said = words.text_input(
        "Search", key="runs_words", placeholder="name, preset, checkpoint, tag or note", max_chars=200
    )
    what = kind.segmented_control("Kind", KINDS, key="runs_kind", default="all", required=True)
    shown = table.search(found, said, str(what), archived=archived.toggle("Archived too", key="runs_archived"))
    st.caption(count_words(found, shown))
    offer_undo(found)
    chosen = choose(shown)
    for state in sorted({run.state for run in chosen if run.state in STOPPED}):
        those = plain(", ".join(run.listed for run in chosen if run.state == state))
        st.caption(f"{those}, {STOPPED[state]}")
    if not chosen and any(run.state == "bundled" for run in shown):
        st.caption(BUNDLED_ONES)
    if len(chosen) == 1:
        one_run(chosen[0])
    elif chosen:
        several(chosen)
    if together := table.seeds_together(shown):
        st.subheader("Seeds together")
        st.caption("Trainings that differ in their seed alone; pass@1 on held-out problems, as measured last.")
        cards.table(together, "seeds_together", title="Seeds together")


def all_runs() -> list[Run]:
    """Every run, with what was noted on it; a file of notes that cannot be read is said."""
    trainings = training_runs.catalogue()
    results = {
        run.name: values[-1]
        for run in trainings
        if (values := [line[table.RESULT] for line in panel.metrics(run) if table.RESULT in line])
    }
    known: dict[str, Label] = {}
    try:
        known = Labels().all()
    except LabelError as error:
        st.error(plain(str(error)))
    return table.runs(trainings, results, chooser.catalogue(), known, chooser.checkpoint_of)


def count_words(found: Sequence[Run], shown: Sequence[Run]) -> str:
    """How many runs are shown, of how many; and what one and several can be chosen for."""
    archived = sum(run.label.archived for run in found)
    away = archived - sum(run.label.archived for run in shown)
    beside = f", and {away:,} archived" if away else ""
    count = f"{len(shown):,} of {counted(len(found) - away, 'run')} shown{beside}"
    return f"{count}. Choose one to note, score or evaluate it, several to compare them." if shown else f"{count}."


def offer_undo(found: Sequence[Run]) -> None:
    """Say that a run was just archived, and offer to take it out again."""
    gone = next((run for run in found if run.key == st.session_state.get(ARCHIVED) and run.label.archived), None)
    if gone is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(plain(f"{gone.listed} is archived: 'Archived too' shows it. Its files stay."))
            st.button(
                "Undo", on_click=write_label, args=(gone, replace(gone.label, archived=False)), icon=":material/undo:"
            )


def choose(shown: Sequence[Run]) -> list[Run]:
    """The table, and the runs that are chosen in it or in the list below it."""
    from irl_core.report import figures

    if not shown:
        st.info("No run is left: clear the search, choose another kind, or show the archived ones too.")
        st.session_state["runs_chosen"] = []
        return []
    by_key = {run.key: run for run in shown}
    state = st.session_state
    kept = [key for key in state.get("runs_chosen", []) if key in by_key]
    if state.get("runs_chosen") != kept:  # what is written to is written over in the browser too, in mid-choice
        state["runs_chosen"] = kept
    # a table of other rows, or after a choice in the list, is another table, which begins with what is chosen ticked
    rows = table.rows(shown)
    ticks = state.setdefault("runs_ticks", 0)
    key = "runs_table_" + hashlib.sha256(repr((ticks, rows)).encode("utf-8", "replace")).hexdigest()[:16]

    def take() -> None:
        chosen = [shown[row].key for row in state[key]["selection"]["rows"]]
        state["runs_chosen"] = chosen[:MOST_CHOSEN]
        if len(chosen) > MOST_CHOSEN:
            state["runs_ticks"] += 1
            state["runs_told"] = f"At most {MOST_CHOSEN} runs can be chosen; the first {MOST_CHOSEN} are."

    columns: dict[str, Any] = {
        "pass@1": st.column_config.NumberColumn(format="%.3f"),
        table.WRITTEN: st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        "state": st.column_config.TextColumn(help=STATES_MEAN),
        table.JUDGED: st.column_config.TextColumn(help=table.JUDGED_MEANS),
    }
    for name, width in WIDTHS.items():  # of themselves they are as wide as their names
        columns[name] = st.column_config.TextColumn(width=width)
    columns |= {name: None for name in HIDDEN if all(row[name] in ("", None) for row in rows)}  # others need the room
    st.html(f"<style>{NARROW}{figures.stylesheet()}</style>")
    with st.container(key="runs_cards"):  # what a narrow screen has in the place of the table
        st.html(figures.table_html(table.cards(shown)))
    wide = st.container(key="runs_wide")
    wide.dataframe(
        inert_table(rows), hide_index=True, key=key, on_select=take, selection_mode="multi-row",
        selection_default={"selection": {"rows": [place for place, run in enumerate(shown) if run.key in kept]}},
        height=ROW_PIXELS * (min(max(len(shown), 1), ROWS_IN_SIGHT) + 1) + 3, placeholder="",
        column_config=columns,
    )  # fmt: skip
    st.multiselect(
        "Chosen", list(by_key), key="runs_chosen", max_selections=MOST_CHOSEN, placeholder="Choose runs",
        format_func=lambda key: by_key[key].listed, label_visibility="collapsed", on_change=tick_anew,
    )  # fmt: skip
    return [by_key[key] for key in state["runs_chosen"]]


def tick_anew() -> None:
    """Have the table drawn with the ticks of what was chosen in the list."""
    st.session_state["runs_ticks"] += 1


# ------------------------------------------------------------------------------------------------------------- one run


def one_run(run: Run) -> None:
    """What can be done with a run: look at it, evaluate it, note something on it."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        look_at([run])
        if run.what == "scored run":
            offer_scoring(run)
        elif run.state == "finished":
            offer_evaluation(run)
        else:
            st.caption(
                "What the app brings along was evaluated before: see the scored runs." if run.state == "bundled"
                else "It can be evaluated when it has finished: the sidebar resumes it."
            )  # fmt: skip
    tags, note, save = st.columns([3, 5, 2], vertical_alignment="bottom")
    may = access.may("annotate")
    tags.text_input("Tags", ", ".join(run.label.tags), key=f"tags_{run.key}", disabled=not may, max_chars=900)
    note.text_input("Note", run.label.note, key=f"note_{run.key}", disabled=not may, max_chars=labels.MOST_NOTE)
    save.button("Save", on_click=put, args=(run, run.label.archived), disabled=not may, width="stretch")
    turned = not run.label.archived
    st.button(
        "Archive" if turned else "Take out of the archive", on_click=put, args=(run, turned), disabled=not may,
        icon=":material/archive:",
    )  # fmt: skip


def put(run: Run, archived: bool) -> None:
    """Write down what is noted on a run in the fields of the page; why it is not, is said."""
    state = st.session_state
    try:
        wanted = Label(labels.tags_of(state[f"tags_{run.key}"]), state[f"note_{run.key}"].strip(), archived)
    except LabelError as error:
        state["runs_said"] = f"Not saved: {error}"
    else:
        write_label(run, wanted)


def write_label(run: Run, wanted: Label) -> None:
    """Write down a run's tags and note, and whether it is archived; why not, is said."""
    state = st.session_state
    state.pop(ARCHIVED, None)
    try:
        Labels().put(run.key, wanted, access.writer("annotate"))
    except (LabelError, access.NotAllowedError) as error:
        state["runs_said"] = f"Not saved: {error}"
    else:
        if wanted.archived == run.label.archived:
            state["runs_told"] = f"Saved: tags and note of {run.listed}."
        elif wanted.archived:
            state[ARCHIVED] = run.key
        else:
            state["runs_told"] = f"{run.listed} is out of the archive."


def offer_scoring(run: Run) -> None:
    """Offer to score the texts of a scored run with the checkpoint of the sidebar, as a job; or say why not."""
    info = sidebar.chosen()
    known = next((one for one in chooser.catalogue() if one.name == run.name), None)
    if info is not None and follow(table.scoring(run, info.name, info.path, "auto")[0]):
        return
    if info is None or known is None or known.reason:
        why = "there is no checkpoint to score it with" if info is None else "it cannot be read"
        st.caption(plain(f"It cannot be scored again: {why}."))
        return
    if chooser.scored_by(known, info.name):
        st.caption(plain(f"Scored by {info.name} already; choose another checkpoint in the sidebar to score it again."))
        return

    def start() -> None:
        device = str(st.session_state.get("device", "auto"))
        folder, arguments = table.scoring(run, info.name, info.path, device)
        try:
            who = access.writer("upload")
            if (folder / "run.parquet").exists():
                raise JobError(f"{folder.name} is there already, among the scored runs")
            command = supervisor.command_line(*arguments)
            title = f"scoring of {run.listed} by {info.name}"
            job = waiting.start(Wanted("score", title, command, folder, device, who))
        except (JobError, access.NotAllowedError) as error:
            st.session_state["runs_said"] = f"Not started: {error}"
        else:
            st.session_state["runs_told"] = f"Job {job.id} scores it; then {folder.name} is among the scored runs."

    may = access.may("upload")
    st.button(
        plain(f"Score it again with {info.name}"), on_click=start, disabled=not may, icon=":material/play_arrow:",
        help="Its texts, read by the sidebar's checkpoint, as a scored run of its own, with labels and right answers.",
    )  # fmt: skip


def offer_evaluation(run: Run) -> None:
    """Offer to evaluate the checkpoint of a finished training, as a job, or show how far that is; or say why not."""
    method = METHODS.get(run.method)
    if method is not None and not method.needs_discriminator:
        st.caption(plain(f"{run.method} trains the policy alone: there is no reward that could be evaluated."))
        return
    if follow(run.path / table.EVALUATION):
        return
    if (run.path / table.EVALUATION / "run.parquet").is_file():
        st.caption(plain(f"It was evaluated: {run.name}/{table.EVALUATION} is among the scored runs."))
    checkpoint = next(
        (one for one in scoring_queue.catalogue() if one.path.resolve() == (run.path / FINAL).resolve()), None
    )
    if checkpoint is None or not checkpoint.verified:
        st.caption("Its checkpoint is not among those that can be evaluated.")
        return
    trained = table.settings(run.path).get("data.source", "demo")
    data = st.text_input("Data", trained, key=f"data_{run.key}", width=160, help="demo, gsm8k, or a file of problems.")
    problems = st.number_input("Problems (2 to 2,000)", 2, 2000, 40, key=f"problems_{run.key}", width=180)
    samples = st.number_input("Samples of each (2 to 64)", 2, 64, 8, key=f"samples_{run.key}", width=190)

    def start() -> None:
        device = str(st.session_state.get("device", "auto"))
        folder, arguments = table.evaluation(
            run, checkpoint.path, data.strip() or "demo", int(problems), int(samples), device
        )
        try:
            who = access.writer("upload")
            command = supervisor.command_line(*arguments)
            job = waiting.start(Wanted("evaluate", f"evaluation of {run.name}", command, folder, device, who))
        except (JobError, access.NotAllowedError) as error:
            st.session_state["runs_said"] = f"Not started: {error}"
        else:
            when = "when it has its turn" if job.waiting else "now"
            st.session_state["runs_told"] = f"Job {job.id} evaluates {run.name} {when}."

    st.button("Evaluate it", on_click=start, disabled=not access.may("upload"), icon=":material/play_arrow:")


def follow(folder: Path) -> bool:
    """Show how far the job is that makes what a folder is for, where one does; whether there is one."""
    try:
        jobs = [job for job in supervisor.list_jobs() if job.run_dir == folder.resolve()]
    except JobError as error:
        st.error(plain(str(error)))
        return False
    at_it = next((job for job in jobs if job.active or job.waiting), None)
    if at_it is not None:
        with st.container(border=True):
            st.markdown(f"**Job {at_it.id}**: {plain(at_it.title)}")
            panel.watch(at_it.id)
    elif jobs and jobs[0].state != "finished":
        why = f": {jobs[0].reason}" if jobs[0].reason else ""
        st.caption(plain(f"Job {jobs[0].id}, {jobs[0].title}, was not finished ({jobs[0].state}{why})."))
    return at_it is not None


# --------------------------------------------------------------------------------------------------------- several runs


def several(chosen: Sequence[Run]) -> None:
    """Runs beside each other: what their settings differ in, and the pages that draw them together."""
    with st.container(horizontal=True):
        look_at(chosen)
    scored, trainings = ([run for run in chosen if run.what == what] for what in ("scored run", "training"))
    if len(scored) > 1:
        beside.show(scored)
    if len(trainings) < 2:
        return
    st.subheader("Settings that differ")
    silent = [run.listed for run in trainings if not table.settings(run.path)]
    if silent:
        st.caption(plain(f"Of {', '.join(silent)} no settings are known here."))
    if differing := table.differences(trainings):
        cards.table(differing, "settings_differ", title="Settings that differ")
    elif len(trainings) - len(silent) > 1:
        st.caption("None: they have the same settings.")


def look_at(chosen: Sequence[Run]) -> None:
    """The buttons that lead to the pages that show runs."""
    trainings = [run.name for run in chosen if run.what == "training"]
    scored = [run.name for run in chosen if run.what == "scored run"]
    if trainings and st.button("Training curves", icon=":material/show_chart:"):
        st.session_state["training_kept"] = st.session_state.get("training_kept", {}) | {"training_runs": trainings}
        st.session_state["training_asked"] = [run.name for run in chosen if run.label.archived]
        for name in ("training_runs", STARTED):  # what is chosen here alone, not the run that was started last too
            st.session_state.pop(name, None)
        st.switch_page(VIEWS / "training.py")
    pages = {"Distributions": "distributions", "Reranking": "reranking"} | (
        {"Failures": "failures"} if len(scored) == 1 else {}
    )
    for title, page in pages.items() if scored else ():
        if st.button(title):
            st.session_state[chooser.STATE] = scored
            for key in ("runs_shown", "run_shown"):
                st.session_state.pop(key, None)
            st.switch_page(VIEWS / f"{page}.py")


show()
