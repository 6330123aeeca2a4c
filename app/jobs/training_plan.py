"""The training form's data: presets, allowed values, and the plan of a training before it starts. No streamlit.

Presets and plans are those of ``train.planning``, allowed values those of the types in ``irl_core.config``.
"""

from __future__ import annotations

import json
import re
import shlex
import threading
import types
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import psutil
import yaml

from app.jobs import machine
from app.jobs.store import JobError
from app.jobs.supervisor import GRACE_SECONDS, command_line, list_jobs, root
from irl_core.config import TrainConfig
from irl_core.errors import UserError
from irl_core.home import runs_folder
from irl_core.presets import load_config
from irl_core.validation import Range
from train.planning.describe import hours
from train.planning.duration import CPUS
from train.planning.fitting import settings_that_fit, value_of
from train.planning.plan import PRESETS, Plan, launched_processes, make_plan, trained_first, unfinished_prerequisites
from train.planning.presets import Preset, all_presets
from train.planning.sources import Origin

SECONDS_FOR_ANSWER: Final = 120.0
MAX_NAME: Final = 64
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
GB: Final = 1e9

METHOD, DATA, STEPS, SEED = "run.method", "data.source", "run.steps", "run.seed"
GROUP, PERTURBATIONS, LOSS = "policy.num_generations", "discriminator.perturbations", "discriminator.loss"
SOURCES: Final = ("demo", "gsm8k")
Setting = str | int | list[str]  # the value of a field of the form


class PlanError(UserError, RuntimeError):
    """A training that cannot be started; the message names the setting to change."""


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A training that is asked for: ``overrides`` are KEY=VALUE, ``name`` that of its folder in ``runs/``."""

    preset: str
    overrides: tuple[str, ...]
    name: str

    @property
    def title(self) -> str:
        """The name that the job is listed under: the run's, as every page has it."""
        return self.name

    def command(self, *, force: bool = False) -> list[str]:
        """The command that trains it; ``force``: although it does not fit."""
        settings = [f"--set={override}" for override in self.overrides]
        arguments = ["train", self.preset, *settings, f"--run-dir={runs_folder() / self.name}"]
        return command_line(*arguments, *(["--force"] if force else []))

    def shell_command(self) -> str:
        """The same training as a line for a shell."""
        settings = [part for override in self.overrides for part in ("--set", override)]
        return shlex.join(["irl-lens", "train", self.preset, *settings, "--run-dir", str(runs_folder() / self.name)])


# ------------------------------------------------------------------------------------------------ what can be asked for


def presets() -> dict[str, Preset]:
    """The presets by name. Raises PlanError where a file of theirs cannot be read."""
    try:
        return {preset.name: preset for preset in all_presets()}
    except UserError as error:
        raise PlanError(sentence(str(error))) from error


def hint_of(key: str) -> Any:
    """The type of a setting, such as ``run.method``, with its limits."""
    kind: Any = TrainConfig
    for name in key.split("."):
        kind = get_type_hints(kind, include_extras=True)[name]
    return kind


def allowed(key: str) -> tuple[str, ...]:
    """The values that a setting (or, of a list, each of its entries) may have; empty where they are not listed."""
    hint = hint_of(key)
    while get_origin(hint) in (Annotated, tuple, Union, types.UnionType):
        hint = get_args(hint)[0]
    return get_args(hint) if get_origin(hint) is Literal else ()


def limits(key: str) -> tuple[int, int | None]:
    """The lowest and the highest whole number that a setting may have; None: no highest."""
    bounds = next((part for part in get_args(hint_of(key)) if isinstance(part, Range)), Range(0))
    return int(bounds.low), None if bounds.high == float("inf") else int(bounds.high)


def overrides(config: TrainConfig, chosen: Mapping[str, Setting], more: str = "") -> tuple[str, ...]:
    """KEY=VALUE for each chosen value that differs from the preset's, then the lines of ``more`` as they stand."""
    differing: list[str] = []
    for key, value in chosen.items():
        preset_value = value_of(config, key)
        if value != (list(preset_value) if isinstance(preset_value, tuple) else preset_value):
            differing.append(f"{key}={as_yaml(value)}")
    lines = (line.strip() for line in more.splitlines())
    return (*differing, *filter(None, lines))


def as_yaml(value: Setting) -> str:
    """The value on one line, so that YAML reads it back; JSON is YAML."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        unquoted = yaml.safe_load(value) == value
    except yaml.YAMLError:
        unquoted = False
    return value if unquoted else json.dumps(value)


def free_name(preset: str) -> str:
    """A name for a run's folder that is not taken: the preset's, or with the first free number."""
    number, name = 1, preset
    waiting = names_waiting()
    while (root() / name).exists() or name in waiting:
        number += 1
        name = f"{preset}-{number}"
    return name


def check_name(name: str) -> None:
    """Raise PlanError where a training run cannot have this name."""
    if not NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise PlanError(
            f"The name of a run has 1 to {MAX_NAME} letters, digits, points, dashes and underscores; it begins with a "
            "letter or digit."
        )
    if (root() / name).exists():
        raise PlanError(f"There is a run {name} already; take another name, or resume that one.")
    if name in names_waiting():
        raise PlanError(f"A run {name} waits in the queue already; take another name.")


def names_waiting() -> set[str]:
    """The names of the runs that wait in the queue; none where the table cannot be read."""
    try:
        return {job.name for job in list_jobs() if job.waiting}
    except JobError:
        return set()


# ------------------------------------------------------------------------------------------------------------ the plan


def plan(request: TrainingRequest) -> Plan:
    """The plan of a training on this machine: memory, time, downloads.

    Raises:
        PlanError: a setting that cannot be, something that is not there, or no answer within SECONDS_FOR_ANSWER.
    """
    for override in request.overrides:
        if "\0" in override:
            raise PlanError(f"A training with the setting {override!r} could not be started: it holds a NUL character.")
    future: Future[Plan] = Future()

    def make() -> None:
        try:
            config = load_config(request.preset, request.overrides, PRESETS)
            future.set_result(make_plan(config, machine.training_device(), launched_processes(), ask_hub=True))
        except Exception as error:  # raised again by the thread that waits
            future.set_exception(error)

    threading.Thread(target=make, daemon=True).start()  # the hub may keep it waiting
    if not wait([future], SECONDS_FOR_ANSWER).done:
        raise PlanError(f"The plan of {request.preset} gave no answer within {SECONDS_FOR_ANSWER:g} s; try again.")
    try:
        return future.result()
    except UserError as error:
        raise PlanError(sentence(str(error))) from error


def sentence(message: str) -> str:
    """An error's message with a capital, unless it begins with the name of a setting, and a full stop."""
    text = " ".join(message.split())[:1000].rstrip(".")
    is_word = text.partition(" ")[0].isalpha()
    return f"{text[:1].upper() if is_word else text[:1]}{text[1:]}."


def grace_of(plan: Plan) -> float:
    """Seconds that a training is given to finish its step, evaluate and save: three times the estimate."""
    run, durations = plan.config.run, plan.durations
    evaluations = max(1, run.steps // run.eval_every) if run.eval_every else 1
    return max(GRACE_SECONDS, round(3 * (durations.step_seconds + durations.evaluations / evaluations)))


def lines_of(plan: Plan) -> list[str]:
    """The plan in a few lines: time, memory, what is loaded and downloaded."""
    run, memory, durations, device = plan.config.run, plan.memory, plan.durations, plan.device
    first = trained_first(plan)
    own = f"{run.method}, {run.steps} steps: about {hours(durations.total)}"
    lines = [f"{own} on {machine_words(plan)}"]
    if first:
        listed = ", ".join(f"{name} {hours(seconds)}" for name, seconds in first.items())
        total = hours(durations.total + sum(first.values()))
        lines = [f"In all about {total} on {machine_words(plan)}", f"Trained before it, each alone: {listed}", own]
    lines += [
        f"Memory: about {size_words(memory.total)} at the peak ({memory.largest_phase}); {device.name} has "
        f"{size_words(device.free)} free",
    ]
    for origin in plan.origins:
        note = f" ({origin.note})" if origin.note and not origin.obstacle else ""
        lines.append(f"{origin.role.capitalize()}: {origin.name}, {origin.kind}{note}")
    if plan.download_bytes is None:
        lines.append("Size of the download not known")
    elif plan.download_bytes:
        lines.append(f"To download: {size_words(plan.download_bytes)}")
    return lines


def machine_words(plan: Plan) -> str:
    """The machine that the times are estimated for, and how it differs from this one."""
    name, cores = plan.durations.machine.name, psutil.cpu_count() or 1
    if plan.durations.machine not in CPUS:
        return f"an {name}, which this machine does not have" if plan.device.kind == "cpu" else name
    return name if name == f"{cores} CPU cores" else f"{name} (this machine has {cores})"


def needs_gpu(plan: Plan) -> str:
    """The refusal of a training that is meant for a GPU, on a machine without one; "" elsewhere."""
    if plan.device.kind != "cpu" or plan.durations.machine in CPUS:
        return ""
    return (
        f"{plan.config.run.preset} is made for a GPU, and this machine has none: its CPU would take many times what an "
        f"{plan.durations.machine.name} takes. Choose a preset that is made for a CPU (gsm8k-..., demo-...), or "
        "train it where there is a GPU."
    )


def time_words(known: Mapping[str, Preset], name: str) -> str:
    """The time that a preset takes, ``in all`` where it starts from others that are not trained yet."""
    first = [known[one].seconds for one in unfinished_prerequisites(known[name].config) if one in known]
    return f"{hours(known[name].seconds + sum(first))}{' in all' if first else ''}"


def missing(plan: Plan) -> str:
    """What the training needs and cannot have, with the fix; "" where everything is there."""
    origins: list[Origin] = [origin for origin in plan.origins if origin.obstacle]
    if not origins:
        return ""
    return (
        f"Not on this machine, and the hub was not reached: {', '.join(dict.fromkeys(one.name for one in origins))}. "
        "Download it where there is a connection, or name a local folder (model.policy, model.discriminator, "
        "data.source)."
    )


def too_large(plan: Plan) -> str:
    """The refusal of a training that does not fit, with the setting to change; "" where it fits."""
    return "" if plan.fits else f"It does not fit. {settings_that_fit(plan)}."


def size_words(count: float) -> str:
    """Bytes as GB, or MB below 0.1 GB."""
    return f"{count / GB:.1f} GB" if count >= GB / 10 else f"{count / 1e6:.0f} MB"
