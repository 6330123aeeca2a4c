"""A training run's folder: which process may write there, and its log, metrics and status.

Files are replaced atomically and lines appended whole or not at all: a reader, and a training that is resumed after a
kill, never meets half of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from irl_core.checkpoints.find import newest_verified
from irl_core.checkpoints.manifest import failure
from irl_core.checkpoints.save import LEFTOVER_SUFFIXES
from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.files import append_lines, not_written, now, write_whole
from irl_core.storage.sole_writer import NO_LOCKS
from irl_core.storage.training_run import (
    CHECKPOINTS,
    CONFIG,
    FINAL,
    METRICS,
    STATUS,
    TrainingStatus,
    living_process,
    machine,
    read_metrics,
    read_status,
    started,
)

SIGNIFICANT_DIGITS = 8
SECONDS_BETWEEN_BEATS = 2.0


# -------------------------------------------------------------------------------------------------------- writing


class Log:
    """``log.txt``: a line for everything said, with its time in UTC."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, line: str) -> None:
        """Append a line."""
        append_lines(self.path, f"{now()} {line}\n", durable=False)


# ------------------------------------------------------------------------------------------------------- metrics


def rounded(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics as they are written: decisions made from them are made again when they are read back."""
    return {key: float(f"{value:.{SIGNIFICANT_DIGITS}g}") for key, value in sorted(metrics.items())}


class MetricsFile:
    """``metrics.jsonl``; lines after the ``step`` that a training resumes from are dropped, so each step is there once.

    Attributes:
        rows: the lines kept.
        reached: the last step that was there before, dropped or not.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        written = read_metrics(path)
        self.reached = max((int(row["step"]) for row in written), default=0)
        self.rows = [row for row in written if row["step"] <= step]
        if written or path.exists():
            write_whole(path, "".join(f"{json.dumps(row)}\n" for row in self.rows))

    def append(self, step: int, metrics: dict[str, float]) -> None:
        append_lines(self.path, json.dumps({"step": step, **metrics}, allow_nan=False) + "\n")


# -------------------------------------------------------------------------------------------------------- status


@dataclass(slots=True)
class Status:
    """``status.json`` (see ``TrainingStatus``); ``written`` is when, on the monotonic clock."""

    path: Path
    steps: int
    step: int = 0
    state: str = "running"
    phase: str = "starting"
    seconds_left: float | None = None
    reason: str = ""
    warnings: int = 0
    best: dict[str, float] | None = None
    written: float = -SECONDS_BETWEEN_BEATS

    def write(self) -> None:
        """Write it now. Raises CheckpointError."""
        self.written = time.monotonic()
        document = {
            "state": self.state, "phase": self.phase, "step": self.step, "steps": self.steps,
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
            "reason": self.reason, "warnings": self.warnings, "best": self.best,
            "pid": os.getpid(), "process_started": started(os.getpid()), "host": socket.gethostname(),
            "machine": machine(), "heartbeat": now(),
        }  # fmt: skip
        write_whole(self.path, json.dumps(document, indent=2) + "\n", durable=False)

    def beat(self, phase: str) -> None:
        """Write a heartbeat, at most once in ``SECONDS_BETWEEN_BEATS``."""
        self.phase = phase
        if time.monotonic() - self.written >= SECONDS_BETWEEN_BEATS:
            self.write()


# ------------------------------------------------------------------------------------------------------ claiming


@dataclass(frozen=True, slots=True)
class Claim:
    """A folder claimed by this process: its ``previous`` status, and whether the training is ``finished`` already."""

    previous: TrainingStatus
    finished: bool


@contextmanager
def claimed(config: TrainConfig, run_dir: Path, resume: bool) -> Iterator[Claim]:
    """Create a training run's folder, or take over the one to resume; its status then names this process.

    While the block runs no other process can: a lock of the operating system decides, which is free however this
    process ends. Where the file system has none, the status does. A folder whose training failed before its first step
    holds nothing to lose, and is used for a new one.

    Raises:
        ConfigError: it holds another configuration, a training run while ``resume`` is not set, or is in use.
        CheckpointError: it cannot be written, or its status cannot be read.
    """
    path = run_dir / CONFIG
    if resume and not path.exists():
        raise ConfigError(f"nothing to resume: {run_dir.name} has no config.yaml; leave out --resume")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(run_dir.name, error) from error
    with contextlib.ExitStack() as held:
        free = held.enter_context(locked(run_dir))
        previous = read_status(run_dir)
        process = living_process(previous)
        if not free or process:
            raise ConfigError(
                f"{run_dir.name} is being trained by {process or 'another process'} (step {previous.get('step', 0)}); "
                "wait for it, or end it with SIGTERM (it saves) and then --resume"
            )
        settle_config(path, config, resume)
        finished = previous.get("state") == "finished" and failure(run_dir / FINAL) is None
        if not finished:
            step, best = previous.get("step", 0), previous.get("best")
            Status(run_dir / STATUS, config.run.steps, step=step, best=best).write()
        yield Claim(previous, finished)


def settle_config(path: Path, config: TrainConfig, resume: bool) -> None:
    """Write ``config.yaml``, or check that it is the one to resume with. Raises ConfigError."""
    name = path.parent.name
    nothing_to_lose = not read_metrics(path.with_name(METRICS)) and nothing_saved(path.with_name(CHECKPOINTS))
    if not path.exists() or (not resume and nothing_to_lose):
        write_whole(path, config.to_yaml())
    elif not resume:
        raise ConfigError(f"{name} already holds a run; add --resume, or name another --run-dir")
    elif path.read_text(encoding="utf-8") != config.to_yaml():
        raise ConfigError(f"{name} was started with other settings; resume with those, or take a new --run-dir")


@contextmanager
def locked(run_dir: Path) -> Iterator[bool]:
    """Hold the lock of a folder while the block runs; the block is given whether it was free."""
    descriptor = os.open(run_dir, os.O_RDONLY)
    try:
        free = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield free
    finally:
        os.close(descriptor)


def newest_state(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest whole training state (None where nothing was saved yet), and a line for each one passed over.

    What a kill left of the first save alone is nothing saved.

    Raises:
        CheckpointError: there are saves, and none of them is whole.
    """
    folder = run_dir / CHECKPOINTS
    if not nothing_saved(folder):
        return newest_verified(folder)
    return None, [f"{path.name}: a first save that was not finished" for path in saves_in(folder)]


def saves_in(folder: Path) -> list[Path]:
    """What lies in the folder of a training's states, sorted; nothing where it is not there."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def nothing_saved(folder: Path) -> bool:
    """Whether the folder of a training's states holds none, or half of the first one alone."""
    return all(path.name.endswith(LEFTOVER_SUFFIXES) and failure(path) is not None for path in saves_in(folder))
