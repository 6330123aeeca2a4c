"""A run's folder: who may write there, and the files that tell how it goes.

Whole files are replaced atomically, lines are appended whole or not at all: a reader, and a run that is resumed after a
kill, never meets half of one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from irl_core.checkpoints.find import newest_verified
from irl_core.checkpoints.manifest import failure
from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.files import append_lines, not_written, now, write_whole
from irl_core.storage.training_run import (
    CHECKPOINTS,
    CONFIG,
    FINAL,
    METRICS,
    STATUS,
    TrainingStatus,
    living_process,
    read_metrics,
    read_status,
)

SIGNIFICANT_DIGITS = 8
SECONDS_BETWEEN_BEATS = 2.0


# -------------------------------------------------------------------------------------------------------- writing


class Log:
    """``log.txt``: everything said, a line each, with its time in UTC."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, line: str) -> None:
        append_lines(self.path, f"{now()} {line}\n", durable=False)


# ------------------------------------------------------------------------------------------------------- metrics


def rounded(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics as they are written, so that what is decided from them is decided again when they are read back."""
    return {key: float(f"{value:.{SIGNIFICANT_DIGITS}g}") for key, value in sorted(metrics.items())}


class MetricsFile:
    """``metrics.jsonl``. Lines after the step resumed from are dropped, so that every step stands there once.

    ``rows``: what was kept. ``reached``: the last step that stood there before, also where it was dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        found = read_metrics(path)
        self.reached = max((int(row["step"]) for row in found), default=0)
        self.rows = [row for row in found if row["step"] <= step]
        if found or path.exists():
            write_whole(path, "".join(f"{json.dumps(row)}\n" for row in self.rows))

    def append(self, step: int, metrics: dict[str, float]) -> None:
        append_lines(self.path, json.dumps({"step": step, **metrics}, allow_nan=False) + "\n")


# -------------------------------------------------------------------------------------------------------- status


@dataclass(slots=True)
class Status:
    """``status.json``: state, step, process and heartbeat, replaced whole."""

    path: Path
    steps: int
    step: int = 0
    state: str = "running"
    phase: str = "starting"
    seconds_left: float | None = None
    reason: str = ""
    warnings: int = 0
    best: dict[str, Any] | None = None
    written: float = -SECONDS_BETWEEN_BEATS

    def write(self) -> None:
        """Write it now. Raises CheckpointError."""
        self.written = time.monotonic()
        document = {
            "state": self.state, "phase": self.phase, "step": self.step, "steps": self.steps,
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
            "reason": self.reason, "warnings": self.warnings, "best": self.best,
            "pid": os.getpid(), "process_started": psutil.Process().create_time(), "host": socket.gethostname(),
            "heartbeat": now(),
        }  # fmt: skip
        write_whole(self.path, json.dumps(document, indent=2) + "\n", durable=False)

    def beat(self, phase: str) -> None:
        """Say that the run is alive, at most once in ``SECONDS_BETWEEN_BEATS``."""
        self.phase = phase
        if time.monotonic() - self.written >= SECONDS_BETWEEN_BEATS:
            self.write()


# ------------------------------------------------------------------------------------------------------ claiming


@dataclass(frozen=True, slots=True)
class Claim:
    """The folder is this process's. ``previous``: the status that was found. ``finished``: nothing is left to do."""

    previous: TrainingStatus
    finished: bool


def claim(config: TrainConfig, run_dir: Path, resume: bool) -> Claim:
    """Create the run's folder, or take over the one to be resumed; from then on its status names this process.

    A folder whose run failed before its first step holds nothing to lose: it is taken for a new run.

    Raises:
        ConfigError: it holds another configuration, a run while ``resume`` is not set, or is being written to.
        CheckpointError: it cannot be written, or its status cannot be read.
    """
    path = run_dir / CONFIG
    if resume and not path.exists():
        raise ConfigError(f"nothing to resume: {run_dir.name} has no config.yaml; leave out --resume")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(run_dir.name, error) from error
    with _locked(run_dir):
        previous = read_status(run_dir)
        if process := living_process(previous):
            raise ConfigError(
                f"{run_dir.name} is being trained by {process} (step {previous.get('step')}); wait for it, or end it "
                "with SIGTERM (it saves) and then --resume"
            )
        _check_config(path, config, resume)
        finished = previous.get("state") == "finished" and failure(run_dir / FINAL) is None
        if not finished:
            step, best = previous.get("step", 0), previous.get("best")
            Status(run_dir / STATUS, config.run.steps, step=step, best=best).write()
    return Claim(previous, finished)


def _check_config(path: Path, config: TrainConfig, resume: bool) -> None:
    name = path.parent.name
    nothing_to_lose = not read_metrics(path.with_name(METRICS)) and not path.with_name(CHECKPOINTS).exists()
    if not path.exists() or (not resume and nothing_to_lose):
        write_whole(path, config.to_yaml())
    elif not resume:
        raise ConfigError(f"{name} already holds a run; add --resume, or name another --run-dir")
    elif path.read_text(encoding="utf-8") != config.to_yaml():
        raise ConfigError(f"{name} was started with other settings; resume with those, or take a new --run-dir")


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Two processes that start at once come one after the other (file systems without locks cannot tell)."""
    descriptor = os.open(run_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EBADF):
                raise
        yield
    finally:
        os.close(descriptor)


def newest_state(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest whole training state (None where the run was stopped before its first save), and a line for each
    one passed over.

    Raises:
        CheckpointError: there are saves, and none of them is whole.
    """
    folder = run_dir / CHECKPOINTS
    if not folder.is_dir() or not any(folder.iterdir()):
        return None, []
    return newest_verified(folder)
