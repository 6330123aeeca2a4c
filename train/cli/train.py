"""``irl-lens train``: the plan of a training, and the training with its progress bar."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from irl_core.config import TrainConfig, load_config
from irl_core.errors import ConfigError, UnknownShape
from train.planning.plan import PRESETS, RUNS, hours, launched_processes, lines, make_plan, refuse, this_device, to_json

if TYPE_CHECKING:
    from irl_core.distributed import World

SHOWN = ("disc/loss", "policy/loss", "rollout/correct")  # beside the progress bar


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for. ``memory_gb``: of the device that is planned for, in place of this machine's."""

    preset: str
    overrides: Sequence[str] = ()
    run_dir: Path | None = None
    resume: bool = False
    dry_run: bool = False
    as_json: bool = False
    memory_gb: float | None = None
    force: bool = False


def train(wish: Wish) -> None:
    """Do it. Raises ConfigError where it cannot be done, and typer.Exit where it ended otherwise than by finishing."""
    config = load_config(wish.preset, wish.overrides, PRESETS)
    if wish.dry_run:
        print_plan(config, wish)
        return
    if wish.as_json:
        raise ConfigError("--json prints the plan of a training; give --dry-run too")
    if not (wish.force or wish.resume):  # what is gone on with has fitted before
        check_memory(config, wish.memory_gb)
    from train.distributed import end_world, start_world

    world, _ = start_world(config)
    _train_before(config, world)
    _train(config, wish.run_dir or RUNS / config.run.preset, wish.resume, world)
    end_world()


def print_plan(config: TrainConfig, wish: Wish) -> None:
    """The plan on stdout, as text or JSON; of several processes the first one's."""
    plan = make_plan(config, this_device(wish.memory_gb), launched_processes(), ask_hub=True)
    if os.environ.get("RANK", "0") == "0":
        as_json = json.dumps(to_json(plan), ensure_ascii=False, allow_nan=False) if wish.as_json else ""
        typer.echo(as_json or "\n".join((*lines(plan), *_lines_before(config, plan.durations.total, wish))))


def _lines_before(config: TrainConfig, own: float, wish: Wish) -> Iterator[str]:
    """The presets that are trained first, with their time."""
    seconds = {
        name: make_plan(before, this_device(wish.memory_gb), launched_processes()).durations.total
        for name, before in _unfinished(config).items()
    }
    if seconds:
        told = ", ".join(f"{name} {hours(one)}" for name, one in seconds.items())
        yield f"Trained first: {told}; in all {hours(own + sum(seconds.values()))}"


def _unfinished(config: TrainConfig) -> dict[str, TrainConfig]:
    """The presets before this one whose runs are not finished, in the order in which they are trained."""
    found: dict[str, TrainConfig] = {}
    for name in config.run.after:
        if not _finished(name):
            before = load_config(name, presets_dir=PRESETS)
            found |= _unfinished(before) | {name: before}
    return found


def check_memory(config: TrainConfig, memory_gb: float | None = None) -> None:
    """Refuse what would not fit, also of the presets that are trained first. Raises ConfigError."""
    for name in config.run.after:
        if not _finished(name):
            check_memory(load_config(name, presets_dir=PRESETS), memory_gb)
    try:
        refuse(make_plan(config, this_device(memory_gb), launched_processes()))
    except UnknownShape as error:
        typer.echo(f"Memory was not estimated: {error}.", err=True)


def _finished(name: str) -> bool:
    return (RUNS / name / "final" / "manifest.json").is_file()


def _train_before(config: TrainConfig, world: World) -> None:
    """Train the presets that this one starts from, where their runs are not finished yet."""
    from train.distributed import check_division

    for name in config.run.after:
        begun = (RUNS / name / "config.yaml").is_file()
        finished, begun = world.gather([(_finished(name), begun)])[0]  # as the first process sees it
        if not finished:
            earlier = load_config(name, presets_dir=PRESETS)
            check_division(earlier, world.size)
            if world.is_main:
                typer.echo(f"{config.run.preset} starts from {name}, which is trained first.", err=True)
            _train_before(earlier, world)
            _train(earlier, RUNS / name, begun, world)


def _train(config: TrainConfig, directory: Path, resume: bool, world: World) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from train.run import Interrupted
    from train.run import train as run

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[more]}"))
    with Progress(*columns, console=Console(stderr=True), disable=not world.is_main) as progress:
        bar = progress.add_task(directory.name, total=config.run.steps, more="")
        view = _View()

        def on_step(step: int, steps: int, metrics: dict[str, float], seconds_left: float) -> None:
            view.after_step(metrics, seconds_left)
            progress.update(bar, completed=step, total=steps, more=str(view))

        def on_phase(phase: str) -> None:
            view.phase = phase
            progress.update(bar, more=str(view))

        ended: Exception | None = None
        try:
            run(config, directory, resume, on_step, on_phase, world=world)
        except (Interrupted, FloatingPointError) as error:
            ended = error
    status = _end(ended, directory, aloud=world.is_main)
    if ended is not None:
        raise typer.Exit(status)


def _end(ended: Exception | None, directory: Path, *, aloud: bool) -> int:
    """Say how a run ended; returns the exit status, which is 0 where it finished or was asked to stop."""
    from train.run import Interrupted, Stopped

    if ended is None:
        text = f"Finished: {directory / 'final'}"
    elif isinstance(ended, Interrupted) and not isinstance(ended, Stopped):
        text = f"interrupted. Go on with the same command and --resume (run: {directory})."
    else:
        if aloud:
            typer.echo(f"irl-lens: {ended}", err=True)
        return 1
    if aloud:
        typer.echo(text, err=ended is not None)
    return 0


@dataclass(slots=True)
class _View:
    """What stands beside the progress bar."""

    phase: str = ""
    left: str = ""
    figures: str = ""

    def after_step(self, metrics: dict[str, float], seconds_left: float) -> None:
        self.left = f"{hours(seconds_left)} left"
        self.figures = "  ".join(f"{name} {metrics[name]:.3f}" for name in SHOWN if name in metrics)

    def __str__(self) -> str:
        return "  ".join(filter(None, (self.left, self.phase, self.figures)))
