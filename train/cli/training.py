"""The plan of a training, and the training with its progress bar, as ``irl-lens train`` shows them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from irl_core.config import TrainConfig
from irl_core.errors import ConfigError, UnknownShape
from irl_core.presets import load_config
from irl_core.storage.training_run import is_finished
from train.cli.say import say
from train.interruption import Interrupted, Stopped
from train.planning.describe import hours, lines, to_json
from train.planning.fitting import refuse
from train.planning.plan import (
    PRESETS,
    RUNS,
    earlier_training,
    launched_processes,
    make_plan,
    this_device,
    trained_first,
)

if TYPE_CHECKING:
    from irl_core.distributed import World

SHOWN = ("disc/loss", "policy/loss", "rollout/correct")  # beside the progress bar


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the command line asks for. ``memory_gb``: the memory of the device that is planned for, in place of this
    machine's."""

    preset: str
    overrides: Sequence[str] = ()
    run_dir: Path | None = None
    resume: bool = False
    dry_run: bool = False
    as_json: bool = False
    memory_gb: float | None = None
    force: bool = False


def train_preset(request: TrainRequest) -> None:
    """Train, or print the plan. Raises ConfigError where it cannot be done, and typer.Exit where the training ended
    otherwise than by finishing."""
    config = load_config(request.preset, request.overrides, PRESETS)
    if request.dry_run:
        print_plan(config, request)
        return
    if request.as_json:
        raise ConfigError("--json prints the plan of a training; give --dry-run too")
    if not (request.force or request.resume):  # what is resumed has fitted before
        check_memory(config, request.memory_gb)
    from train.distributed import end_world, start_world

    world, _ = start_world(config)
    train_prerequisites(config, world)
    train_with_progress(config, request.run_dir or RUNS / config.run.preset, request.resume, world)
    end_world()


# --------------------------------------------------------------------------------------------- before the training


def print_plan(config: TrainConfig, request: TrainRequest) -> None:
    """Print the plan as text or JSON, with the time of the presets that are trained first; of several processes the
    first one prints."""
    device, processes = this_device(request.memory_gb), launched_processes()
    plan = make_plan(config, device, processes, ask_hub=True)
    if os.environ.get("RANK", "0") != "0":
        return
    if request.as_json:
        typer.echo(json.dumps(to_json(plan), allow_nan=False))
        return
    for line in lines(plan):
        say(line)
    if seconds := trained_first(plan):
        listed = ", ".join(f"{name} {hours(one)}" for name, one in seconds.items())
        say(f"Trained first: {listed}; in all {hours(plan.durations.total + sum(seconds.values()))}")


def check_memory(config: TrainConfig, memory_gb: float | None = None) -> None:
    """Refuse what would not fit, also of the presets that are trained first. Raises ConfigError."""
    for name in config.run.after:
        if not is_finished(RUNS / name):
            check_memory(earlier_training(config, name), memory_gb)
    try:
        refuse(make_plan(config, this_device(memory_gb), launched_processes()))
    except UnknownShape as error:
        say(f"Memory was not estimated: {error}.", err=True)


def train_prerequisites(config: TrainConfig, world: World) -> None:
    """Train the presets that this one starts from, where they are not trained yet."""
    from train.distributed import check_division

    for name in config.run.after:
        begun = (RUNS / name / "config.yaml").is_file()
        trained, begun = world.gather([(is_finished(RUNS / name), begun)])[0]  # as the first process sees it
        if not trained:
            earlier = earlier_training(config, name)
            check_division(earlier, world.size)
            if world.is_main:
                say(f"{config.run.preset} starts from {name}, which is trained first.", err=True)
            train_prerequisites(earlier, world)
            train_with_progress(earlier, RUNS / name, begun, world)


# ------------------------------------------------------------------------------------------------------ the training


def train_with_progress(config: TrainConfig, directory: Path, resume: bool, world: World) -> None:
    """Train with a progress bar, and say how it ended. Raises typer.Exit where it did not finish: with status 0 where
    it was asked to stop, else 1."""
    from irl_core.progress import progress_bar
    from train import run

    try:
        with progress_bar(directory.name, config.run.steps, shown=world.is_main) as bar:
            beside = BesideBar()

            def on_step(step: int, steps: int, metrics: dict[str, float], seconds_left: float) -> None:
                beside.after_step(metrics, seconds_left)
                bar.update(step, total=steps, beside=str(beside))

            def on_phase(phase: str) -> None:
                beside.begin(phase)
                bar.update(beside=str(beside))

            run.train(config, directory, resume, on_step, on_phase, world=world)
    except (Interrupted, FloatingPointError) as error:
        asked = isinstance(error, Interrupted) and not isinstance(error, Stopped)
        if world.is_main:
            how = f"interrupted. Go on with the same command and --resume (run: {directory})."
            say(how if asked else f"irl-lens: {error}", err=True)
        raise typer.Exit(0 if asked else 1) from None
    if world.is_main:
        say(f"Finished: {directory / 'final'}")


@dataclass(slots=True)
class BesideBar:
    """The text beside the progress bar: time left, phase and the last step's figures."""

    phase: str = ""
    left: str = ""
    figures: str = ""

    def begin(self, phase: str) -> None:
        """Show a phase; the steps have no time left once they are all taken."""
        self.phase = phase
        if phase == "finishing":
            self.left = ""

    def after_step(self, metrics: dict[str, float], seconds_left: float) -> None:
        self.left = f"{hours(seconds_left)} left"
        self.figures = "  ".join(f"{name} {metrics[name]:.3f}" for name in SHOWN if name in metrics)

    def __str__(self) -> str:
        return "  ".join(filter(None, (self.left, self.phase, self.figures)))
