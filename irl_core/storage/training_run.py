"""A training run's folder as a reader sees it: names of files, metrics, status, and whether a process is training.

``train.run_folder`` writes them; ``docs/runs.md`` describes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import psutil

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import MANIFEST

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
STATUS = "status.json"
LOG = "log.txt"
PROVENANCE = "provenance.json"
CHECKPOINTS = "checkpoints"
FINAL = "final"
CALIBRATING = "calibrating"  # the parts of the calibration, until it is written

START_TICKS = 19  # its place in /proc/PID/stat behind the name: field 22 (proc_pid_stat(5))
SECONDS_OF_SILENCE = 60.0  # after which a training run of another machine counts as dead


class TrainingStatus(TypedDict, total=False):
    """``status.json``; empty where there is none yet.

    ``pid`` and ``process_started`` (see `started`) name the process that wrote it on ``machine`` (see `machine`), whose
    name is ``host``; ``heartbeat`` (ISO 8601) is when. ``best``: the best evaluation so far.
    """

    state: str
    phase: str
    step: int
    steps: int
    seconds_left: float | None
    reason: str
    warnings: int
    best: dict[str, Any] | None
    pid: int
    process_started: float
    host: str
    machine: str
    heartbeat: str


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a ``metrics.jsonl``; one that a kill cut off is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def read_status(run_dir: Path) -> TrainingStatus:
    """The last status of a training run; empty where there is none. Raises CheckpointError where it is not readable."""
    path = run_dir / STATUS
    status: TrainingStatus = load_json(path) if path.exists() else {}  # type: ignore[assignment]
    return status


def is_finished(run_dir: Path) -> bool:
    """Whether a training run has left its final checkpoint (which is not verified here)."""
    return (run_dir / FINAL / MANIFEST).is_file()


def living_process(status: TrainingStatus) -> str | None:
    """Words for the process that is writing to the folder now; None where there is none, or it died silently.

    A process of this machine is known by its id and the moment of its start (ids are used again), whatever the clock
    says; one of another machine, or from before a restart, only by a heartbeat of the last ``SECONDS_OF_SILENCE``.
    """
    if status.get("state") != "running":
        return None
    pid, host = status.get("pid"), status.get("host")
    if status.get("machine") == machine():
        return f"process {pid}" if is_alive(pid, status.get("process_started")) else None
    try:
        silence = (datetime.now(UTC) - datetime.fromisoformat(str(status.get("heartbeat")))).total_seconds()
    except (ValueError, TypeError):
        return None
    return f"process {pid} on {str(host)[:80]!r}" if silence < SECONDS_OF_SILENCE else None


def is_alive(pid: Any, began: Any) -> bool:
    """Whether the process of this id runs on this machine, and is the one that was `started` then."""
    if not (isinstance(pid, int) and isinstance(began, int | float)):
        return False
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and started(pid) == began)
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return False


def started(pid: int) -> float | None:
    """When a process of this machine was started, in seconds since its boot; None where the process is gone.

    The kernel counts them in ticks that nobody sets: psutil's ``create_time`` adds the time of the boot, which changes
    with every step of the clock. Without Linux's ``/proc`` it is psutil's, in seconds since the epoch.
    """
    if sys.platform != "linux":
        try:
            return float(psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # the name may hold anything
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[START_TICKS]) / os.sysconf("SC_CLK_TCK")


def machine() -> str:
    """Identity of the place where a process id means the same process: host, boot and the container's own ids."""
    identity = [socket.gethostname()]
    with contextlib.suppress(OSError):
        identity += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(identity)
