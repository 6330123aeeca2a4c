"""A training run: a directory with its configuration, metrics, status and checkpoints; it stops and resumes.

    runs/<name>/config.yaml    the resolved configuration
                metrics.jsonl  one line a step
                status.json    state, step, time left, heartbeat
                checkpoints/step-000100/ ...   training states, the last ``run.keep``
                final/         the finished checkpoint, which the app and ``irl-lens`` load
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from irl_core.checkpoints import newest_verified
from irl_core.config import ConfigError, TrainConfig

FINAL = "final"
OnStep = Callable[[int, int, dict[str, float], float], None]


class Interrupted(Exception):
    """The run was asked to stop, and has saved."""


def train(config: TrainConfig, run_dir: Path, resume: bool = False, on_step: OnStep | None = None) -> Path:
    """Run a training from its configuration to its finished checkpoint.

    ``on_step(step, steps, metrics, seconds_left)`` is called after every step. SIGTERM and SIGINT finish the step,
    save, and raise ``Interrupted``.

    Returns:
        The finished checkpoint's directory.

    Raises:
        ConfigError: the directory holds another run, or one to be resumed.
        CheckpointError: nothing to resume from.
        Interrupted: stopped on request; ``resume=True`` goes on from there.
    """
    from train.session import Session

    prepare(config, run_dir, resume)
    status = Status(run_dir, config.run.steps)
    try:
        with stop_requests() as stopped:
            session = Session.start(config, run_dir, newest_state(run_dir) if resume else None)
            status.write("running", session.step)
            _loop(session, config, run_dir, status, stopped, on_step)
            final = session.finish(run_dir / FINAL)
    except Interrupted:
        raise
    except BaseException as error:
        status.write("failed", status.step, reason=f"{type(error).__name__}: {error}")
        raise
    status.write("finished", config.run.steps)
    return final


def _loop(
    session: Any, config: TrainConfig, run_dir: Path, status: Status, stopped: list[int], on_step: OnStep | None
) -> None:
    metrics_file = MetricsFile(run_dir / "metrics.jsonl", session.step)
    clock = Clock(session.step, config.run.steps)
    while session.step < config.run.steps:
        metrics = session.round()
        clock.tick(session.step)
        due = config.run.save_every and session.step % config.run.save_every == 0
        metrics_file.append(session.step, metrics)
        status.write("running", session.step, seconds_left=clock.seconds_left)
        if on_step:
            on_step(session.step, config.run.steps, metrics, clock.seconds_left)
        if (due or stopped) and session.step < config.run.steps:
            session.save(run_dir / "checkpoints" / f"step-{session.step:06d}")
        if stopped and session.step < config.run.steps:
            status.write("interrupted", session.step)
            raise Interrupted(f"stopped at step {session.step} of {config.run.steps}; go on with --resume")


def prepare(config: TrainConfig, run_dir: Path, resume: bool) -> None:
    """Create the run's directory, or check that what is to be resumed is the same run.

    Raises:
        ConfigError: it holds another configuration, or a run and ``resume`` is not set.
    """
    path = run_dir / "config.yaml"
    if not path.exists():
        if resume:
            raise ConfigError(f"nothing to resume: {run_dir.name} has no config.yaml; leave out --resume")
        run_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(config.to_yaml(), encoding="utf-8")
    elif not resume:
        raise ConfigError(f"{run_dir.name} already holds a run; add --resume, or name another --run-dir")
    elif path.read_text(encoding="utf-8") != config.to_yaml():
        raise ConfigError(f"{run_dir.name} was started with other settings; resume with those, or take a new --run-dir")


def newest_state(run_dir: Path) -> Path | None:
    """The newest whole training state, or None where the run was stopped before its first save.

    Raises:
        CheckpointError: there are saves, and none of them is whole.
    """
    folder = run_dir / "checkpoints"
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    path, passed_over = newest_verified(folder)
    for reason in passed_over:
        print(f"passed over {reason}", file=sys.stderr)
    return path


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that is filled when SIGTERM or SIGINT arrives; the handlers are put back afterwards."""
    received: list[int] = []
    previous = {
        number: signal.signal(number, lambda n, frame: received.append(n)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class Clock:
    """Seconds left, from the pace of this process's own last steps."""

    first: int
    steps: int
    started: float = 0.0
    seconds_left: float = 0.0

    def __post_init__(self) -> None:
        self.started = time.perf_counter()

    def tick(self, step: int) -> None:
        pace = (time.perf_counter() - self.started) / max(1, step - self.first)
        self.seconds_left = pace * (self.steps - step)


class MetricsFile:
    """``metrics.jsonl``: lines after the step resumed from are dropped, so that every step stands there once."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step] if path.exists() else []
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept))
        os.replace(temporary, path)

    def append(self, step: int, metrics: dict[str, float]) -> None:
        line = json.dumps({"step": step, **{key: round(value, 6) for key, value in sorted(metrics.items())}})
        with self.path.open("a") as target:
            target.write(line + "\n")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut off by a kill is not kept


@dataclass(slots=True)
class Status:
    """``status.json``, replaced whole: state, step, process, heartbeat."""

    run_dir: Path
    steps: int
    step: int = 0

    def write(self, state: str, step: int, *, seconds_left: float | None = None, reason: str = "") -> None:
        self.step = step
        document = {
            "state": state, "step": step, "steps": self.steps, "pid": os.getpid(), "reason": reason,
            "seconds_left": None if seconds_left is None else round(seconds_left, 1),
            "heartbeat": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        temporary = self.run_dir / "status.json.tmp"
        temporary.write_text(json.dumps(document, indent=2) + "\n")
        os.replace(temporary, self.run_dir / "status.json")
