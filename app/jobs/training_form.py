"""The dialog that starts a training: settings, what they would take, and only then the button that starts it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import streamlit as st

from app import access
from app.components.markdown import plain
from app.jobs import store, supervisor, training_plan
from app.jobs.training_plan import (
    DATA,
    GROUP,
    LOSS,
    METHOD,
    PERTURBATIONS,
    SEED,
    SOURCES,
    STEPS,
    PlanError,
    Wish,
    allowed,
    limits,
    value_of,
)
from irl_core.methods import METHODS

FIRST: Final = "demo-irl"
STARTED: Final = "training_started"  # in the session: the run just started, until the page on curves shows it
PLANNED: Final = "training_plan"  # in the session: the last wish that was checked, with its plan or its refusal
MORE: Final = "KEY=VALUE, a line each, such as\npolicy.learning_rate=1e-4\nrun.eval_every=20"


@st.cache_data(show_spinner=False)
def presets() -> dict[str, dict[str, Any]]:
    """The presets by name, asked for once. Raises PlanError."""
    return training_plan.presets()


@st.dialog("Train", width="medium", on_dismiss="rerun")
def show() -> None:
    """The form; starting a job closes it."""
    try:
        with st.spinner("Listing the presets \u2026"):
            found = presets()
    except PlanError as error:
        st.error(plain(str(error)))
        return
    wish = _wish(found)
    if st.button("Check what it takes", icon=":material/checklist:"):
        st.session_state[PLANNED] = _checked(wish)
    of, planned, refusal = st.session_state.get(PLANNED, (None, None, ""))
    current = of == wish
    force = _planned(wish, planned, refusal, found) if current else False
    ready = current and planned is not None and not training_plan.lacking(planned)
    ready = ready and (force or not training_plan.refusal(planned))
    may = access.may("train")
    label = "Start training" if current else "Start training (check it first)"
    if st.button(label, type="primary", disabled=not (ready and may), icon=":material/play_arrow:"):
        _start(wish, planned, force)
    if not may:
        st.caption(plain(access.reason("train")))


# ------------------------------------------------------------------------------------------------------------ settings


def _wish(found: Mapping[str, Mapping[str, Any]]) -> Wish:
    """The settings, with those of the preset as they stand; what is changed becomes an override."""
    names = list(found)
    left, right = st.columns([2, 1])
    preset = left.selectbox(
        "Preset",
        names,
        index=names.index(FIRST) if FIRST in names else 0,
        format_func=lambda name: _label(found[name]),
        key="train_preset",
    )
    name = right.text_input(
        "Name of the run", training_plan.free_name(preset), key=f"train_name_{preset}", max_chars=training_plan.MAX_NAME
    )
    st.caption(plain(found[preset]["about"]))
    configuration = found[preset]["configuration"]
    chosen = _fields(preset, configuration)
    with st.expander("Any other setting"):
        more = st.text_area("Settings", key=f"train_more_{preset}", placeholder=MORE, label_visibility="collapsed")
    return Wish(preset, training_plan.overrides(configuration, chosen, more), name.strip())


def _label(preset: Mapping[str, Any]) -> str:
    run = preset["configuration"]["run"]
    takes = f"{preset['memory_bytes'] / 1e9:.1f} GB, {training_plan.duration(preset['seconds'])}"
    return f"{preset['name']}  ({run['method']}, {takes})"


def _fields(preset: str, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the form names; each widget belongs to its preset, whose value it begins with."""

    def at(key: str) -> dict[str, Any]:
        return {"key": f"train_{preset}_{key}"}

    def number(place: Any, label: str, key: str, text: str) -> int:
        low, high = limits(key)
        return int(place.number_input(label, low, high, value_of(configuration, key), help=text, **at(key)))

    def choice(place: Any, label: str, key: str, options: tuple[str, ...], text: str, **more: Any) -> str:
        value = value_of(configuration, key)
        listed = list(options) if value in options else [value, *options]
        return str(place.selectbox(label, listed, listed.index(value), help=text, **at(key), **more))

    method, data, loss = st.columns(3)
    steps, seed, group = st.columns(3)
    about = "irl: policy and reward together; grpo: the policy by verified answers; sft: by the likelihood of experts."
    way = choice(method, "Method", METHOD, allowed(METHOD), about)
    chosen: dict[str, Any] = {
        METHOD: way,
        DATA: choice(
            data, "Data", DATA, SOURCES, "demo, gsm8k, or the path of a JSONL file on the server.",
            accept_new_options=True,
        ),
        STEPS: number(steps, "Steps", STEPS, "Rounds of policy and discriminator, or batches of sft."),
        SEED: number(seed, "Seed", SEED, "The same seed gives the same run on a CPU."),
    }  # fmt: skip
    if METHODS[way].samples_policy:
        text = "Solutions that are sampled for every problem."
        chosen[GROUP] = number(group, "Samples a problem (G)", GROUP, text)
    if not METHODS[way].needs_discriminator:
        return chosen
    text = "wasserstein needs a bound, such as discriminator.gradient_penalty=1."
    chosen[LOSS] = choice(loss, "Loss of the discriminator", LOSS, allowed(LOSS), text)
    chosen[PERTURBATIONS] = st.multiselect(
        "Perturbations of expert solutions, as further negatives",
        allowed(PERTURBATIONS),
        value_of(configuration, PERTURBATIONS),
        placeholder="none",
        **at(PERTURBATIONS),
    )
    return chosen


# ----------------------------------------------------------------------------------------------------- plan and start


def _checked(wish: Wish) -> tuple[Wish, dict[str, Any] | None, str]:
    """The wish with its plan, or with why it cannot be."""
    try:
        training_plan.check_name(wish.name)
        with st.spinner("Estimating memory and time \u2026"):
            return wish, training_plan.plan(wish), ""
    except PlanError as error:
        return wish, None, str(error)


def _planned(wish: Wish, planned: dict[str, Any] | None, refusal: str, found: Mapping[str, Mapping[str, Any]]) -> bool:
    """Draw the plan or the refusal; whether a training that does not fit is wanted all the same."""
    if planned is None:
        st.error(plain(refusal))
        return False
    lines = training_plan.sentences(planned)
    if first := training_plan.trained_first(planned):
        seconds = sum(found[name]["seconds"] for name in first if name in found)
        lines.append(f"Trained before it: {', '.join(first)}, about {training_plan.duration(seconds)} more")
    with st.container(border=True):
        st.text("\n".join(lines))
        with st.expander("The same in a shell"):
            st.code(training_plan.shown_command(wish), language=None, wrap_lines=True)
    if why := training_plan.lacking(planned):
        st.error(plain(why))
        return False
    if why := training_plan.refusal(planned):
        st.error(plain(why))
        return st.checkbox("Train all the same: the estimate may be wrong", key="train_force")
    return False


def _start(wish: Wish, planned: dict[str, Any] | None, force: bool) -> None:
    """Start the job and close the dialog; where the device is busy the job that is there is shown."""
    assert planned is not None
    device = training_plan.device_of(planned)
    try:
        if (other := supervisor.active_job(device)) is not None:
            raise supervisor.Busy(other)
        training_plan.check_name(wish.name)
        job = supervisor.start(
            "train", wish.title, wish.command(force=force), Path(supervisor.RUNS) / wish.name, device, access.who(),
            grace=training_plan.grace_of(planned),
        )  # fmt: skip
    except (PlanError, store.JobError) as error:
        st.error(plain(str(error)))
        return
    st.session_state.pop(PLANNED, None)
    st.session_state[STARTED] = wish.name
    st.toast(plain(f"Started: {job.title}"))
    st.rerun()
