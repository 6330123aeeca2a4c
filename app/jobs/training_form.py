"""The dialog that starts a training: settings, then the plan, and only then the button that starts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import access
from app.components.markdown import plain
from app.jobs import store, supervisor, training_plan, waiting
from app.jobs.supervisor import Wanted
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
    Setting,
    TrainingRequest,
    allowed,
    limits,
)
from irl_core.config import TrainConfig
from irl_core.home import runs_folder
from irl_core.methods import METHODS
from train.planning.fitting import value_of
from train.planning.plan import Plan
from train.planning.presets import Preset

FIRST: Final = "demo-irl"
STARTED: Final = "training_started"  # in the session: the run just started, until the page on curves shows it
OPEN: Final = "training_open"  # in the session: whether the form is shown
OPENED: Final = "training_opened"  # in the session: how often it was opened, which its widgets are named by
TYPED: Final = "training_typed"  # in the session: what was typed too early for its field, by the field's key
CHECKED: Final = "training_checked"  # in the session: the request that was checked last, as `Checked`
PRESET_WORDS: Final = (
    "A training whose every setting is chosen; what you change below is changed in it alone. In the descriptions the "
    "policy is the model that writes solutions, and the discriminator the reward model, which tells experts' solutions "
    "from the policy's; adversarial is the training of the two against each other, and what is frozen stays as it is. "
    "*In all*: with what it starts from and is not trained here yet; *Check what it takes* has the time of each."
)
METHOD_WORDS: Final = {
    "irl": "irl: two models against each other. One writes solutions (the policy), one tells them from experts' "
    "solutions: the reward that you see.",
    "grpo": "grpo: only the model that writes solutions (the policy), by whether its answers are right. It leaves no "
    "reward to see.",
    "process": "process: only the reward model, from labels of the steps of solutions; the policy beside it is not "
    "trained.",
    "sft": "sft: only the model that writes solutions (the policy), by imitating experts' solutions; other trainings "
    "start from it.",
}
LOSS_WORDS: Final = {
    "bce": "bce: the reward model says of each token how likely it is an expert's (binary cross-entropy); the usual "
    "way.",
    "wasserstein": "wasserstein: it sets experts' tokens as far above the others as it can. This needs "
    "discriminator.gradient_penalty=1 among the other settings, or nothing limits it.",
    "sequence": "sequence: it says of a whole solution, at its end, how likely it is an expert's.",
    "relativistic": "relativistic: it compares two solutions of one problem and says which is the expert's.",
    "maxent": "maxent: it makes experts' solutions more likely than those that the policy writes (maximum entropy).",
    "outcome": "outcome: it learns whether the answer of a solution is right, not who wrote it.",
}
MISTAKES: Final = {
    "flip_operator": "another operation sign, the result left as it was",
    "offset_number": "a number of a calculation a little off",
    "swap_answer": "another number as the final answer",
    "carry_wrong_value": "a wrong result, and all that follows from it",
    "wrong_operand": "another number of the problem, well calculated",
    "drop_step": "a step left out",
    "unit_or_rate": "a unit converted, or a rate used, wrongly",
    "wrong_operation": "another operation, well calculated",
}
MORE: Final = "KEY=VALUE, a line each, such as\npolicy.learning_rate=1e-4\nrun.eval_every=20"


@dataclass(frozen=True, slots=True)
class Checked:
    """A request with its plan, or with why it cannot be (then ``plan`` is None)."""

    request: TrainingRequest
    plan: Plan | None
    refusal: str = ""


@st.cache_resource(show_spinner=False)
def presets() -> dict[str, Preset]:
    """The presets by name, read once. Raises PlanError."""
    return training_plan.presets()


def open_anew() -> None:
    """Show the form as it is at first. Its widgets are new ones each time: of those that were shown before, the browser
    and the server need not have forgotten the same, and one would show a preset while the other starts another."""
    st.session_state.pop(CHECKED, None)
    st.session_state.update({OPEN: True, OPENED: st.session_state.get(OPENED, 0) + 1})


def keyed(name: str) -> str:
    """The key of a widget of the form as it was opened last."""
    return f"train{st.session_state.get(OPENED, '')}_{name}"


def close() -> None:
    """Do not show the form any more."""
    st.session_state[OPEN] = False


@st.dialog("Train", width="medium", on_dismiss=close)
def show() -> None:
    """The form, for as long as ``OPEN`` is set; starting a job closes it."""
    try:
        known = presets()
    except PlanError as error:
        st.error(plain(str(error)))
        return
    try:
        ahead = supervisor.active_job("auto")
    except store.JobError as error:
        st.error(plain(str(error)))
        return
    if ahead is not None:
        st.info(
            plain(f"{ahead.device} is busy with job {ahead.id}, {ahead.title}: what you start now waits in a queue, ")
            + "and begins by itself when that has ended."
        )
    request = chosen_request(known)
    if st.button("Check what it takes", icon=":material/checklist:"):
        st.session_state[CHECKED] = check(request)
    checked: Checked | None = st.session_state.get(CHECKED)
    current = checked is not None and checked.request == request
    ready = force = False
    if checked is not None and current:
        force = draw_plan(checked)
        fits = checked.plan is not None and (force or not training_plan.too_large(checked.plan))
        ready = fits and checked.plan is not None and not refusal(checked.plan)
    may = access.may("train")
    verb = "Start training" if ahead is None else "Put it in the queue"
    label = verb if current else f"{verb} (check it first)"
    if st.button(label, type="primary", disabled=not (ready and may), icon=":material/play_arrow:", key=keyed("start")):
        assert checked is not None and checked.plan is not None
        start(request, checked.plan, force)
    if not may:
        st.caption(plain(access.reason("train")))


# ------------------------------------------------------------------------------------------------------------ settings


def chosen_request(known: Mapping[str, Preset]) -> TrainingRequest:
    """Draw the settings, which begin as the preset has them; what is changed becomes an override."""
    names = list(known)
    left, right = st.columns([2, 1])

    def label(name: str) -> str:
        preset = known[name]
        takes = f"{preset.memory_bytes / 1e9:.1f} GB, {training_plan.time_words(known, name)}"
        return f"{name}  ({preset.config.run.method}, {takes} on {preset.machine})"

    preset = left.selectbox(
        "Preset", names, index=names.index(FIRST) if FIRST in names else 0, format_func=label, key=keyed("preset"),
        help=PRESET_WORDS,
    )  # fmt: skip
    begins, own = field(preset, "name", training_plan.free_name(preset))
    name = right.text_input("Name of the run", begins, max_chars=training_plan.MAX_NAME, **own)
    st.caption(plain(known[preset].about))
    config = known[preset].config
    settings = chosen_settings(preset, config)
    with st.expander("Any other setting, by its name"):
        begins, own = field(preset, "more", "")
        more = st.text_area("Settings", begins, placeholder=MORE, label_visibility="collapsed", **own)
    return TrainingRequest(preset, training_plan.overrides(config, settings, more), name.strip())


def field(preset: str, name: str, value: object) -> tuple[Any, dict[str, Any]]:
    """What a field of a preset begins with, its key, and what is called when it has changed.

    What is typed while the fields of a preset that was just chosen are still on their way goes into one of the preset
    before: it is given to the same field of the new one. Then Streamlit takes every field of the preset before for
    changed, since the server has forgotten them and the browser has not: only a value that is another is typed.
    """
    state, key = st.session_state, keyed(f"{preset}_{name}")
    begins = state.get(TYPED, {}).get(key, value)
    drawn = state.get(key, begins)

    def carry_over() -> None:
        if (now := state[keyed("preset")]) != preset and state[key] != drawn:
            other = keyed(f"{now}_{name}")
            # the first for a field that is drawn already; the second for one that the browser draws only after a rerun
            state[other] = state.setdefault(TYPED, {})[other] = state[key]

    return begins, {"key": key, "on_change": carry_over}


def chosen_settings(preset: str, config: TrainConfig) -> dict[str, Setting]:
    """Draw the settings that the form names; each widget belongs to its preset, whose value it begins with."""

    def number(place: DeltaGenerator, label: str, key: str, text: str) -> int:
        low, high = limits(key)
        label = f"{label} ({low} {'or more' if high is None else f'to {high:,}'})"  # what is beyond turns red, no more
        begins, own = field(preset, key, value_of(config, key))
        return int(place.number_input(label, low, high, begins, help=text, **own))

    def choice(place: DeltaGenerator, label: str, key: str, options: tuple[str, ...], text: str, **more: Any) -> str:
        value = value_of(config, key)
        begins, own = field(preset, key, value)
        listed = list(dict.fromkeys([*(() if value in options else (value,)), *options, begins]))
        return str(place.selectbox(label, listed, listed.index(begins), help=text, **own, **more))

    method, data, loss = st.columns(3)
    steps, seed, group = st.columns(3)
    chosen: dict[str, Setting] = {
        METHOD: choice(method, "Method", METHOD, allowed(METHOD), "What is trained, and by what."),
        DATA: choice(
            data, "Data", DATA, SOURCES,
            "demo: problems that irl-lens makes up; gsm8k: word problems of primary school; or the path of a file of "
            "solutions (JSONL, see docs/data.md).",
            accept_new_options=True,
        ),
        STEPS: number(steps, "Steps", STEPS, "How many rounds: in each some solutions are read, and learned from."),
        SEED: number(seed, "Seed", SEED, "Where chance starts: the same number gives the same run on a CPU."),
    }  # fmt: skip
    st.caption(METHOD_WORDS.get(str(chosen[METHOD]), ""))
    properties = METHODS[str(chosen[METHOD])]
    if properties.samples_policy:
        text = "How many solutions the policy writes for a problem in each round (G)."
        chosen[GROUP] = number(group, "Solutions a problem", GROUP, text)
    if properties.needs_discriminator:
        chosen[LOSS] = choice(loss, "Loss of the reward", LOSS, allowed(LOSS), "What the reward model learns to do.")
        st.caption(LOSS_WORDS.get(str(chosen[LOSS]), ""))
        begins, own = field(preset, PERTURBATIONS, list(value_of(config, PERTURBATIONS)))
        chosen[PERTURBATIONS] = st.multiselect(
            "Mistakes put into right solutions, for the reward to learn from",
            allowed(PERTURBATIONS),
            begins,
            placeholder="none",
            format_func=lambda name: MISTAKES.get(name, name),
            **own,
        )
    return chosen


# ----------------------------------------------------------------------------------------------------- plan and start


def check(request: TrainingRequest) -> Checked:
    """The request with its plan, or with why it cannot be."""
    try:
        training_plan.check_name(request.name)
        with st.spinner("Estimating memory and time \u2026"):
            return Checked(request, training_plan.plan(request))
    except PlanError as error:
        return Checked(request, None, str(error))


def draw_plan(checked: Checked) -> bool:
    """Draw the plan or the refusal; whether a training that does not fit is wanted all the same."""
    plan = checked.plan
    if plan is None:
        st.error(plain(checked.refusal))
        return False
    lines = training_plan.lines_of(plan)
    with st.container(border=True):
        st.text("\n".join(lines))
        with st.expander("The same in a shell"):
            st.code(checked.request.shell_command(), language=None, wrap_lines=True)
    if why := refusal(plan):
        st.error(plain(why))
    elif why := training_plan.too_large(plan):
        st.error(plain(why))
        return st.checkbox("Train all the same: the estimate may be wrong", key=keyed("force"))
    return False


def refusal(plan: Plan) -> str:
    """Why a training cannot be started on this machine whatever is asked for; "" where it can."""
    return training_plan.needs_gpu(plan) or training_plan.missing(plan)


def start(request: TrainingRequest, plan: Plan, force: bool) -> None:
    """Start the job, or have it wait where the device is busy, and close the dialog."""
    device = plan.device.kind
    try:
        who = access.writer("train")
        other = supervisor.active_job(device)
        if other is not None and other.name == request.name:  # a second click
            raise supervisor.Busy(other)
        training_plan.check_name(request.name)
        command, folder = request.command(force=force), runs_folder() / request.name
        grace = training_plan.grace_of(plan)
        job = waiting.start(Wanted("train", request.title, command, folder, device, who, grace=grace))
    except (PlanError, store.JobError, access.NotAllowedError) as error:
        st.error(plain(str(error)))
        return
    st.session_state.pop(CHECKED, None)
    close()
    if not job.waiting:
        st.session_state[STARTED] = request.name
    st.toast(plain(f"{'In the queue' if job.waiting else 'Started'}: {job.title}"))
    st.rerun()
