"""The jobs in the sidebar: the active ones, live, with cancel; then how the last ones ended, with resume."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import streamlit as st

from app import access
from app.components.markdown import plain
from app.jobs import supervisor, training_runs, waiting
from app.jobs.logs import HEAD, job_tail
from app.jobs.store import Job, JobError
from app.jobs.training_runs import Lines, TrainingRun
from irl_core.methods import METHODS
from irl_core.statistics.wording import true_minus
from irl_core.storage.training_run import FINAL
from train.planning.describe import hours

SECONDS_BETWEEN_LOOKS: Final = 2.0
CURVES: Final = {
    "eval/pass@1": "pass@1, held out",
    "rollout/correct": "correct, training problems",
    "policy/loss": "loss of the policy",
}
POINTS: Final = 60
STOPS_TRAINING: Final = "It finishes its step and saves; it can be resumed."
STOPS_SCORING: Final = "The parts that are written stay, and Resume goes on after them; what it is at is begun again."
MOST_ENDED: Final = 6  # of the jobs that have ended, that are shown
STATES: Final = {
    "finished": ":material/check_circle:",
    "failed": ":material/error:",
    "interrupted": ":material/pause_circle:",
    "cancelled": ":material/stop_circle:",
    "running": ":material/progress_activity:",
    "queued": ":material/hourglass_empty:",
}
MEANINGS: Final = {
    "cancelled": "Cancel stopped it; a training has saved first. Resume goes on.",
    "interrupted": "It was stopped from outside, or its process is gone: killed, or the machine restarted. Resume goes "
    "on from what was saved.",
    "failed": "It ended with an error, which is said below; its log has more. Resume tries again from what was saved.",
}


def show(checkpoints: Collection[str] = ()) -> bool:
    """Draw the jobs; returns whether their table can be read, without which none can be started.

    ``checkpoints``: the names of those that can be chosen; the one that a finished training made is named among them.
    """
    try:
        jobs = supervisor.list_jobs()
        if waiting.begin(jobs):
            jobs = supervisor.list_jobs()
    except JobError as error:
        st.error(plain(str(error)))
        return False
    for job in jobs:
        if job.active:
            draw_active(job.id)
    for job_id, place in waiting.places(jobs).items():
        draw_waiting(job_id, place)
    ended = sorted(
        (job for job in jobs if not (job.active or job.waiting)), key=lambda job: job.ended or "", reverse=True
    )
    stays = [job.state == "cancelled" for job in ended[:MOST_ENDED]]  # it waits to be resumed
    in_sight = [job for place, job in enumerate(ended) if place == 0 or (place < MOST_ENDED and stays[place])]
    for job in in_sight:
        draw_ended(job, checkpoints)
    if earlier := [job for job in ended if job not in in_sight]:
        with st.expander(f"Earlier jobs ({len(earlier)})", key="earlier_jobs"):
            for job in earlier[:MOST_ENDED]:
                draw_ended(job, checkpoints)
            if len(earlier) > MOST_ENDED:
                st.caption(f"and {len(earlier) - MOST_ENDED} before these")
    return True


@st.fragment(run_every=SECONDS_BETWEEN_LOOKS)
def draw_active(job_id: int) -> None:
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
            draw_training(training_runs.run_of(job), job)
        else:
            draw_scoring(job_tail(job, 1))
        cancel_button(job, f"cancel_{job.id}")
        if job.asked and job.kind == "train":
            st.caption(f"It finishes its step and saves; it is killed after {hours(job.grace)}.")
        with st.expander("Log"):
            st.code(job_tail(job) or "nothing yet", language=None, height=200)


def cancel_button(job: Job, key: str) -> None:
    """The button that asks a job to stop, and why that was refused."""
    st.button(
        "Stopping \u2026" if job.asked else "Cancel",
        key=key,
        disabled=bool(job.asked) or not may_change(job),
        help=STOPS_TRAINING if job.kind == "train" else STOPS_SCORING,
        icon=":material/stop:",
        on_click=ask_to_stop,  # before the card is drawn anew, which says so at once; the page need not be
        args=(job,),
    )
    if (told := f"job_told_{job.id}") in st.session_state:
        st.error(plain(st.session_state.pop(told)))


@st.fragment(run_every=SECONDS_BETWEEN_LOOKS)
def draw_waiting(job_id: int, place: int) -> None:
    """A job that waits for its device. When it has begun the whole page is drawn anew."""
    try:
        job = supervisor.get(job_id)
    except JobError as error:
        st.error(plain(str(error)))
        return
    if not job.waiting:
        st.rerun()
    with st.container(border=True):
        st.markdown(f"{STATES[job.state]} **{plain(job.title)}** waits for {plain(job.device)}")
        st.caption(f"Number {place} in the queue; it begins by itself when what runs before it has ended.")
        if st.button("Take out of the queue", key=f"cancel_{job.id}", disabled=not may_change(job)):
            change(supervisor.cancel, job)


@st.fragment(run_every=SECONDS_BETWEEN_LOOKS)
def watch(job_id: int) -> None:
    """How far a scoring or an evaluation is, on the page that started it, which can stop it. When it has ended the
    whole page is drawn anew."""
    try:
        job = supervisor.get(job_id)
    except JobError as error:
        st.error(plain(str(error)))
        return
    if job.active:
        draw_scoring(job_tail(job, 1))
    elif job.waiting:
        st.caption("It waits in the queue, and begins by itself: the sidebar shows what runs before it.")
    else:
        st.rerun()
    cancel_button(job, f"watch_cancel_{job.id}")


def resume_button(job: Job, key: str) -> None:
    """The button that goes on with a job that was not finished."""
    if st.button("Resume", key=key, disabled=not may_change(job), icon=":material/resume:"):
        change(supervisor.resume, job)


def draw_training(run: TrainingRun, job: Job) -> None:
    """The progress of a training, and the small curve of what is most worth watching."""
    first = f"{run.name} first: " if run.path != job.run_dir else ""
    seconds = None if first or job.asked else supervisor.seconds_of_process(job)
    st.progress(run.share, text=plain(first + training_runs.progress_words(run, seconds)))
    lines = metrics(run)
    for name, title in CURVES.items():
        values = [line[name] for line in lines if name in line]
        if len(set(values)) > 1:  # a metric that has changed
            every = max(1, len(values) // POINTS)
            st.metric(title, true_minus(f"{values[-1]:.3f}"), chart_data=values[::-every][::-1], chart_type="line")
            break
    if run.warnings:
        st.caption(f":material/warning: {run.warnings} warning{'s' * (run.warnings > 1)}; see Training curves")


def draw_scoring(last: str) -> None:
    """How far a scoring is, by the last line that it printed."""
    counts = re.search(r"(\d[\d,]*) of (\d[\d,]*)", last)
    done, total = (int(part.replace(",", "")) for part in counts.groups()) if counts else (0, 1)
    words = "Loading the models \u2026" if not last or last.startswith(HEAD) else last
    if last.startswith("Loading") and "; then " in last:  # what it scores then is the job's title
        words = f"{last.partition('; then ')[0]} \u2026"
    st.progress(min(1.0, done / max(1, total)), text=plain(words))


def metrics(run: TrainingRun) -> Lines:
    """The metrics of a training run, the same for all sessions, read again when their file has changed."""
    lines: Lines = cached_metrics(*training_runs.version(run.path))
    return lines


@st.cache_data(max_entries=16, show_spinner=False)
def cached_metrics(path: str, written: int, size: int) -> Lines:
    """The metrics in a folder; ``written`` and ``size`` change with their file."""
    return training_runs.metrics(Path(path))


def draw_ended(job: Job, checkpoints: Collection[str]) -> None:
    """How a job ended, what it made, or the button that goes on with it."""
    st.markdown(f"{STATES[job.state]} **{plain(job.title)}** {job.state}", help=MEANINGS.get(job.state))
    if job.reason:
        st.caption(plain(job.reason))
    if job.state == "finished":
        if job.kind == "train":
            method = training_runs.read(job.run_dir).method
            st.caption(plain(where_it_is(f"{job.name}/{FINAL}", method, checkpoints)))
        return
    resume_button(job, f"resume_{job.id}")


def where_it_is(name: str, method: str, checkpoints: Collection[str]) -> str:
    """Where the checkpoint of a finished training is to be found."""
    if name in checkpoints:
        return f"{name} is among the checkpoints."
    if method in METHODS and not METHODS[method].needs_discriminator:
        return f"It made the policy {name}, without a reward to see: other trainings start from it (model.policy)."
    return f"{name} is not among the checkpoints: it was not calibrated."


def may_change(job: Job) -> bool:
    """Whether whoever looks at the page may stop the job, or go on with it: who may start such a one."""
    return access.may(action_of(job))


def action_of(job: Job) -> str:
    """The action that starting, stopping and resuming such a job belongs to."""
    return "train" if job.kind == "train" else "upload"


def ask_to_stop(job: Job) -> None:
    """Ask a job to stop; a refusal is told in its card."""
    try:
        access.writer(action_of(job))
        supervisor.cancel(job.id)
    except (JobError, access.NotAllowedError) as error:
        st.session_state[f"job_told_{job.id}"] = str(error)


def change(action: Callable[[int], Job], job: Job) -> None:
    """Take a job out of the queue or resume it, and draw the page anew; a refusal is told in its place."""
    try:
        access.writer(action_of(job))
        action(job.id)
    except (JobError, access.NotAllowedError) as error:
        st.error(plain(str(error)))
        return
    st.rerun()
