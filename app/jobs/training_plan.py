"""What the training form asks for: presets, allowed values, and what a training would take, before it starts.

The app never imports the training: presets and plans come from short runs of ``irl-lens presets --json`` and
``irl-lens train ... --dry-run --json``, allowed values from the types of ``irl_core.config``. No streamlit.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from app.jobs.supervisor import GRACE_SECONDS, REPOSITORY, RUNS, command_line, root
from irl_core.config import TrainConfig
from irl_core.config_values import Range
from irl_core.errors import UserError

SECONDS_FOR_ANSWER: Final = 120.0
MAX_NAME: Final = 64
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
MISSING: Final = "missing"  # the kind of what is not here, and cannot be downloaded
GB: Final = 1e9

METHOD, DATA, STEPS, SEED = "run.method", "data.source", "run.steps", "run.seed"
GROUP, PERTURBATIONS, LOSS = "policy.num_generations", "discriminator.perturbations", "discriminator.loss"
FIELDS: Final = (METHOD, DATA, STEPS, SEED, GROUP, PERTURBATIONS, LOSS)
SOURCES: Final = ("demo", "gsm8k")


class PlanError(UserError, RuntimeError):
    """A training that cannot be, in words for the user, with the setting to change."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A training that is asked for: ``overrides`` are KEY=VALUE, ``name`` that of its folder in ``runs/``."""

    preset: str
    overrides: tuple[str, ...]
    name: str

    @property
    def title(self) -> str:
        return self.name if self.name == self.preset else f"{self.name} ({self.preset})"

    def command(self, *, force: bool = False) -> list[str]:
        """The command that trains it."""
        arguments = ["train", self.preset, *_settings(self), f"--run-dir={RUNS}/{self.name}"]
        return command_line(*arguments, *(["--force"] if force else []))


# ------------------------------------------------------------------------------------------------ what can be asked for


def presets() -> dict[str, dict[str, Any]]:
    """The presets by name, as ``irl-lens presets --json`` has them. Raises PlanError."""
    return {preset["name"]: preset for preset in _answer("presets", "--json")}


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
    """The lowest and highest whole number that a setting may have; None: no highest."""
    found = next((part for part in get_args(hint_of(key)) if isinstance(part, Range)), Range(0))
    return int(found.low), None if found.high == float("inf") else int(found.high)


def value_of(configuration: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key in a nested configuration."""
    found: Any = configuration
    for name in key.split("."):
        found = found[name]
    return found


def overrides(configuration: Mapping[str, Any], chosen: Mapping[str, Any], more: str = "") -> tuple[str, ...]:
    """KEY=VALUE for what differs from the preset, then the lines of ``more`` as they stand."""
    differing = [key for key, value in chosen.items() if value != value_of(configuration, key)]
    lines = (line.strip() for line in more.splitlines())
    return (*(f"{key}={_as_yaml(chosen[key])}" for key in differing), *filter(None, lines))


def _as_yaml(value: Any) -> str:
    """The value on one line, so that YAML reads it back; JSON is YAML."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        as_it_is = yaml.safe_load(value) == value
    except yaml.YAMLError:
        as_it_is = False
    return value if as_it_is else json.dumps(value)


def free_name(preset: str) -> str:
    """A name for a run's folder that is not taken: the preset's, or with the first free number."""
    number, name = 1, preset
    while (root() / name).exists():
        number += 1
        name = f"{preset}-{number}"
    return name


def check_name(name: str) -> None:
    """Raise PlanError where a run cannot have this name."""
    if not NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise PlanError(
            f"The name of a run has 1 to {MAX_NAME} letters, digits, points, dashes and underscores; it begins with a "
            "letter or digit."
        )
    if (root() / name).exists():
        raise PlanError(f"There is a run {name} already; take another name, or resume that one.")


# ------------------------------------------------------------------------------------------------- what it would take


def plan(wish: Wish) -> dict[str, Any]:
    """What ``irl-lens train --dry-run --json`` says of a training. Raises PlanError with its refusal."""
    found: dict[str, Any] = _answer("train", wish.preset, *_settings(wish), "--dry-run", "--json")
    return found


def _settings(wish: Wish) -> list[str]:
    return [f"--set={override}" for override in wish.overrides]


def _answer(*arguments: str) -> Any:
    """The JSON that a short run of ``irl-lens`` prints. Raises PlanError with what it says on failing."""
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    try:
        done = subprocess.run(
            command_line(*arguments), capture_output=True, text=True, timeout=SECONDS_FOR_ANSWER, check=False,
            env={**os.environ, "PYTHONPATH": paths}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise PlanError(f"irl-lens {arguments[0]} gave no answer within {SECONDS_FOR_ANSWER:.0f} s.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in a setting
        raise PlanError(f"irl-lens {arguments[0]} could not be started ({error}).") from error
    if done.returncode:
        raise PlanError(_refusal(done.stderr))
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise PlanError(f"irl-lens {arguments[0]} answered with something other than JSON.") from None


def _refusal(said: str) -> str:
    """The last line that a failed command printed, without its name."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = (lines[-1] if lines else "no reason was given").removeprefix("irl-lens: ")[:1000].rstrip(".")
    is_word = last.partition(" ")[0].isalpha()  # and not the name of a setting
    return f"{last[:1].upper() if is_word else last[:1]}{last[1:]}."


def device_of(found: Mapping[str, Any]) -> str:
    """The device that a planned training would take, as jobs name it."""
    return str(found["memory"]["device_kind"])


def grace_of(found: Mapping[str, Any]) -> float:
    """Seconds that a planned training is given to finish its step, evaluate and save: thrice the estimate."""
    run = found["configuration"]["run"]
    evaluations = max(1, run["steps"] // run["eval_every"]) if run["eval_every"] else 1
    seconds = sum(found["time"]["step_seconds"].values()) + found["time"]["evaluation_seconds"] / evaluations
    return max(GRACE_SECONDS, round(3 * seconds))


# ------------------------------------------------------------------------------------------------------------ in words


def sentences(found: Mapping[str, Any]) -> list[str]:
    """The plan in a few lines: time, memory, what is loaded and downloaded."""
    memory, time = found["memory"], found["time"]
    size = found["download_bytes"]
    download = "Size of the download not known" if size is None else f"To download: {_size(size)}" if size else ""
    slower = memory["device_kind"] == "cpu" and "CPU" not in time["machine"]
    return [
        f"{found['method']}, {found['steps']} steps: about {duration(time['total_seconds'])} on {time['machine']}"
        + ("; this machine has no such GPU, and its CPU is many times slower" if slower else ""),
        f"Memory: about {_size(memory['total_bytes'])} at the peak ({memory['largest_phase']}); {memory['device']} has "
        f"{_size(memory['free_bytes'])} free",
        *(_origin(origin) for origin in (*found["models"], found["data"])),
        *([download] if download else []),
    ]


def _origin(origin: Mapping[str, Any]) -> str:
    note = f" ({origin['note']})" if origin["note"] and origin["kind"] != MISSING else ""
    return f"{origin['role'].capitalize()}: {origin['name']}, {origin['kind']}{note}"


def trained_first(found: Mapping[str, Any]) -> list[str]:
    """The runs that would be trained before this one, because it starts from them; the plan's time leaves them out."""
    names = found["configuration"]["run"]["after"]
    return [name for name in names if not (root() / name / "final" / "manifest.json").is_file()]


def lacking(found: Mapping[str, Any]) -> str:
    """What the planned training needs and cannot have, with the mend; "" where it is all there."""
    names = [origin["name"] for origin in (*found["models"], found["data"]) if origin["kind"] == MISSING]
    if not names:
        return ""
    return (
        f"Not on this machine, and the hub was not reached: {', '.join(dict.fromkeys(names))}. Download it where there "
        "is a connection, or name a local folder (model.policy, model.discriminator, data.source)."
    )


def refusal(found: Mapping[str, Any]) -> str:
    """Why the planned training would not fit, with the setting to change; "" where it does."""
    memory = found["memory"]
    return "" if memory["fits"] else f"It does not fit. {memory['mend']}."


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / GB:.1f} GB" if count >= GB / 10 else f"{count / 1e6:.0f} MB"


def shown_command(wish: Wish) -> str:
    """The same training as a shell command."""
    settings = [part for override in wish.overrides for part in ("--set", override)]
    words = ["irl-lens", "train", wish.preset, *settings, "--run-dir", str(Path(RUNS) / wish.name)]
    return shlex.join(words)
