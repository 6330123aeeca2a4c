"""The jobs in the sidebar: the active ones, live, with cancel; then how the last ones ended, with resume."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import streamlit as st

from app import access
from app.components.markdown import plain
from app.jobs import supervisor, training_runs
from app.jobs.logs import HEAD, job_tail
from app.jobs.store import Job, JobError
from app.jobs.training_runs import TrainingRun
from irl_core.methods import METHODS
from irl_core.storage.training_run import FINAL

SECONDS_BETWEEN_LOOKS: Final = 2.0
CURVES: Final = {
    "eval/pass@1": "pass@1, held out",
    "rollout/correct": "correct, training problems",
    "policy/loss": "loss of the policy",
}
POINTS: Final = 60
SHOWN: Final = 6  # of the jobs that have ended
STATES: Final = {
    "finished": ":material/check_circle:",
    "failed": ":material/error:",
    "interrupted": ":material/pause_circle:",
    "cancelled": ":material/stop_circle:",
    "running": ":material/progress_activity:",
}


def show(checkpoints: Collection[str] = ()) -> bool:
    """Draw the jobs; whether the table of jobs can be read, without which none can be started.

    ``checkpoints``: the names of those that can be chosen, of which a finished training's is named.
    """
    try:
        found = supervisor.list_jobs()
    except JobError as error:
        st.error(plain(str(error)))
        return False
    for job in found:
        if job.active:
            _live(job.id)
    _ended([job for job in found if not job.active], checkpoints)
    return True


@st.fragment(run_every=SECONDS_BETWEEN_LOOKS)
def _live(job_id: int) -> None:
    """An active job. When it has ended the whole page is drawn anew: its checkpoint may be there to choose."""
    try:
        job = supervisor.get(job_id)
    except JobError as error:
        st.error(plain(str(error)))
        return
    if not job.active:
        st.rerun()
    with st.container(border=True):
        st.markdown(f"**{plain(job.title)}** on {plain(job.device)}")
        if job.kind == "train":
            _training(training_runs.run_of(job), job)
        else:
            _scoring(job_tail(job, 1))
        if st.button(
            "Stopping \u2026" if job.asked else "Cancel",
            key=f"cancel_{job.id}",
            disabled=bool(job.asked) or not _may(job),
            help="A training finishes its step and saves; it can be resumed.",
            icon=":material/stop:",
        ):
            _do(supervisor.cancel, job)
        if job.asked:
            st.caption(f"It finishes its step and saves; it is killed after {training_runs.left(job.grace)[:-5]}.")
        with st.expander("Log"):
            st.code(job_tail(job) or "nothing yet", language=None, height=200)


def _training(run: TrainingRun, job: Job) -> None:
    """Progress, and the small curve of what is most worth watching."""
    words = training_runs.progress_words(run)
    first = f"{run.name} first: " if run.path != job.run_dir else ""
    st.progress(run.share, text=plain(first + words))
    lines = metrics(run)
    name, values = _curve(lines)
    if len(values) > 1:
        every = max(1, len(values) // POINTS)
        st.metric(CURVES[name], f"{values[-1]:.3f}", chart_data=values[::-every][::-1], chart_type="line")
    if run.warnings:
        st.caption(f":material/warning: {run.warnings} warning{'s' * (run.warnings > 1)}; see Training curves")


def _scoring(last: str) -> None:
    """How far a scoring is, by the last line that it printed."""
    counts = re.search(r"(\d[\d,]*) of (\d[\d,]*)", last)
    done, total = (int(part.replace(",", "")) for part in counts.groups()) if counts else (0, 1)
    words = "Loading the models \u2026" if not last or last.startswith(HEAD) else last
    st.progress(min(1.0, done / max(1, total)), text=plain(words))


def metrics(run: TrainingRun) -> training_runs.Lines:
    """A run's metrics, the same for all sessions, read anew when its file has changed."""
    found: training_runs.Lines = _read(*training_runs.version(run.path))
    return found


@st.cache_data(max_entries=16, show_spinner=False)
def _read(path: str, written: int, size: int) -> training_runs.Lines:
    return training_runs.metrics(Path(path))


def _curve(lines: training_runs.Lines) -> tuple[str, list[float]]:
    """The first metric of ``CURVES`` that is not the same all the time, with its values; none is empty."""
    known = {name: [line[name] for line in lines if name in line] for name in CURVES}
    return next(((name, values) for name, values in known.items() if len(set(values)) > 1), ("", []))


def _ended(found: list[Job], checkpoints: Collection[str]) -> None:
    """The last job that ended, and the earlier ones folded away."""
    if not found:
        return
    _one_ended(found[0], checkpoints)
    if found[1:]:
        with st.expander(f"Earlier jobs ({len(found) - 1})"):
            for job in found[1:SHOWN]:
                _one_ended(job, checkpoints)
            if len(found) > SHOWN:
                st.caption(f"and {len(found) - SHOWN} before these")


def _one_ended(job: Job, checkpoints: Collection[str]) -> None:
    st.markdown(f"{STATES[job.state]} **{plain(job.title)}** {job.state}")
    if job.reason:
        st.caption(plain(job.reason))
    if job.state == "finished":
        if job.kind == "train":
            st.caption(plain(_made(f"{job.name}/{FINAL}", training_runs.read(job.run_dir).method, checkpoints)))
        return
    if st.button("Resume", key=f"resume_{job.id}", disabled=not _may(job), icon=":material/resume:"):
        _do(supervisor.resume, job)


def _made(name: str, method: str, checkpoints: Collection[str]) -> str:
    """Where the checkpoint of a finished training is to be found."""
    if name in checkpoints:
        return f"{name} is among the checkpoints."
    if method in METHODS and not METHODS[method].needs_discriminator:
        return f"It made the policy {name}, without a reward to see: other trainings start from it (model.policy)."
    return f"{name} is not among the checkpoints: it was not calibrated."


def _may(job: Job) -> bool:
    """Whether whoever looks at the page may stop the job, or go on with it: who may start such a one."""
    return access.may("train" if job.kind == "train" else "upload")


def _do(action: Callable[[int], Job], job: Job) -> None:
    """Cancel or resume, and draw the page anew; what is refused is told in its place."""
    try:
        action(job.id)
    except JobError as error:
        st.error(plain(str(error)))
        return
    st.rerun()
