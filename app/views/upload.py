"""The Upload page: traces of any format that is read become a scored run, in the background."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import streamlit as st

from app import access, sidebar
from app.analysis import catalogue, chooser, uploads
from app.analysis.upload_records import MOST_TITLE, shown_title
from app.analysis.uploads import FORMATS, MOST_BYTES, MOST_TRACES, SAMPLE, SUFFIXES, UploadError
from app.components.markdown import counted, plain
from app.jobs import panel, supervisor, waiting
from app.jobs.store import JobError
from app.jobs.supervisor import Wanted
from irl_core.checkpoints.find import CheckpointInfo
from irl_core.errors import StoreError

STARTED: Final = "uploads_started"  # in the session: of each run that it uploaded its job, title and size in words
FAILURES: Final = Path(__file__).with_name("failures.py")


def show() -> None:
    st.header("Score your own solutions")
    info = sidebar.chosen()
    if not access.may("upload"):
        st.info(plain(access.reason("upload")))
        return
    if info is None:
        st.info("There is no checkpoint to score with yet. The sidebar says how to add one.")
        return
    st.caption(
        "A file with a problem and a solution in each row; with the right answer, or the first wrong step, if you have "
        "them. It may be a table (CSV, TSV, Parquet), JSON (an object a line, or a list of them) or a log of Inspect "
        "AI, under any name. What you give stays on this server; the finished run appears on the other pages."
    )
    st.download_button(
        "An example to start from", SAMPLE, "solutions.jsonl", "application/x-ndjson", on_click="ignore",
        icon=":material/download:",
    )  # fmt: skip
    given = st.file_uploader(
        f"File, at most {MOST_BYTES // 1_000_000} MB and {MOST_TRACES:,} solutions", key="upload_file",
        type=[suffix.removeprefix(".") for suffix in SUFFIXES],
    )  # fmt: skip
    layout = st.selectbox(
        "Format", list(FORMATS), format_func=lambda name: f"{name}: {FORMATS[name]}", key="upload_format"
    )
    columns = st.text_input(
        "Columns with other names", key="upload_columns", max_chars=500, placeholder="question=prompt, solution=reply",
    )  # fmt: skip
    run = "" if given is None else offer(given.getvalue(), given.name, layout, columns, info)
    if "upload_told" in st.session_state:
        st.toast(plain(st.session_state.pop("upload_told")))
    if others := [one for one in reversed(st.session_state.get(STARTED, {})) if one != run]:
        st.subheader("Uploaded before, in this session")
        for one in others:
            follow(one)


def offer(data: bytes, name: str, layout: str, columns: str, info: CheckpointInfo) -> str:
    """Say what the upload holds, and offer to score it, or show how far that is; the run that it makes, '' for none."""
    try:
        checked = uploads.check(data, layout, name, columns)
    except UploadError as error:
        st.error(plain(f"Not taken: {error}"))
        return ""
    can = f"{counted(checked.traces, 'solution')} of {counted(checked.problems, 'problem')} can be scored"
    st.text(f"{can}; {counted(checked.faulty, 'row')} cannot." if checked.faulty else f"{can}.")
    kind = uploads.KIND_WORDS[Path(checked.file).suffix]
    st.caption(plain(f"Given: {checked.name}, {kind}, {len(data) / 1000:,.1f} kB. {' '.join(checked.intake)}"))
    if checked.faults:
        with st.expander(f"Rows that cannot be scored ({checked.faulty:,})"):
            st.text("\n".join(checked.faults))
            if checked.faulty > len(checked.faults):
                st.caption(f"The first {len(checked.faults)} are shown. All of them, by their reasons:")
                st.text("\n".join(checked.losses))
    title = st.text_input("Title of the run", Path(name).stem[:MOST_TITLE], key=f"title_{name}", max_chars=MOST_TITLE)
    run = run_named(title, data)
    if run in st.session_state.get(STARTED, {}):
        follow(run)
    else:
        st.caption(plain(f"Scored by checkpoint {info.name} on {st.session_state.get('device', 'auto')}."))
        st.button("Score", type="primary", on_click=start, args=(data, title, layout, checked, info))
    if "upload_error" in st.session_state:
        st.error(plain(st.session_state.pop("upload_error")))
    return run


def run_named(title: str, data: bytes) -> str:
    """The name of the scored run that an upload becomes under a title."""
    return f"{uploads.FOLDER.name}/{uploads.clean_title(title, data)}"


def start(data: bytes, title: str, layout: str, checked: uploads.Checked, info: CheckpointInfo) -> None:
    """Keep the traces and start the job; where it cannot start nothing is kept. A second click, before the page is
    drawn anew, starts nothing and is no mistake."""
    state, device = st.session_state, st.session_state.get("device", "auto")
    run = run_named(title, data)
    if run in state.get(STARTED, {}):
        return
    try:
        who = access.writer("upload")  # the file may have changed since the button was drawn
        folder = uploads.keep(data, title, who, checked, layout)
    except (UploadError, access.NotAllowedError) as error:
        state["upload_error"] = f"Not taken: {error}"
        return
    command = supervisor.command_line(*uploads.arguments(folder, info.path, device, layout, checked))
    called = shown_title(title) or folder.name
    try:
        job = waiting.start(Wanted("score", f"scoring of {called}", command, folder, device, who))
    except JobError as error:
        uploads.remove(folder)
        state["upload_error"] = f"Not started: {error}."
        return
    words = counted(checked.traces, "solution")
    state[STARTED] = {**state.get(STARTED, {}), run: (job.id, called, words)}
    state["upload_told"] = f"Job {job.id} scores {words}."


def follow(run: str) -> None:
    """What has become of an upload of this session: how far its job is, or the way to the scored run."""
    job_id, title, words = st.session_state[STARTED][run]
    with st.container(border=True):
        try:
            job = supervisor.get(job_id)
        except JobError as error:
            st.error(plain(f"{title}: {error}"))
            return
        if job.active or job.waiting:
            st.markdown(f"**{plain(title)}**: job {job_id} scores {words}.")
            panel.watch(job_id)
        elif job.state != "finished":
            why = job.reason or "see its log in the sidebar"
            if job.state == "cancelled":
                st.info(plain(f"{title}: the scoring was cancelled. {panel.STOPS_SCORING}"))
            else:
                st.error(plain(f"{title}: the scoring was not finished ({job.state}): {why}"))
            panel.resume_button(job, f"go_on_{job_id}")
        else:
            st.markdown(f"**{plain(title)}**: job {job_id} has scored {words}. {plain(judged_words(run))}.")
            if st.button(f"Look at {plain(title)}", key=f"look_{run}", icon=":material/fact_check:"):
                chooser.catalogue.clear()
                st.session_state.update({chooser.STATE: [run], "outcome": "all"})
                st.switch_page(FAILURES)


def judged_words(run: str) -> str:
    """How many traces of a scored run the model cannot judge, in words."""
    try:
        return catalogue.judged(catalogue.find(run).key).words.capitalize()
    except StoreError as error:
        return str(error)


show()
